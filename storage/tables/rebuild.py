"""Rebuilding the five tables from the commit records."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pyarrow as pa

from storage.errors import Conflict
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, list_commits, read_commits
from storage.protocol.erasures import read_erasures
from storage.protocol.inputs import PlanKind, ShardAddress
from storage.tables import contents, delta
from storage.tables.changes import LeftOut, change_of, checked_records, count_rows, left_out, rows_of
from storage.tables.columns import SCHEMAS
from storage.tables.duplicates import Duplicates, duplicates_in, find_duplicates, ids_of
from storage.tables.fold_log import (
    DoneFold,
    FoldedRecord,
    fold_key,
    folded_records,
    folder_of,
    newest_of_each,
    next_number,
    put_done,
    put_rebuilt,
    read_done,
    read_or_nothing,
)
from storage.tables.folds import (
    MAX_RECORDS,
    FoldReport,
    folded_as,
    folded_commits,
    overwrite_erased,
    publish,
    unfolded,
)
from storage.tables.orphans import claim_to_publish
from storage.tables.withdrawals import withdrawn_by, withdrawn_masks


def rebuild(store: ObjectStore, *, on_records: Callable[[int, int], None] = lambda done, total: None) -> FoldReport:
    """Make the five tables anew from the commit records, in a new folder, and publish them as one fold.

    No table and no earlier fold has to be readable. Records that the log of folds names are taken in their order there,
    so copies of images stay out as before; then follow all other records. Older snapshots keep reading the old folder.
    Folds that other processes complete in the meantime are repeated before the new tables are published, so readers
    never go back in time, and each image keeps its owner.

    Args:
        store: The store of the dataset.
        on_records: Function that is called after some records, with the numbers of records taken and of all that the
            log names.
    """
    # Tables of the records that were folded before
    newest = next_number(store) - 1
    folder = f"{delta.FIRST_FOLDER}-{newest + 1:08d}-{uuid.uuid4().hex[:8]}"
    built = DoneFold(number=newest, folder=folder, versions=delta.create_tables(store, folder))
    built, records = _take_folded(store, built, on_records)

    # Publication under the next free number, after the records that are not folded or came in the meantime
    while True:
        number = next_number(store)
        followed = _follow(store, built, records, number)
        if followed is None:  # another rebuild was faster, and may own images otherwise
            return rebuild(store, on_records=on_records)
        built, records = followed
        whole, every = _catch_up(store, replace(built, number=number), records)
        whole = replace(whole, proofs=publish(store, folder, whole.versions))
        claim_to_publish(store, folder)
        put_rebuilt(store, whole, every)
        with suppress(Conflict):
            put_done(store, whole)
        if read_done(store, number).folder == folder:  # also where the answer to our put was lost
            set_aside = unfolded(store, whole).set_aside
            return FoldReport(folds=1, records=len(every), newest=number, set_aside=set_aside)
        versions = {name: delta.take_back_unshared(store, folder, name, built.versions[name]) for name in SCHEMAS}
        built = replace(built, versions=versions)


def _take_folded(
    store: ObjectStore, built: DoneFold, on_records: Callable[[int, int], None]
) -> tuple[DoneFold, list[FoldedRecord]]:
    """Fill new tables with the records that the log names, without erased images and the masks that they withdraw."""
    there = set(list_commits(store))
    logged = folded_records(store, built.number)
    folded = [record for record in logged if record.address in there]
    kinds = (PlanKind.WITHDRAWALS, PlanKind.AMENDMENTS)
    withdrawals = read_commits(store, [record.address for record in folded if record.address.kind in kinds])
    readable = _can_be_taken(store, withdrawals)
    withdrawn = withdrawn_by(store, [each for each in withdrawals if each.address in readable])
    taken: list[FoldedRecord] = []
    for start in range(0, len(folded), MAX_RECORDS):
        on_records(start, len(folded))
        built, some = _take(store, built, folded[start : start + MAX_RECORDS], withdrawn)
        taken += some
    if len(taken) < len(logged):
        built, some = _let_copies_in(store, built, withdrawn)
        taken = newest_of_each([*taken, *some])
    return built, taken


def _take(
    store: ObjectStore, built: DoneFold, records: Sequence[FoldedRecord], withdrawn: pa.Table, *, again: bool = False
) -> tuple[DoneFold, list[FoldedRecord]]:
    """Add records to tables not yet published; with `again`, the tables may hold some of their shards already."""
    commits = read_commits(store, [record.address for record in records])
    readable = _can_be_taken(store, commits)
    commits = [commit for commit in commits if commit.address in readable]
    duplicates = _decisions(store, built, records, commits)
    erased = frozenset(read_erasures(store).images)
    out = LeftOut(withdrawn=withdrawn, duplicates=duplicates, erased=erased)
    shards = [(commit.plan_id, commit.shard) for commit in commits]
    versions = {}
    for name in SCHEMAS:
        rows = rows_of(store, name, commits, out)
        change = delta.appending(name, rows) if count_rows(name, commits, duplicates) else None
        if again:
            change = delta.replacing(name, rows, shards)
        versions[name] = delta.change_unshared(store, built.folder, name, change)
    return replace(built, versions=versions), list(folded_as(commits, duplicates))


def _can_be_taken(store: ObjectStore, commits: Sequence[Commit]) -> set[ShardAddress]:
    """Return the addresses of records whose rows can be read; of a withdrawal, the plan names the masks, too."""
    withdrawals = {commit.address for commit in commits if commit.kind is PlanKind.WITHDRAWALS}
    return contents.have_rows(store, commits) | withdrawals


def _let_copies_in(store: ObjectStore, built: DoneFold, withdrawn: pa.Table) -> tuple[DoneFold, list[FoldedRecord]]:
    """Decide once more about the copies in new tables, because shards that owned images could not be taken."""
    known = duplicates_in(store, built)
    commits = folded_commits(store, built, known)
    found = find_duplicates(store, built, commits, known)
    changed = [each for each in commits if found.get(each.address.lineage, frozenset()) != known[each.address.lineage]]
    if not changed:
        return built, []
    return _take(store, built, folded_as(changed, found), withdrawn, again=True)


def _follow(
    store: ObjectStore, built: DoneFold, records: list[FoldedRecord], number: int
) -> tuple[DoneFold, list[FoldedRecord]] | None:
    """Repeat the folds from the one after `built` to the one before `number`; None if one of them was a rebuild.

    Withdrawals and amendments follow later: nothing depends on their order.
    """
    folder = folder_of(store, built.number)
    there = set(list_commits(store)) if built.number + 1 < number else set()
    for each in range(built.number + 1, number):
        if folder_of(store, each) != folder:
            return None
        current = read_or_nothing(store, fold_key(each))
        if current is not None and current.action in ("append", "replace"):
            some = [record for record in current.records if record.address in there]
            withdrawn = withdrawn_masks(store, built)
            built, taken = _take(store, built, some, withdrawn, again=current.action == "replace")
            records = newest_of_each([*records, *taken])
        built = replace(built, number=each)
    return built, records


def _decisions(
    store: ObjectStore, built: DoneFold, records: Sequence[FoldedRecord], commits: Sequence[Commit]
) -> Duplicates:
    """Return the copies that the log leaves out; those of folds of an earlier format are found now."""
    recorded = {record.address.lineage: record.kept_out for record in records}
    known = {lineage: ids_of(keys) for lineage, keys in recorded.items() if keys is not None}
    found = find_duplicates(store, built, commits) if len(known) < len(records) else {}
    return {**found, **known}


def _catch_up(store: ObjectStore, built: DoneFold, records: list[FoldedRecord]) -> tuple[DoneFold, list[FoldedRecord]]:
    """Add the records that are missing from tables not yet published."""
    while (missing := unfolded(store, built).fold) is not None:
        overwrite_erased(store, missing)
        commits = checked_records(store, missing)
        out = left_out(store, built, missing.records)
        versions = {
            name: delta.change_unshared(
                store, built.folder, name, change_of(store, built, name, missing.action, commits, out)
            )
            for name in SCHEMAS
        }
        built = replace(built, versions=versions)
        records = newest_of_each([*records, *missing.records])
    return built, records
