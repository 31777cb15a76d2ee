"""Who made what: frozen plans, attempts under keys that are never used twice, and one commit record per shard.

A worker writes its attempt's objects, reads them back, then creates the commit record with put-if-absent. Whose attempt
id the record holds has won. So a retry, a crash or a worker that thaws after its replacement finished can neither lose
nor double a mask. Records, plans and objects are never changed afterwards.
"""

import hashlib
import json
import string
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import BinaryIO, cast

from storage.records import Reject
from storage.stores import Conflict, Corrupt, NotFound, ObjectStore, StoreError, sha256_of

FORMAT = 1  # of every JSON file of a dataset; a reader refuses a higher one
KINDS = ("images", "masks", "withdrawals")
_NAME_CHARACTERS = set(string.ascii_letters + string.digits + "-_")


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """One unit of work. `inputs`: what it is made from (files, or addresses of shards, see `Commit.address`)."""

    name: str
    inputs: tuple[str, ...] = ()
    generation: int = 0
    previous: str = ""  # SHA-256 of the record of generation - 1, "" for generation 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A frozen list of shards; its id follows from kind, shards and settings: the same command finds it again."""

    plan_id: str
    kind: str  # one of KINDS
    shards: tuple[PlannedShard, ...]
    settings: Mapping[str, object]  # JSON values
    settings_hash: str  # SHA-256 of the settings: a mask's config_hash
    created_at: datetime  # UTC

    def shard(self, name: str) -> PlannedShard:
        """The planned shard of that name. Raises ValueError."""
        for shard in self.shards:
            if shard.name == name:
                return shard
        raise ValueError(f"plan {self.plan_id} has no shard {name!r}")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One object of a shard. `role`: "tar" (samples), "rows" (Parquet: this part's rows of the dataset's table)."""

    role: str
    key: str
    nbytes: int
    sha256: str
    images: int
    masks: int


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The record of a finished shard. `attempt_id` "" closes a shard that nobody will make."""

    plan_id: str
    shard: str
    generation: int
    kind: str
    attempt_id: str
    parts: tuple[Part, ...]
    rejects: tuple[Reject, ...]
    model_id: str
    seconds: float  # of work
    stats: Mapping[str, object]  # JSON values, the diagnostics of the stage
    committed_at: datetime  # UTC
    previous: str = ""  # SHA-256 of the record it replaces
    record_sha256: str = field(default="", compare=False)  # of the stored record; "" before it is stored

    @property
    def address(self) -> str:
        """`<plan>/<shard>.g<generation>`: how other plans and commands name this shard."""
        return address_of(self.plan_id, self.shard, self.generation)

    @property
    def images(self) -> int:
        return sum(part.images for part in self.parts if part.role == "tar")

    @property
    def masks(self) -> int:
        return sum(part.masks for part in self.parts if part.role == "tar")

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def tars(self) -> list[Part]:
        """The parts that hold samples."""
        return [part for part in self.parts if part.role == "tar"]

    def rows(self) -> list[Part]:
        """The parts that hold table rows."""
        return [part for part in self.parts if part.role == "rows"]


def address_of(plan_id: str, shard: str, generation: int) -> str:
    return f"{plan_id}/{shard}.g{generation}"


def make_plan(
    kind: str, shards: Sequence[PlannedShard], settings: Mapping[str, object], *, created_at: datetime | None = None
) -> Plan:
    """A plan whose id is that of its content. Raises ValueError for unknown kinds, bad or repeated shard names."""
    if kind not in KINDS:
        raise ValueError(f"plan kind {kind!r}, expected one of {', '.join(KINDS)}")
    names = [shard.name for shard in shards]
    for name in names:
        if not name or not set(name) <= _NAME_CHARACTERS or name.startswith("."):
            raise ValueError(f"shard name {name!r}: expected letters, digits, '-', '_' only")
    if len(set(names)) != len(names):
        raise ValueError(f"shard names of a plan must differ; got {len(names) - len(set(names))} twice")
    frozen = json.loads(json_bytes(settings))
    content = {"kind": kind, "shards": [asdict(shard) for shard in shards], "settings": frozen}
    digest = hashlib.sha256(json_bytes(content)).hexdigest()
    return Plan(
        plan_id=f"{kind}-{digest[:16]}",
        kind=kind,
        shards=tuple(shards),
        settings=frozen,
        settings_hash=hashlib.sha256(json_bytes(frozen)).hexdigest(),
        created_at=created_at or datetime.now(UTC),
    )


def put_plan(store: ObjectStore, plan: Plan) -> Plan:
    """Freezes a plan in the store; the one already there, of the same content, is returned instead."""
    with suppress(Conflict):
        store.put_if_absent(f"plans/{plan.plan_id}.json", plan_to_json(plan))
    return read_plan(store, plan.plan_id)


def read_plan(store: ObjectStore, plan_id: str) -> Plan:
    """Raises NotFound, Corrupt where the file's content is not the one its name says."""
    key = f"plans/{plan_id}.json"
    plan = plan_from_json(store.get(key), where=f"{store.uri}/{key}")
    expected = make_plan(plan.kind, plan.shards, plan.settings).plan_id
    if (plan.plan_id, expected) != (plan_id, plan_id):
        raise Corrupt(f"{store.uri}/{key}: its content is that of plan {expected}; restore the file from a copy")
    return plan


def list_plans(store: ObjectStore) -> list[Plan]:
    """All plans, oldest first."""
    ids = [key.removeprefix("plans/").removesuffix(".json") for key in store.list("plans/")]
    return sorted((read_plan(store, plan_id) for plan_id in ids), key=lambda plan: (plan.created_at, plan.plan_id))


class Attempt:
    """One try at a shard: objects under keys of its own, then the commit record.

    A crashed attempt leaves objects that nothing names; they are never read and cleaning up may delete them.
    """

    def __init__(self, store: ObjectStore, plan: Plan, shard: PlannedShard, attempt_id: str) -> None:
        self.store, self.plan, self.shard, self.attempt_id = store, plan, shard, attempt_id
        self.parts: list[Part] = []

    def key(self, extension: str) -> str:
        """Where the part of that file ending goes."""
        return f"data/{self.plan.plan_id}/{self.shard.name}/{self.attempt_id}.{extension}"

    def put_part(
        self, role: str, extension: str, fill: Callable[[BinaryIO], object], *, images: int = 0, masks: int = 0
    ) -> Part:
        """Writes what `fill` writes and reads size and SHA-256 back. Raises Corrupt where they differ, StoreError."""
        key, written = self.key(extension), _Hashing()
        self.store.write(key, lambda file: fill(written.onto(file)))
        nbytes, sha256 = self.store.head(key).nbytes, sha256_of(self.store, key)
        if (nbytes, sha256) != (written.nbytes, written.sha256()):
            raise Corrupt(f"{self.store.uri}/{key}: {nbytes} bytes came back, {written.nbytes} were written; try again")
        part = Part(role=role, key=key, nbytes=nbytes, sha256=sha256, images=images, masks=masks)
        self.parts.append(part)
        return part

    def commit(
        self,
        *,
        rejects: Iterable[Reject] = (),
        model_id: str = "",
        seconds: float = 0.0,
        stats: Mapping[str, object] | None = None,
        inherited: Sequence[Part] = (),
        committed_at: datetime | None = None,
    ) -> Commit:
        """Creates the shard's record and returns the one that is now there; its `attempt_id` says who won.

        A loser deletes its own objects. Where the store fails and no record can be found the error is raised and the
        objects stay: the put may still land.
        """
        commit = Commit(
            plan_id=self.plan.plan_id,
            shard=self.shard.name,
            generation=self.shard.generation,
            kind=self.plan.kind,
            attempt_id=self.attempt_id,
            parts=(*inherited, *self.parts),
            rejects=tuple(rejects),
            model_id=model_id,
            seconds=seconds,
            stats=stats or {},
            committed_at=committed_at or datetime.now(UTC),
            previous=self.shard.previous,
        )
        winner = put_commit(self.store, commit)
        if winner.attempt_id != self.attempt_id:
            self.discard()
        return winner

    def discard(self) -> None:
        """Deletes this attempt's objects; only for one that has lost or never tried to commit."""
        for part in self.parts:
            self.store.delete(part.key)


def begin_attempt(store: ObjectStore, plan: Plan, shard: PlannedShard, *, attempt_id: str | None = None) -> Attempt:
    """A new attempt at a planned shard, under an id nobody else has."""
    return Attempt(store, plan, shard, attempt_id or uuid.uuid4().hex)


def put_commit(store: ObjectStore, commit: Commit) -> Commit:
    """Puts the record if there is none and returns the one in the store. Raises StoreError where neither is known."""
    try:
        store.put_if_absent(commit_key(commit.plan_id, commit.shard, commit.generation), commit_to_json(commit))
    except StoreError as error:  # Conflict, or a reply that was lost: the record itself knows
        try:
            return read_commit(store, commit.plan_id, commit.shard, commit.generation)
        except NotFound:
            raise error from None
    return read_commit(store, commit.plan_id, commit.shard, commit.generation)


def commit_key(plan_id: str, shard: str, generation: int) -> str:
    return f"commits/{address_of(plan_id, shard, generation)}.json"


def read_commit(store: ObjectStore, plan_id: str, shard: str, generation: int = 0) -> Commit:
    """Raises NotFound, Corrupt."""
    return read_commit_at(store, commit_key(plan_id, shard, generation))


def read_commit_at(store: ObjectStore, key: str) -> Commit:
    """The record under a key of `commits/`. Raises NotFound, Corrupt where it speaks of another shard."""
    data = store.get(key)
    commit = commit_from_json(data, where=f"{store.uri}/{key}")
    if commit_key(commit.plan_id, commit.shard, commit.generation) != key:
        raise Corrupt(f"{store.uri}/{key}: the record is that of {commit.address}; restore the file from a copy")
    return replace(commit, record_sha256=hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, kw_only=True, order=True)
class CommitName:
    """What a record's key says."""

    plan_id: str
    shard: str
    generation: int

    @property
    def key(self) -> str:
        return commit_key(self.plan_id, self.shard, self.generation)


def list_commits(store: ObjectStore, plan_id: str = "") -> Iterator[CommitName]:
    """Names of all records, or of one plan's, by plan, shard and generation; reads no record."""
    for key in store.list(f"commits/{plan_id}/" if plan_id else "commits/"):
        plan, _, rest = key.removeprefix("commits/").removesuffix(".json").partition("/")
        shard, _, generation = rest.rpartition(".g")
        yield CommitName(plan_id=plan, shard=shard, generation=int(generation))


def newest_generations(names: Iterable[CommitName]) -> list[CommitName]:
    """The highest generation of each shard: that record is the shard."""
    newest: dict[tuple[str, str], CommitName] = {}
    for name in names:
        place = (name.plan_id, name.shard)
        if place not in newest or newest[place].generation < name.generation:
            newest[place] = name
    return sorted(newest.values())


def plan_to_json(plan: Plan) -> bytes:
    return json_bytes({"format": FORMAT, **asdict(plan), "created_at": plan.created_at.isoformat()})


def plan_from_json(data: bytes, *, where: str) -> Plan:
    fields = read_json(data, where)
    with corrupt_where_malformed(where):
        return Plan(
            plan_id=fields["plan_id"],
            kind=fields["kind"],
            shards=tuple(PlannedShard(**{**each, "inputs": tuple(each["inputs"])}) for each in fields["shards"]),
            settings=fields["settings"],
            settings_hash=fields["settings_hash"],
            created_at=datetime.fromisoformat(fields["created_at"]),
        )


def commit_to_json(commit: Commit) -> bytes:
    fields = asdict(commit)
    del fields["record_sha256"]
    return json_bytes({"format": FORMAT, **fields, "committed_at": commit.committed_at.isoformat()})


def commit_from_json(data: bytes, *, where: str) -> Commit:
    fields = read_json(data, where)
    with corrupt_where_malformed(where):
        del fields["format"]
        fields["parts"] = tuple(Part(**part) for part in fields["parts"])
        fields["rejects"] = tuple(Reject(**reject) for reject in fields["rejects"])
        fields["committed_at"] = datetime.fromisoformat(fields["committed_at"])
        return Commit(**fields)


def json_bytes(fields: Mapping[str, object]) -> bytes:
    """One spelling for one content: sorted, compact, no NaN. Raises ValueError for what is not JSON."""
    try:
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"only JSON values can be stored: {error}") from error
    return text.encode()


def read_json(data: bytes, where: str) -> dict:
    """A dataset's JSON file. Raises Corrupt for a torn one, StoreError for a newer format than this version knows."""
    try:
        fields = json.loads(data)
        file_format = fields["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(
            f"{where}: not a file of a dataset, or a damaged one ({error}); restore it from a copy"
        ) from error
    if file_format != FORMAT:
        raise StoreError(f"{where}: format {file_format}, this version reads format {FORMAT}; use a newer gigamask")
    return fields


@contextmanager
def corrupt_where_malformed(where: str) -> Iterator[None]:
    """Turns a missing or odd field of a file into Corrupt."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{where}: a field is missing or has the wrong form ({error}); restore it from a copy") from error


class _Hashing:
    """Counts and hashes what goes through to a file."""

    def __init__(self) -> None:
        self.nbytes, self._digest = 0, hashlib.sha256()

    def onto(self, file: BinaryIO) -> BinaryIO:
        self.nbytes, self._digest, self._file = 0, hashlib.sha256(), file
        return cast("BinaryIO", self)

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.nbytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def sha256(self) -> str:
        return self._digest.hexdigest()
