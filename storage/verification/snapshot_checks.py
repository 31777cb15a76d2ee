"""The snapshots: whether each can prove itself, and whether every file of its tables is whole."""

from collections.abc import Iterable
from concurrent.futures import Executor
from functools import partial
from urllib.parse import unquote

import pyarrow as pa

from storage.objects.stores import ObjectStore
from storage.tables.delta import open_table
from storage.tables.durability import is_whole
from storage.tables.query import query
from storage.tables.snapshots import Snapshot, list_snapshots, prove, read_snapshot
from storage.verification.faults import Faults

_ADVICE = "restore the snapshot and its tables from a copy, or delete it and take a new one"
_FILES_AT_ONCE = 4
"""Files of tables in memory at a time; a large one has 128 MiB."""


def check_snapshots(store: ObjectStore, faults: Faults, threads: Executor) -> list[str]:
    """Check all snapshots, and return the keys of those that hold no proof, as an earlier format wrote them."""
    snapshot_ids: Iterable[str] = ()
    with faults.guard("snapshots/", "make the folder readable"):
        snapshot_ids = list_snapshots(store)
    unproven: list[str] = []
    whole: dict[str, bool] = {}
    for snapshot_id in snapshot_ids:
        key = f"snapshots/{snapshot_id}.json"
        with faults.guard(key, _ADVICE):
            snapshot = read_snapshot(store, snapshot_id)
            if snapshot.snapshot_id != snapshot_id:
                faults.note(key, f"its content is that of snapshot {snapshot.snapshot_id}", _ADVICE)
            prove(store, snapshot)
            _check_files(store, faults, key, snapshot, threads, whole)
            unproven += [] if snapshot.proofs else [key]
    return unproven


def _check_files(
    store: ObjectStore, faults: Faults, key: str, snapshot: Snapshot, threads: Executor, whole: dict[str, bool]
) -> None:
    """See whether the files of a snapshot's tables are whole, and whether their rows can be counted by reading them.

    Args:
        whole: Whether a file is whole, by key, for the files that earlier snapshots had; new ones are added.
    """
    for name, version in snapshot.versions.items():
        files = table_files(store, snapshot.folder, name, version)
        fresh = [each for each in files if each not in whole]
        for start in range(0, len(fresh), _FILES_AT_ONCE):
            some = fresh[start : start + _FILES_AT_ONCE]
            answers = threads.map(partial(is_whole, store), some, [files[each] for each in some])
            whole |= zip(some, answers, strict=True)
        broken = [each for each in files if not whole[each]]
        if broken:
            what = f"table {name}: {len(broken)} files are missing or not whole, the first is {broken[0]}"
            faults.note(key, what, _ADVICE)
        else:
            query(store, snapshot, f"SELECT count(*) AS n FROM {name} WHERE plan <> ''")


def table_files(store: ObjectStore, folder: str, name: str, version: int) -> dict[str, int]:
    """Return the size that each file of a table's version should have, by key."""
    added = pa.table(open_table(store, folder, name, version).get_add_actions()).select(["path", "size_bytes"])
    return {f"{folder}/{name}/{unquote(file['path'])}": file["size_bytes"] for file in added.to_pylist()}
