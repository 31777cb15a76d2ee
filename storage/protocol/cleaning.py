"""Removing the objects that crashed and losing attempts left behind.

An object is garbage only if no record names it and the record of its (plan, shard, generation) names another attempt.
Age plays no part: a worker may be frozen for a week and still win.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from storage.errors import NotFound
from storage.objects.stores import ObjectStore
from storage.progress import OnPhase, counted, silent
from storage.protocol.commits import Commit, list_commits, put_commit, read_commit, read_commits
from storage.protocol.plans import Plan, PlannedShard, read_plan

_RECORDS_AT_ONCE = 1000
"""Records read between two calls that tell the progress."""


@dataclass(frozen=True, kw_only=True)
class CleaningReport:
    """Result of one cleaning, or of a dry run."""

    garbage: tuple[str, ...]
    """Keys of the objects that were deleted, or in a dry run would be."""
    nbytes: int
    """Bytes of the garbage."""
    kept: tuple[str, ...]
    """Keys of objects that no record names but whose attempts may still win."""
    unfinished: int
    """Number of half-written files that were removed, or in a dry run would be."""
    table_files: tuple[str, ...] = ()
    """Keys of files of tables that no version names, from killed folds and rebuilds, which were or would be deleted."""
    deleted: bool
    """Whether the garbage was deleted; false for a dry run."""


def clean(store: ObjectStore, *, delete: bool, on_progress: OnPhase = silent) -> CleaningReport:
    """Find the objects and half-written files of losing attempts. Live workers are not disturbed.

    Args:
        store: The store of the dataset.
        delete: Whether to delete the objects that were found; otherwise they are only reported.
        on_progress: Function that is called now and then with how much is done.
    """
    # Objects, then records: in the other order a record made in between could name an object that counts as loose
    objects = list(store.list("data/"))
    records = _read_all(store, on_progress)
    named = {part.key for record in records for part in record.parts}
    winners = {(record.plan_id, record.shard, record.generation): record.attempt_id for record in records}

    # Garbage: the objects and half-written files of losing attempts
    loose = [key for key in objects if key not in named]
    garbage = [key for key in loose if _has_lost(key, winners)]
    losing = set(garbage)
    unfinished = [each for each in store.unfinished() if _is_removable(each.key, winners, store)]
    nbytes = sum(_nbytes(store, key) for key in counted(garbage, "objects measured", on_progress))

    # Deletion
    if delete:
        for key in counted(garbage, "objects deleted", on_progress):
            store.delete(key)
        for each in unfinished:
            store.remove_unfinished(each)
    return CleaningReport(
        garbage=tuple(garbage),
        nbytes=nbytes,
        kept=tuple(key for key in loose if key not in losing),
        unfinished=len(unfinished),
        deleted=delete,
    )


def _read_all(store: ObjectStore, on_progress: OnPhase) -> list[Commit]:
    names = list(list_commits(store))
    records: list[Commit] = []
    for start in range(0, len(names), _RECORDS_AT_ONCE):
        on_progress(start, len(names), "records read")
        records += read_commits(store, names[start : start + _RECORDS_AT_ONCE])
    return records


def close(store: ObjectStore, plan: Plan) -> list[Commit]:
    """Give up the missing shards of a plan for good.

    Each missing shard gets a commit record, so that an attempt still under way loses. A shard that was to be redone
    keeps its previous content.

    Returns:
        Records of the shards that were given up, by this call or by another call at the same time.
    """
    fresh = read_plan(store, plan.plan_id)
    done = {(name.shard, name.generation) for name in list_commits(store, fresh.home)}
    missing = [shard for shard in fresh.shards if (shard.name, shard.generation) not in done]
    records = [put_commit(store, _closing_record(store, fresh, shard)) for shard in missing]
    return [record for record in records if not record.attempt_id.startswith(f"g{record.generation}-")]


def _closing_record(store: ObjectStore, plan: Plan, shard: PlannedShard) -> Commit:
    """Make the record that closes a shard: an empty one, or for a redo that of the generation before it again."""
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


def _has_lost(key: str, winners: dict[tuple[str, str, int], str]) -> bool:
    """Whether an object's attempt has lost: the record of its generation names another attempt."""
    parts = key.split("/")
    attempt = parts[-1].split(".")[0]
    generation = attempt.partition("-")[0].removeprefix("g")
    if len(parts) != 4 or not generation.isdigit():
        return False
    winner = winners.get((parts[1], parts[2], int(generation)))
    return winner is not None and winner != attempt


def _is_removable(key: str, winners: dict[tuple[str, str, int], str], store: ObjectStore) -> bool:
    """Whether a half-written file can go: its attempt has lost, or another writer has completed the object."""
    if key.startswith("data/"):
        return _has_lost(key, winners)
    try:
        store.head(key)
    except NotFound:
        return False
    return True


def _nbytes(store: ObjectStore, key: str) -> int:
    try:
        return store.head(key).nbytes
    except NotFound:  # its own worker deleted it first
        return 0
