"""Rebuilding the four tables from the commit records."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from storage.errors import Conflict
from storage.objects.stores import ObjectStore
from storage.protocol.commits import list_commits, newest_generations, read_commits
from storage.protocol.inputs import PlanKind, ShardAddress
from storage.tables import contents, delta
from storage.tables.changes import change_of, checked_records, count_rows, rows_of
from storage.tables.columns import SCHEMAS
from storage.tables.fold_log import DoneFold, folded_generations, next_number, put_done, read_done
from storage.tables.folds import MAX_RECORDS, FoldReport, publish, unfolded
from storage.tables.withdrawals import withdrawn_by


def rebuild(store: ObjectStore) -> FoldReport:
    """Make the four tables anew from the commit records, in a new folder, and publish them as one fold.

    No table and no earlier fold has to be readable. Older snapshots keep reading the old folder. Records that other
    processes fold in the meantime are added before the new tables are published, so readers never go back in time.
    """
    # Tables of the records that there are now
    folder = f"{delta.FIRST_FOLDER}-{next_number(store):08d}-{uuid.uuid4().hex[:8]}"
    built = DoneFold(number=0, folder=folder, versions=_build(store, folder, newest_generations(list_commits(store))))

    # Publication under the next free number, after the records that came in the meantime
    while True:
        number = next_number(store)
        built = _catch_up(store, replace(built, number=number))
        built = replace(built, proofs=publish(store, folder, built.versions))
        with suppress(Conflict):
            put_done(store, built)
        if read_done(store, number).folder == folder:  # also where the answer to our put was lost
            set_aside = unfolded(store, built).set_aside
            records = len(folded_generations(store, built))
            return FoldReport(folds=1, records=records, newest=number, set_aside=set_aside)


def _catch_up(store: ObjectStore, built: DoneFold) -> DoneFold:
    """Add the records that are missing from tables not yet published."""
    while (missing := unfolded(store, built).fold) is not None:
        commits = checked_records(store, missing)
        versions = {
            name: delta.change_unshared(
                store, built.folder, name, change_of(store, built, name, missing.action, commits)
            )
            for name in SCHEMAS
        }
        built = replace(built, versions=versions)
    return built


def _build(store: ObjectStore, folder: str, names: Sequence[ShardAddress]) -> dict[str, int]:
    """Make tables in an unpublished folder and fill them from records, without the masks that these withdraw."""
    versions = delta.create_tables(store, folder)
    withdrawals = [name for name in names if name.kind == PlanKind.WITHDRAWALS]
    withdrawn = withdrawn_by(store, read_commits(store, withdrawals))
    for start in range(0, len(names), MAX_RECORDS):
        every = read_commits(store, names[start : start + MAX_RECORDS])
        readable = contents.have_rows(store, every)
        commits = [commit for commit in every if commit.address in readable]
        for name in SCHEMAS:
            rows = rows_of(store, name, commits, withdrawn)
            change = delta.appending(name, rows) if count_rows(name, commits) else None
            versions[name] = delta.change_unshared(store, folder, name, change)
    return versions
