"""Rebuilding the five tables from the commit records."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from storage.errors import Conflict
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, list_commits, read_commits
from storage.protocol.erasures import read_erasures
from storage.protocol.inputs import PlanKind
from storage.tables import contents, delta
from storage.tables.changes import LeftOut, change_of, checked_records, count_rows, left_out, rows_of
from storage.tables.columns import SCHEMAS
from storage.tables.duplicates import Duplicates, find_duplicates, ids_of
from storage.tables.fold_log import (
    DoneFold,
    FoldedRecord,
    folded_records,
    newest_of_each,
    next_number,
    put_done,
    put_rebuilt,
    read_done,
)
from storage.tables.folds import MAX_RECORDS, FoldReport, folded_as, overwrite_erased, publish, unfolded
from storage.tables.orphans import claim_to_publish
from storage.tables.withdrawals import withdrawn_by


def rebuild(store: ObjectStore) -> FoldReport:
    """Make the five tables anew from the commit records, in a new folder, and publish them as one fold.

    No table and no earlier fold has to be readable. Records that the log of folds names are taken in their order there,
    so copies of images stay out as before; then follow all other records. Older snapshots keep reading the old folder.
    Records that other processes fold in the meantime are added before the new tables are published, so readers never go
    back in time.
    """
    # Tables of the records that were folded before
    folder = f"{delta.FIRST_FOLDER}-{next_number(store):08d}-{uuid.uuid4().hex[:8]}"
    built = DoneFold(number=0, folder=folder, versions=delta.create_tables(store, folder))
    built, records = _take_folded(store, built)

    # Publication under the next free number, after the records that are not folded or came in the meantime
    while True:
        number = next_number(store)
        built, records = _catch_up(store, replace(built, number=number), records)
        built = replace(built, proofs=publish(store, folder, built.versions))
        claim_to_publish(store, folder)
        put_rebuilt(store, built, records)
        with suppress(Conflict):
            put_done(store, built)
        if read_done(store, number).folder == folder:  # also where the answer to our put was lost
            set_aside = unfolded(store, built).set_aside
            return FoldReport(folds=1, records=len(records), newest=number, set_aside=set_aside)


def _take_folded(store: ObjectStore, built: DoneFold) -> tuple[DoneFold, list[FoldedRecord]]:
    """Fill new tables with the records that the log names, without erased images and the masks that they withdraw."""
    there = set(list_commits(store))
    folded = [record for record in folded_records(store) if record.address in there]
    kinds = (PlanKind.WITHDRAWALS, PlanKind.AMENDMENTS)
    withdrawals = [record.address for record in folded if record.address.kind in kinds]
    withdrawn = withdrawn_by(store, read_commits(store, withdrawals))
    erased = frozenset(read_erasures(store).images)
    taken: list[FoldedRecord] = []
    for start in range(0, len(folded), MAX_RECORDS):
        some = folded[start : start + MAX_RECORDS]
        every = read_commits(store, [record.address for record in some])
        readable = contents.have_rows(store, every)
        commits = [commit for commit in every if commit.address in readable]
        duplicates = _decisions(store, built, some, commits)
        out = LeftOut(withdrawn=withdrawn, duplicates=duplicates, erased=erased)
        versions = {}
        for name in SCHEMAS:
            rows = rows_of(store, name, commits, out)
            change = delta.appending(name, rows) if count_rows(name, commits, duplicates) else None
            versions[name] = delta.change_unshared(store, built.folder, name, change)
        built = replace(built, versions=versions)
        taken += folded_as(commits, duplicates)
    return built, taken


def _decisions(
    store: ObjectStore, built: DoneFold, records: Sequence[FoldedRecord], commits: Sequence[Commit]
) -> Duplicates:
    """Return the copies that the log leaves out; those of folds of an earlier format are found now."""
    recorded = {record.address.lineage: record.kept_out for record in records}
    known = {lineage: ids_of(keys) for lineage, keys in recorded.items() if keys is not None}
    found = find_duplicates(store, built, commits) if len(known) < len(commits) else {}
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
