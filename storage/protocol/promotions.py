"""The promoted model of a dataset: a chain of generations, each of which says who decided what, when, why, from what.

promotions/g00000001.json -> g00000002.json -> ...

Each generation names the model that is promoted from then on, and the hash of the generation before. A generation is
created with put-if-absent and never changes, so that of two writers one wins and the other learns who did. A refusal is
a generation, too: it leaves the promoted model as it is.
"""

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from storage.errors import Conflict, Corrupt, NotFound, StoreError
from storage.formats.documents import FORMAT, corrupt_where_malformed, json_bytes, read_json
from storage.objects.stores import ObjectStore

_KEY = re.compile(r"promotions/g([0-9]{8})\.json")


class Decision(StrEnum):
    """Kind of a generation."""

    START = "start"
    """First generation of a chain; it names the model that was in use before anything was promoted."""
    PROMOTION = "promotion"
    """Generation that promotes a model."""
    REFUSAL = "refusal"
    """Generation that keeps a model out; the promoted model stays."""
    ROLLBACK = "rollback"
    """Generation that promotes a model again that was promoted before."""


@dataclass(frozen=True, kw_only=True)
class Decided:
    """Decision about a model, before it has a place in the chain."""

    decision: Decision
    model_id: str
    """Id of the model that the decision is about."""
    over: str
    """Id of the promoted model that the decision was made against; empty for the start of a chain."""
    key: str
    """Name of the decision: the same decision, made again, finds its generation by this name."""
    made_by: str
    """Name of the person or flow that decided."""
    reason: str
    """Reason in words."""
    evidence: Mapping[str, object] = field(default_factory=dict)
    """Measurements that the decision rests on, as JSON values."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One link of the chain."""

    number: int
    """Place in the chain, from 1."""
    decision: Decision
    promoted: str
    """Id of the model that is promoted from this generation on."""
    model_id: str
    """Id of the model that the decision is about."""
    over: str
    """Id of the promoted model that the decision was made against; empty for the start of a chain."""
    key: str
    """Name of the decision."""
    made_by: str
    made_at: datetime
    """Time of the decision by the clock of the machine that wrote it, UTC."""
    reason: str
    evidence: Mapping[str, object]
    attempt_id: str
    """Id of the write, by which a writer whose reply was lost knows its own generation."""
    previous: str
    """SHA-256 of the generation before, in hex; empty for the first."""
    sha256: str = field(default="", compare=False)
    """SHA-256 of the stored generation, in hex."""

    @property
    def findings(self) -> tuple[str, ...]:
        """Finding of each check of the gate, in words; empty where nothing was measured."""
        checks = self.evidence.get("checks", ())
        assert isinstance(checks, list | tuple)
        return tuple(f"{'passed' if each['passed'] else 'FAILED'}: {each['says']}" for each in checks)


class Promotions:
    """The chain of generations of one dataset; `dataset.promotions` is an instance."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def history(self) -> list[Generation]:
        """Read all generations, oldest first.

        Raises:
            Corrupt: A generation is damaged, missing, or does not follow from the one before.
        """
        chain: list[Generation] = []
        for number in self._numbers():
            found = self._read(number)
            previous = chain[-1].sha256 if chain else ""
            if number != len(chain) + 1 or found.previous != previous:
                raise Corrupt(
                    f"{self._store.uri}/{_key(number)}: does not follow from generation {len(chain)}; restore the "
                    "folder promotions/ from a copy"
                )
            chain.append(found)
        return chain

    def newest(self) -> Generation | None:
        """Read the newest generation; None where nothing was decided yet.

        Raises:
            Corrupt: The generation is damaged.
        """
        numbers = self._numbers()
        return self._read(numbers[-1]) if numbers else None

    def add(self, decided: Decided) -> Generation:
        """Add a decision to the chain, and return its generation; a decision that is there is not added again.

        A refusal is added whatever is promoted by now. Any other decision is added only while the model that it was
        made against is still promoted.

        Raises:
            Conflict: Another model was promoted in the meantime; the message says by whom.
            StoreError: The store fails.
        """
        attempt_id = uuid.uuid4().hex
        while True:
            chain = self.history()
            for found in chain:
                if decided.key == found.key or attempt_id == found.attempt_id:
                    return found
            generation = _follow(chain, decided, attempt_id)
            try:
                self._store.put_if_absent(_key(generation.number), _to_json(generation))
            except Conflict:
                continue
            except StoreError as error:  # a reply that was lost: the chain itself knows
                if len(self._numbers()) < generation.number:
                    raise error from None

    def _numbers(self) -> list[int]:
        found = (_KEY.fullmatch(key) for key in self._store.list("promotions/"))
        return [int(match[1]) for match in found if match]

    def _read(self, number: int) -> Generation:
        data, where = self._store.get(_key(number)), f"{self._store.uri}/{_key(number)}"
        fields = read_json(data, "promotion", where)
        with corrupt_where_malformed(where):
            del fields["format"]
            fields["decision"] = Decision(fields["decision"])
            fields["made_at"] = datetime.fromisoformat(fields["made_at"])
            return Generation(**fields, sha256=hashlib.sha256(data).hexdigest())


def roll_back(promotions: Promotions, target: str | None, made_by: str, reason: str) -> Generation:
    """Move the pointer back to a model that was promoted before: `target`, or the one before the present one.

    Raises:
        NotFound: Nothing was promoted before, or `target` never was.
        Conflict: Another model was promoted in the meantime.
    """
    chain = promotions.history()
    back = find_rollback(chain, target)
    now = chain[-1].promoted
    if back == now:
        return moved_by(chain)
    return promotions.add(
        Decided(
            decision=Decision.ROLLBACK,
            model_id=back,
            over=now,
            key=f"rollback:{back}:{now}:after-{moved_by(chain).number}",
            made_by=made_by,
            reason=reason or f"rolled back from {now}",
        )
    )


def moved_by(chain: Sequence[Generation]) -> Generation:
    """Return the generation that made the promoted model what it is."""
    return next(each for each in reversed(chain) if each.decision is not Decision.REFUSAL)


def find_rollback(chain: Sequence[Generation], target: str | None) -> str:
    """Find the model to go back to: `target`, or the model that was promoted before the present one.

    A rollback forgets what was promoted in between, so that rolling back once more goes one model further back.

    Raises:
        NotFound: Nothing was promoted before, or `target` never was.
    """
    promoted: list[str] = []
    for generation in chain:
        if generation.decision is Decision.ROLLBACK and generation.promoted in promoted:
            promoted = promoted[: promoted.index(generation.promoted) + 1]
        elif not promoted or promoted[-1] != generation.promoted:
            promoted.append(generation.promoted)
    if target is None:
        if len(promoted) < 2:
            raise NotFound("there is no earlier model to roll back to; `gigamask models history` shows the chain")
        return promoted[-2]
    ever = list(dict.fromkeys(generation.promoted for generation in chain))
    if target not in ever:
        raise NotFound(f"model {target!r} was never promoted; expected one of {', '.join(ever) or 'none'}")
    return target


def is_promotion_key(key: str) -> bool:
    """Whether a key is that of a generation."""
    return _KEY.fullmatch(key) is not None


def _follow(chain: Sequence[Generation], decided: Decided, attempt_id: str) -> Generation:
    """Make the generation that follows the chain.

    Raises:
        Conflict: The promoted model is not the one that the decision was made against.
    """
    now = chain[-1].promoted if chain else ""
    if decided.over != now and decided.decision is not Decision.REFUSAL:
        newest = moved_by(chain)
        raise Conflict(
            f"{decided.decision} of {decided.model_id} was decided against {decided.over or 'an empty chain'}, but "
            f"generation {newest.number} by {newest.made_by} has made {newest.promoted} the promoted model since; run "
            "the same command again to measure against that one"
        )
    return Generation(
        number=len(chain) + 1,
        decision=decided.decision,
        promoted=now if decided.decision is Decision.REFUSAL else decided.model_id,
        model_id=decided.model_id,
        over=decided.over,
        key=decided.key,
        made_by=decided.made_by,
        made_at=datetime.now(UTC),
        reason=decided.reason,
        evidence=decided.evidence,
        attempt_id=attempt_id,
        previous=chain[-1].sha256 if chain else "",
    )


def _to_json(generation: Generation) -> bytes:
    fields: dict[str, Any] = asdict(generation)
    del fields["sha256"]
    return json_bytes({"format": FORMAT, **fields, "made_at": generation.made_at.isoformat()})


def _key(number: int) -> str:
    return f"promotions/g{number:08d}.json"
