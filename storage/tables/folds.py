"""Folding: commit records become table rows, each exactly once, and the four tables change together.

`folds/<n>.json` (put-if-absent) lists the records fold n takes. Any process may then apply it: to each table one
transaction (application "fold", version n), written from the very handle in which it was found absent, so that a
second one fails instead of doubling. `folds/<n>.done.json` records the four table versions; only then can n + 1 begin.
Readers open the highest done fold and never a table's newest version. A process that dies anywhere in between leaves
work that the next one completes.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from storage.errors import Conflict, StoreError
from storage.formats.documents import FORMAT, json_bytes
from storage.objects.stores import ObjectStore
from storage.protocol.commits import list_commits, newest_generations, read_commits
from storage.protocol.inputs import PlanKind, ShardAddress
from storage.tables import contents, delta, fold_log
from storage.tables.changes import change_of, checked_records
from storage.tables.columns import SCHEMAS
from storage.tables.durability import TableProof, publish_version
from storage.tables.fold_log import (
    DoneFold,
    Fold,
    FoldedRecord,
    fold_key,
    folded_generations,
    now,
    put_done,
    read_done,
    read_fold,
)

MAX_RECORDS = 1024  # records one fold takes
_COMPACTED = 64  # each fold of a number that this divides puts the files of those before it together,
_SMALL_FOLD = 16  # as far as they took no more records than this


@dataclass(frozen=True, kw_only=True)
class FoldReport:
    """What one call of `fold` did: folds completed, records taken, and the fold readers now see."""

    folds: int
    records: int
    newest: int
    set_aside: tuple[str, ...] = ()
    """Addresses of records whose table rows are lost: they stay out of the tables, and `verify` names them."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What there is to fold."""

    fold: Fold | None
    """The next fold; None where nothing is left that can be folded."""
    set_aside: tuple[str, ...] = ()
    """Addresses of records that cannot be folded."""


def begin(store: ObjectStore) -> None:
    """The empty tables and fold 0; harmless to repeat."""
    versions = delta.create_tables(store, delta.FIRST_FOLDER)
    with suppress(Conflict):
        proofs = publish(store, delta.FIRST_FOLDER, versions)
        put_done(store, DoneFold(number=0, folder=delta.FIRST_FOLDER, versions=versions, proofs=proofs))


def fold(store: ObjectStore, *, before_step: Callable[[str], None] = lambda step: None) -> FoldReport:
    """Completes an unfinished fold, then folds all records not yet taken; safe beside other folders.

    `before_step` is called with the name of each step about to be taken: a place for tests to die in.
    """
    folds = records = 0
    done = fold_log.newest_done(store)
    while (current := (pending := _next_fold(store, done, before_step)).fold) is not None:
        commits = checked_records(store, current)
        versions = {}
        for name in SCHEMAS:
            before_step(f"apply {name}")
            change = change_of(store, done, name, current.action, commits)
            since = done.versions[name]
            versions[name] = delta.change_once(store, done.folder, name, current.number, change, since=since)
        before_step("make durable")
        proofs = publish(store, done.folder, versions, done)
        before_step("done")
        with suppress(Conflict):
            put_done(store, replace(done, number=current.number, versions=versions, proofs=proofs))
        done = read_done(store, current.number)
        folds += 1
        records += len(commits) if current.action != "compact" else 0
    return FoldReport(folds=folds, records=records, newest=done.number, set_aside=pending.set_aside)


def publish(
    store: ObjectStore, folder: str, versions: Mapping[str, int], done: DoneFold | None = None
) -> dict[str, TableProof]:
    """Make the tables durable at these versions; those of `done`, the fold before, are durable if it has proofs."""
    durable = done.versions if done is not None and done.proofs else dict.fromkeys(versions, -1)
    return {name: publish_version(store, folder, name, durable[name], version) for name, version in versions.items()}


def _next_fold(store: ObjectStore, done: DoneFold, before_step: Callable[[str], None]) -> Pending:
    """The fold after `done`: the one already begun, or a new one over records not yet taken; None if there are none."""
    key = fold_key(done.number + 1)
    if key not in store.list(key):
        planned = _plan_fold(store, done)
        if planned.fold is None:
            return planned
        before_step("plan")
        store.make_names_durable(record.key for record in planned.fold.records)
        with suppress(Conflict):
            store.put_if_absent(key, json_bytes({"format": FORMAT, **asdict(planned.fold), "created_at": now()}))
    return Pending(fold=read_fold(store, done.number + 1))


def _plan_fold(store: ObjectStore, done: DoneFold) -> Pending:
    """Plan the fold after `done`."""
    compacted = _compacted(store, done)
    if compacted:
        return Pending(fold=Fold(number=done.number + 1, action="compact", records=compacted))
    return unfolded(store, done)


def unfolded(store: ObjectStore, done: DoneFold) -> Pending:
    """New shards first, then newer generations, then withdrawals: each finds in the tables what it changes."""
    taken = folded_generations(store, done)
    names = newest_generations(list_commits(store))
    fresh = [name for name in names if (name.plan_id, name.shard) not in taken]
    withdrawals = [name for name in fresh if name.kind == PlanKind.WITHDRAWALS]
    choices = {
        "append": [name for name in fresh if name.kind != PlanKind.WITHDRAWALS],
        "replace": [name for name in names if name.generation > taken.get((name.plan_id, name.shard), name.generation)],
        "withdraw": withdrawals,
    }
    set_aside: list[str] = []
    for action, some in choices.items():
        for start in range(0, len(some), MAX_RECORDS):
            commits = read_commits(store, some[start : start + MAX_RECORDS])
            readable = contents.have_rows(store, commits)
            set_aside += [str(commit.address) for commit in commits if commit.address not in readable]
            records = tuple(
                FoldedRecord(key=each.address.key, sha256=each.record_sha256)
                for each in commits
                if each.address in readable
            )
            if records:
                return Pending(fold=Fold(number=done.number + 1, action=action, records=records))
    return Pending(fold=None, set_aside=tuple(set_aside))


def _compacted(store: ObjectStore, done: DoneFold) -> tuple[FoldedRecord, ...]:
    """What the fold after `done` puts together: the records in the tables that small folds took; () for none.

    It follows from the log alone. Rows of the records before a rebuild lie together already.
    """
    if (done.number + 1) % _COMPACTED:
        return ()
    folds = (read_fold(store, number) for number in _folds_of_tables(store, done))
    taken = [each for each in folds if each.action != "compact"]
    newest = newest_generations(ShardAddress.of_key(record.key) for each in taken for record in each.records)
    small = [each for each in taken if len(each.records) <= _SMALL_FOLD]
    records = {record.key: record for each in small for record in each.records}
    return tuple(records[name.key] for name in newest if name.key in records) if len(small) > 1 else ()


def _folds_of_tables(store: ObjectStore, done: DoneFold) -> range:
    """The last folds that `done`'s tables took one after the other, as many as one compaction looks at."""
    first = done.number
    while first > max(done.number + 1 - _COMPACTED, 0) and _folder_of(store, first - 1) == done.folder:
        first -= 1
    return range(first + 1, done.number + 1)  # the first is the rebuild that made the tables, or further back


def _folder_of(store: ObjectStore, number: int) -> str:
    """The tables' folder at a fold; empty where its file cannot be read: tables made anew took its place."""
    try:
        return read_done(store, number).folder
    except StoreError:
        return ""
