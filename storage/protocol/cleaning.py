"""Removing what crashed and beaten attempts left behind.

An attempt's object is garbage only when the record of its very (plan, shard, generation) names another attempt and no
record names the object. Age plays no part: a worker may be frozen for a week and still win.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from storage.errors import NotFound
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, list_commits, put_commit, read_commit, read_commits
from storage.protocol.plans import Plan, PlannedShard, read_plan


@dataclass(frozen=True, kw_only=True)
class CleaningReport:
    """`garbage`: keys that were, or in a dry run would be, deleted; `kept`: those of attempts that may still win."""

    garbage: tuple[str, ...]
    nbytes: int
    kept: tuple[str, ...]
    unfinished: int  # half-written files that were, or would be, removed
    deleted: bool


def clean(store: ObjectStore, *, delete: bool) -> CleaningReport:
    """Finds garbage below `data/`, and deletes it where asked to; safe beside live workers."""
    objects = list(store.list("data/"))  # before the records: an object that a later record names is not in it
    records = read_commits(store, list(list_commits(store)))
    named = {part.key for record in records for part in record.parts}
    winners = {(record.plan_id, record.shard, record.generation): record.attempt_id for record in records}
    loose = [key for key in objects if key not in named]
    garbage = [key for key in loose if _is_beaten(key, winners)]
    beaten = set(garbage)
    unfinished = [each for each in store.unfinished() if _cannot_matter(each.key, winners, store)]
    nbytes = sum(_nbytes(store, key) for key in garbage)
    if delete:
        for key in garbage:
            store.delete(key)
        for each in unfinished:
            store.remove_unfinished(each)
    return CleaningReport(
        garbage=tuple(garbage),
        nbytes=nbytes,
        kept=tuple(key for key in loose if key not in beaten),
        unfinished=len(unfinished),
        deleted=delete,
    )


def close(store: ObjectStore, plan: Plan) -> list[Commit]:
    """Records for the plan's missing shards that nobody will make them; a worker still at one of them loses.

    A shard whose redo is given up stays what it was. Returns the shards closed by this call or another one.
    """
    fresh = read_plan(store, plan.plan_id)
    done = {(name.shard, name.generation) for name in list_commits(store, fresh.home)}
    missing = [shard for shard in fresh.shards if (shard.name, shard.generation) not in done]
    records = [put_commit(store, _unmade(store, fresh, shard)) for shard in missing]
    return [record for record in records if not record.attempt_id.startswith(f"g{record.generation}-")]


def _unmade(store: ObjectStore, plan: Plan, shard: PlannedShard) -> Commit:
    """The record of a shard that nobody makes: empty, or that of the generation before once more."""
    now = datetime.now(UTC)
    if shard.generation:
        before = read_commit(store, plan.address(shard).before)
        return replace(before, generation=shard.generation, previous=shard.previous, committed_at=now)
    return Commit(
        plan_id=plan.home,
        shard=shard.name,
        generation=0,
        kind=plan.kind,
        attempt_id="",
        parts=(),
        rejects=(),
        model_id="",
        seconds=0.0,
        stats={},
        committed_at=now,
        made_by=plan.plan_id,
        inputs=(),
        previous="",
    )


def _is_beaten(key: str, winners: dict[tuple[str, str, int], str]) -> bool:
    """Whether the object's attempt has lost: its generation's record is there and names another."""
    parts = key.split("/")
    attempt = parts[-1].split(".")[0]
    generation = attempt.partition("-")[0].removeprefix("g")
    if len(parts) != 4 or not generation.isdigit():
        return False
    winner = winners.get((parts[1], parts[2], int(generation)))
    return winner is not None and winner != attempt


def _cannot_matter(key: str, winners: dict[tuple[str, str, int], str], store: ObjectStore) -> bool:
    """Whether a half-written file can be removed: its attempt has lost, or its object is there from another writer."""
    if key.startswith("data/"):
        return _is_beaten(key, winners)
    try:
        store.head(key)
    except NotFound:
        return False
    return True


def _nbytes(store: ObjectStore, key: str) -> int:
    try:
        return store.head(key).nbytes
    except NotFound:  # its own worker was faster
        return 0
