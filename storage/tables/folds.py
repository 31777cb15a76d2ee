"""Folding: commit records become table rows, each exactly once, and the five tables change together.

`folds/<n>.json` (put-if-absent) lists the records that fold n takes. Any process may then apply it, with one
transaction per table (application "fold", version n). The transaction is written from the same table handle that showed
it absent, so a second process fails instead of writing the rows twice. `folds/<n>.done.json` records the five table
versions; only then can fold n + 1 begin. Readers open the highest done fold and never a table's newest version. A
process that dies in between leaves work that the next process completes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from storage.errors import Conflict
from storage.formats.documents import FORMAT, json_bytes
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, list_commits, newest_generations, read_commits
from storage.protocol.inputs import PlanKind, ShardAddress
from storage.tables import contents, delta, erasing, fold_log
from storage.tables.changes import can_be_withdrawn, change_of, checked_records, left_out
from storage.tables.columns import SCHEMAS
from storage.tables.duplicates import Duplicates, duplicates_in, find_duplicates, keys_of, lost_images
from storage.tables.durability import TableProof, publish_version
from storage.tables.fold_log import (
    DoneFold,
    Fold,
    FoldedRecord,
    fold_key,
    folded_generations,
    folder_of,
    is_done,
    now,
    put_done,
    read_done,
    read_fold,
)

MAX_RECORDS = 1024
"""Most records that one fold takes."""
_COMPACTION_EVERY = 64
"""Number of folds from one compaction to the next; a compaction merges the files of small folds."""
_SMALL_FOLD = 16
"""Most records of a fold whose files a compaction merges."""


@dataclass(frozen=True, kw_only=True)
class FoldReport:
    """Result of one call of `fold` or `rebuild`."""

    folds: int
    """Number of folds completed."""
    records: int
    """Number of commit records taken into the tables."""
    newest: int
    """Number of the fold that readers now open."""
    set_aside: tuple[str, ...] = ()
    """Addresses of records whose table rows are lost: they stay out of the tables, and `verify` names them."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """Records waiting to be folded."""

    fold: Fold | None
    """Next fold; None if nothing is left that can be folded."""
    set_aside: tuple[str, ...] = ()
    """Addresses of records that cannot be folded, because their table rows are lost."""
    records: int = 0
    """Number of records that wait; of a fold that another process left unfinished, those of this fold alone."""


def begin(store: ObjectStore) -> None:
    """Create the empty tables and fold 0. Calling this again does no harm."""
    versions = delta.create_tables(store, delta.FIRST_FOLDER)
    with suppress(Conflict):
        proofs = publish(store, delta.FIRST_FOLDER, versions)
        put_done(store, DoneFold(number=0, folder=delta.FIRST_FOLDER, versions=versions, proofs=proofs))


def fold(
    store: ObjectStore,
    *,
    before_step: Callable[[str], None] = lambda step: None,
    on_records: Callable[[int, int], None] = lambda done, total: None,
) -> FoldReport:
    """Complete a fold that another process left unfinished, then fold all records that are not in the tables yet.

    Several processes may do so at once.

    Args:
        store: The store of the dataset.
        before_step: Function that is called with the name of each step before the step; tests interrupt a fold in it.
        on_records: Function that is called before each step, with the numbers of records folded and of all records.
    """
    folds = records = 0

    def begin_step(step: str) -> None:
        before_step(step)
        on_records(records, records + pending.records)

    done = fold_log.newest_done(store)
    while (current := (pending := _next_fold(store, done, before_step)).fold) is not None:
        # One transaction per table
        commits = checked_records(store, current)
        try:
            versions = _apply(store, done, current, commits, begin_step)
        except delta.Overtaken:
            done = read_done(store, current.number)
            continue

        # The done file, once the new versions are durable
        begin_step("make durable")
        proofs = publish(store, done.folder, versions, done)
        begin_step("done")
        with suppress(Conflict):
            put_done(store, replace(done, number=current.number, versions=versions, proofs=proofs))
        done = read_done(store, current.number)

        folds += 1
        records += len(commits) if current.action != "compact" else 0
    return FoldReport(folds=folds, records=records, newest=done.number, set_aside=pending.set_aside)


def _apply(
    store: ObjectStore, done: DoneFold, current: Fold, commits: Sequence[Commit], before_step: Callable[[str], None]
) -> dict[str, int]:
    """Apply a fold to each of the five tables, and return their versions.

    Raises:
        Overtaken: Another process has finished the fold.
        StoreError: The store failed.
    """
    versions = {}
    out = left_out(store, done, current.records)
    for name in SCHEMAS:
        before_step(f"apply {name}")
        since = done.versions[name] if name in done.versions else delta.add_table(store, done.folder, name)
        versions[name] = delta.change_once(
            store,
            done.folder,
            name,
            current.number,
            change_of(store, done, name, current.action, commits, out),
            since=since,
            is_done=lambda: is_done(store, current.number),
        )
    return versions


def publish(
    store: ObjectStore, folder: str, versions: Mapping[str, int], done: DoneFold | None = None
) -> dict[str, TableProof]:
    """Make one version of each table durable, and return the proofs of these versions.

    Args:
        store: The store of the dataset.
        folder: Folder of the tables.
        versions: Version of each table, by name.
        done: The previous fold in these tables; if it has proofs, its versions are durable already. None for no
            previous fold.
    """
    proofs = {}
    for name, version in versions.items():
        since = done.versions.get(name, -1) if done is not None and done.proofs else -1
        if done is not None and since == version:
            proofs[name] = done.proofs[name]
        else:
            proofs[name] = publish_version(store, folder, name, since, delta.open_table(store, folder, name, version))
    return proofs


def _next_fold(store: ObjectStore, done: DoneFold, before_step: Callable[[str], None]) -> Pending:
    """Return the fold after `done`: the one already begun, or a new one over records not yet taken."""
    key = fold_key(done.number + 1)
    waiting = 0
    if key not in store.list(key):
        planned = _plan_fold(store, done)
        if planned.fold is None:
            return planned
        before_step("plan")
        overwrite_erased(store, planned.fold)
        store.make_names_durable(record.key for record in planned.fold.records)
        with suppress(Conflict):
            store.put_if_absent(key, json_bytes({"format": FORMAT, **asdict(planned.fold), "created_at": now()}))
        waiting = planned.records
    begun = read_fold(store, done.number + 1)
    return Pending(fold=begun, records=waiting or len(begun.records))


def overwrite_erased(store: ObjectStore, planned: Fold) -> None:
    """Overwrite the objects of erasures before a fold takes the erasures, whoever left that undone."""
    if planned.action == "erase":
        erasing.overwrite(store, checked_records(store, planned))


def _plan_fold(store: ObjectStore, done: DoneFold) -> Pending:
    """Plan the fold after `done`: a compaction if its turn has come, else one over new records."""
    compacted = _records_to_compact(store, done)
    if compacted:
        return Pending(fold=Fold(number=done.number + 1, action="compact", records=compacted))
    return unfolded(store, done)


def unfolded(store: ObjectStore, done: DoneFold) -> Pending:
    """Plan the next fold, over commit records that are not in the tables of `done` yet.

    Erasures are folded first, then new shards, newer generations of shards, withdrawals, and amendments. The last three
    change rows that must be in the tables already. Erased images in a shard that was committed late are overwritten
    here, before the shard is folded.
    """
    # Records by what a fold does with them
    taken = folded_generations(store, done)
    names = _listed(store)
    fresh = [name for name in names if (name.plan_id, name.shard) not in taken]
    newer = [name for name in names if name.generation > taken.get((name.plan_id, name.shard), name.generation)]
    later = (PlanKind.WITHDRAWALS, PlanKind.AMENDMENTS, PlanKind.ERASURES)
    choices = {
        "erase": [name for name in [*fresh, *newer] if name.kind == PlanKind.ERASURES],
        "append": [name for name in fresh if name.kind not in later],
        "replace": [name for name in newer if name.kind != PlanKind.ERASURES],
        "withdraw": [name for name in fresh if name.kind == PlanKind.WITHDRAWALS],
        "amend": [name for name in fresh if name.kind == PlanKind.AMENDMENTS],
    }

    # The first of them whose rows can be read
    set_aside: list[str] = []
    for action, some in choices.items():
        for start in range(0, len(some), MAX_RECORDS):
            commits = read_commits(store, some[start : start + MAX_RECORDS])
            readable = contents.have_rows(store, commits)
            if action in ("withdraw", "amend"):
                readable = can_be_withdrawn(store, taken, [each for each in commits if each.address in readable])
            set_aside += [str(commit.address) for commit in commits if commit.address not in readable]
            chosen = [commit for commit in commits if commit.address in readable]
            if action == "append":  # where the rows of a redo are lost, the generation before it counts
                chosen = contents.newest_with_rows(store, commits)
            if action != "erase" and erasing.name_late(store, chosen):
                return unfolded(store, done)
            if chosen:
                records = _decided(store, done, action, chosen)
                waiting = sum(len(every) for every in choices.values())
                return Pending(fold=Fold(number=done.number + 1, action=action, records=records), records=waiting)
    return Pending(fold=None, set_aside=tuple(set_aside))


def _listed(store: ObjectStore) -> list[ShardAddress]:
    """List the newest generation of every shard, in the order of their plans.

    Shards are listed before the shards that they were made from. So the list never holds a mask shard without the image
    shard that it was made from, although others commit meanwhile. Erasures are listed last, so that no shard is folded
    without an erasure that was recorded before the shard was written.
    """
    order = (PlanKind.WITHDRAWALS, PlanKind.AMENDMENTS, PlanKind.MASKS, PlanKind.IMAGES, PlanKind.ERASURES)
    return newest_generations(name for kind in order for name in list_commits(store, kind=kind))


def _decided(store: ObjectStore, done: DoneFold, action: str, commits: Sequence[Commit]) -> tuple[FoldedRecord, ...]:
    """Decide which copies of images the fold of these commits leaves out.

    A newer generation may have lost an image. So shards with copies of lost images are folded again, after the shards
    that are replaced, and a copy takes the place of a lost image.
    """
    known = duplicates_in(store, done)
    if action == "replace" and known:
        lost = lost_images(store, done, commits)
        replaced = {commit.address.lineage for commit in commits}
        copies = {lineage for lineage, ids in known.items() if lineage not in replaced and not lost.isdisjoint(ids)}
        commits = [*commits, *folded_commits(store, done, copies)]
    return folded_as(commits, find_duplicates(store, done, commits, known))


def folded_commits(store: ObjectStore, done: DoneFold, lineages: Collection[str]) -> list[Commit]:
    """Read the records of these shards that are in the tables, without records and shards whose rows are lost."""
    if not lineages:
        return []
    taken = folded_generations(store, done)
    names = [
        ShardAddress(plan_id=plan, shard=shard, generation=generation)
        for (plan, shard), generation in sorted(taken.items())
        if f"{plan}/{shard}" in lineages
    ]
    there = set(list_commits(store))
    commits = read_commits(store, [name for name in names if name in there])
    readable = contents.have_rows(store, commits)
    return [commit for commit in commits if commit.address in readable]


def folded_as(commits: Sequence[Commit], duplicates: Duplicates) -> tuple[FoldedRecord, ...]:
    """Name commit records for the log, with the copies of images that stay out of the tables."""
    return tuple(
        FoldedRecord(
            key=commit.address.key,
            sha256=commit.record_sha256,
            kept_out=keys_of(duplicates.get(commit.address.lineage, ())),
        )
        for commit in commits
    )


def _records_to_compact(store: ObjectStore, done: DoneFold) -> tuple[FoldedRecord, ...]:
    """List the records of small folds that the fold after `done` merges into one file; () if it is no compaction.

    The answer follows from the log alone. Records from before a rebuild are left out: their rows lie together already.
    """
    if (done.number + 1) % _COMPACTION_EVERY:
        return ()
    folds = (read_fold(store, number) for number in _folds_of_tables(store, done))
    taken = [each for each in folds if each.action != "compact"]
    newest = newest_generations(ShardAddress.of_key(record.key) for each in taken for record in each.records)
    small = [each for each in taken if len(each.records) <= _SMALL_FOLD]
    if len(small) < 2:
        return ()
    last = {record.key: (record, each) for each in taken for record in each.records}  # a copy may be folded again
    records = {key: record for key, (record, each) in last.items() if len(each.records) <= _SMALL_FOLD}
    readable = contents.have_rows(store, read_commits(store, [name for name in newest if name.key in records]))
    return tuple(records[name.key] for name in newest if name in readable)


def _folds_of_tables(store: ObjectStore, done: DoneFold) -> range:
    """Return the numbers of the newest folds in the tables of `done`: at most those since the last compaction."""
    first = done.number
    while first > max(done.number + 1 - _COMPACTION_EVERY, 0) and folder_of(store, first - 1) == done.folder:
        first -= 1
    return range(first + 1, done.number + 1)  # `first` is the rebuild that made the tables, or before the window
