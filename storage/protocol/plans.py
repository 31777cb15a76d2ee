"""Plans: frozen, hashed lists of shards. The same command makes the same plan, and so continues where it stopped.

A plan whose shards are named from their inputs stores the shards in the home of its settings. All plans of the same
kind and settings have the same home. So two plans that overlap meet at one commit record, and the shard is made once.
Shards with other names are stored under the id of their plan.
"""

import dataclasses
import hashlib
import json
import re
import string
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from storage.errors import Conflict, Corrupt, StoreError
from storage.formats.documents import FORMAT, corrupt_where_malformed, json_bytes, read_json
from storage.objects.stores import ObjectStore
from storage.protocol.inputs import (
    Input,
    PlanKind,
    ShardAddress,
    check_inputs,
    inputs_from_json,
    inputs_to_json,
    name_from_inputs,
)

_PLAN_KEY = re.compile(r"plans/[A-Za-z0-9_-]+\.json")
_NAME_CHARACTERS = set(string.ascii_letters + string.digits + "-_")


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """A shard that a worker is to make: one unit of work."""

    name: str
    """Name of the shard, unique within the plan."""
    inputs: tuple[Input, ...] = ()
    """Inputs that the shard is made from; inputs.py lists the types for each kind of plan."""
    generation: int = 0
    """Number of times that the shard was redone, this time included; 0 for the first generation."""
    previous: str = ""
    """SHA-256 of the previous generation's commit record, in hex; empty for generation 0."""

    @classmethod
    def from_inputs(cls, *inputs: Input) -> "PlannedShard":
        """Return a shard of generation 0 with the name that follows from its inputs."""
        return cls(name=name_from_inputs(inputs), inputs=inputs)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A frozen list of shards to make.

    The id of the plan is computed from kind, shards and settings, so the same command finds the same plan again.
    """

    plan_id: str
    """Id of the plan: its kind and the first 16 hex digits of the hash of its content."""
    kind: PlanKind
    """Kind of records in the plan's shards: images, masks, withdrawals or erasures."""
    shards: tuple[PlannedShard, ...]
    """Shards of the plan, in the order of work."""
    settings: Mapping[str, object]
    """Settings that the shards are made with, as JSON values."""
    settings_hash: str
    """SHA-256 of the settings, in hex; masks store it as `config_hash`."""
    created_at: datetime
    """Time of the plan's creation, UTC."""
    redoes: str = ""
    """Id of the plan whose shards this plan makes again; empty for a plan that is no redo."""
    home: str = ""
    """Folder below commits/ and data/ that the plan's shards are stored in, and their `plan` in the tables.

    Plans of the same kind and settings share the home `<kind>-by-<hash of the settings>` if their shards are named from
    their inputs. Otherwise the home is the id of the plan. A redo has the home of the plan that it redoes.
    """

    def address(self, shard: PlannedShard) -> ShardAddress:
        """Return the address of a planned shard; the shard's commit record is stored under this address."""
        return ShardAddress(plan_id=self.home, shard=shard.name, generation=shard.generation)

    def shard(self, name: str) -> PlannedShard:
        """Return the planned shard with the given name.

        Raises:
            ValueError: The plan has no such shard.
        """
        for shard in self.shards:
            if shard.name == name:
                return shard
        raise ValueError(f"plan {self.plan_id} has no shard {name!r}")


def make_plan(
    kind: PlanKind | str,
    shards: Sequence[PlannedShard],
    settings: Mapping[str, object],
    *,
    redoes: str = "",
    home: str = "",
    created_at: datetime | None = None,
) -> Plan:
    """Make a plan. The id of the plan is computed from all arguments except `created_at`.

    Args:
        kind: Kind of records in the shards.
        shards: Shards to make.
        settings: Settings that the shards are made with, as JSON values.
        redoes: Id of the plan whose shards are made again; empty for a plan that is no redo.
        home: Home of the plan that is redone; empty for a plan that is no redo.
        created_at: Time of creation; None for now.

    Raises:
        ValueError: The kind is unknown, inputs are of another kind, or shard names are malformed or repeated.
    """
    if kind not in [*PlanKind]:
        raise ValueError(f"plan kind {kind!r}, expected one of {', '.join(PlanKind)}")
    kind = PlanKind(kind)
    names = [shard.name for shard in shards]
    for name in names:
        if not name or not set(name) <= _NAME_CHARACTERS or name.startswith("."):
            raise ValueError(f"shard name {name!r}: expected letters, digits, '-', '_' only")
    if len(set(names)) != len(names):
        raise ValueError(f"shard names of a plan must differ; got {len(names) - len(set(names))} twice")
    for shard in shards:
        check_inputs(kind, shard.inputs)
    frozen = json.loads(json_bytes(settings))
    settings_hash = hashlib.sha256(json_bytes(frozen)).hexdigest()
    content = {"kind": kind, "redoes": redoes, "shards": _shards_to_json(shards), "settings": frozen}
    if home not in ("", redoes):  # earlier versions knew no home but the plan that is redone
        content["home"] = home
    plan_id = f"{kind}-{hashlib.sha256(json_bytes(content)).hexdigest()[:16]}"
    if not redoes:
        named_from_inputs = all(shard.name == name_from_inputs(shard.inputs) for shard in shards)
        home = f"{kind}-by-{settings_hash[:16]}" if shards and named_from_inputs else plan_id
    return Plan(
        plan_id=plan_id,
        kind=kind,
        shards=tuple(shards),
        settings=frozen,
        settings_hash=settings_hash,
        created_at=created_at or datetime.now(UTC),
        redoes=redoes,
        home=home or redoes,
    )


def put_plan(store: ObjectStore, plan: Plan) -> Plan:
    """Store a plan, and return the plan that is stored.

    If a plan with the same content was stored before, that plan is returned.
    """
    with suppress(Conflict):
        store.put_if_absent(f"plans/{plan.plan_id}.json", plan_to_json(plan))
    return read_plan(store, plan.plan_id)


def read_plan(store: ObjectStore, plan_id: str) -> Plan:
    """Read a plan.

    Raises:
        NotFound: There is no such plan.
        Corrupt: The plan's file is damaged, or its content has another hash than its name states.
    """
    key = f"plans/{plan_id}.json"
    plan = plan_from_json(store.get(key), where=f"{store.uri}/{key}")
    redone_home = plan.home if plan.redoes else ""
    expected = make_plan(plan.kind, plan.shards, plan.settings, redoes=plan.redoes, home=redone_home)
    if (plan.plan_id, expected.plan_id) != (plan_id, plan_id) or plan.home not in ("", expected.home):
        raise Corrupt(
            f"{store.uri}/{key}: its content is that of plan {expected.plan_id}; restore the file from a copy"
        )
    return replace(plan, home=expected.home)  # earlier versions did not store it


def list_plan_ids(store: ObjectStore) -> list[str]:
    """List the ids of all plans, in ascending order.

    Other files below plans/ are skipped; `gigamask verify` names such files.
    """
    return [key.removeprefix("plans/").removesuffix(".json") for key in store.list("plans/") if is_plan_key(key)]


def is_plan_key(key: str) -> bool:
    """Check whether an object with the given key is a plan."""
    return _PLAN_KEY.fullmatch(key) is not None


def plan_to_json(plan: Plan) -> bytes:
    """Write a plan as JSON."""
    fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    shards = _shards_to_json(plan.shards)
    return json_bytes({"format": FORMAT, **fields, "shards": shards, "created_at": plan.created_at.isoformat()})


def plan_from_json(data: bytes, *, where: str) -> Plan:
    """Read a plan from JSON. Error messages give `where` as the place of the plan.

    Raises:
        Corrupt: The plan is torn or malformed.
        StoreError: A newer version of gigamask wrote the plan.
    """
    fields = read_json(data, "plan", where)
    if fields["kind"] not in [*PlanKind]:
        raise StoreError(
            f"{where}: a plan of kind {fields['kind']!r}, which this version does not know; use a newer one"
        )
    kind = PlanKind(fields["kind"])
    with corrupt_where_malformed(where):
        return Plan(
            plan_id=fields["plan_id"],
            kind=kind,
            shards=tuple(
                PlannedShard(**{**each, "inputs": inputs_from_json(kind, each["inputs"])}) for each in fields["shards"]
            ),
            settings=fields["settings"],
            settings_hash=fields["settings_hash"],
            created_at=datetime.fromisoformat(fields["created_at"]),
            redoes=fields["redoes"],
            home=fields.get("home", ""),
        )


def _shards_to_json(shards: Sequence[PlannedShard]) -> list[dict[str, object]]:
    return [
        {
            "name": shard.name,
            "inputs": inputs_to_json(shard.inputs),
            "generation": shard.generation,
            "previous": shard.previous,
        }
        for shard in shards
    ]
