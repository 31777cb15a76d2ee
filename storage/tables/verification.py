"""Read a dataset back as a stranger would: every file, every object a record names, its counts, and the tables.

Records of replaced generations count too: snapshots, and shards planned from them, read their objects. The tables are
compared with the records that the newest done fold took.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from storage.objects.stores import ObjectStore, sha256_of
from storage.protocol.commits import Commit, Part, list_commits, newest_generations, read_commit
from storage.protocol.inputs import PlanKind, ShardAddress
from storage.protocol.plans import is_plan_key, list_plan_ids, read_plan
from storage.tables import contents
from storage.tables.durability import broken_files
from storage.tables.faults import Fault, Faults
from storage.tables.fold_log import is_fold_key, newest_done
from storage.tables.query import query
from storage.tables.snapshots import Snapshot, is_snapshot_key, list_snapshots, prove, read_snapshot
from storage.tables.table_checks import TableChecks, read_fold_log

_RESTORE = "restore the object from a copy, or redo the shard"
_SNAPSHOT = "restore the snapshot and its tables from a copy, or delete it and take a new one"


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """Numbers of what was checked, and each fault found.

    `images` and `masks` count those in the newest generation of each shard. `withdrawn` counts the masks that
    withdrawals name.
    """

    plans: int
    records: int
    objects: int
    nbytes: int
    images: int
    masks: int
    withdrawn: int
    faults: tuple[Fault, ...]


def verify(store: ObjectStore, *, fast: bool = False) -> VerifyReport:
    """Check the stored objects and the tables against the commit records. A fault does not end the check.

    Args:
        store: The store of the dataset.
        fast: Whether to compare only the sizes of objects; otherwise every byte is read.
    """
    faults = Faults()
    _check_names(store, faults)

    # Plans and records, and the objects that the records name
    plan_ids = _check_plans(store, faults)
    records, named = _read_records(store, faults)
    parts = list(dict.fromkeys(part for record in records.values() for part in record.parts))  # a redo may keep some
    for part in parts:
        with faults.guard(part.key, _RESTORE):
            _check_part(store, faults, part, fast=fast)

    # The log of folds, the tables and the snapshots
    folds = read_fold_log(store, faults)
    with faults.guard("folds/", "restore folds/ from a copy, or run `gigamask rebuild`"):
        done = newest_done(store)
        TableChecks(store, faults, done, records, named, folds).check(fast=fast)
    _check_snapshots(store, faults)

    newest = [records[name] for name in newest_generations(named) if name in records]
    return VerifyReport(
        plans=len(plan_ids),
        records=len(records),
        objects=len(parts),
        nbytes=sum(part.nbytes for part in parts),
        images=sum(record.images for record in newest if record.kind is PlanKind.IMAGES),
        masks=sum(record.masks for record in newest if record.kind is PlanKind.MASKS),
        withdrawn=sum(part.masks for record in newest if record.kind is PlanKind.WITHDRAWALS for part in record.parts),
        faults=tuple(faults.found),
    )


def _check_names(store: ObjectStore, faults: Faults) -> None:
    """Name the files that are none of a dataset's; readers pass over them."""
    checks = (
        ("plans/", is_plan_key),
        ("commits/", _is_record_key),
        ("folds/", is_fold_key),
        ("snapshots/", is_snapshot_key),
    )
    for prefix, is_own in checks:
        with faults.guard(prefix, "make the folder readable"):
            for key in store.list(prefix):
                if not is_own(key):
                    faults.note(key, f"a file of that name is no part of {prefix}", "move it out of the dataset")


def _is_record_key(key: str) -> bool:
    try:
        ShardAddress.of_key(key)
    except ValueError:
        return False
    return True


def _check_plans(store: ObjectStore, faults: Faults) -> list[str]:
    plan_ids: list[str] = []
    with faults.guard("plans/", "make the folder readable"):
        plan_ids = list_plan_ids(store)
    for plan_id in plan_ids:
        with faults.guard(f"plans/{plan_id}.json", "restore the plan from a copy"):
            read_plan(store, plan_id)
    return plan_ids


def _read_records(store: ObjectStore, faults: Faults) -> tuple[dict[ShardAddress, Commit], list[ShardAddress]]:
    """Give the records that can be read, and the addresses of all."""
    named: list[ShardAddress] = []
    with faults.guard("commits/", "make the folder readable"):
        named = list(list_commits(store))
    records = {}
    for address in named:
        with faults.guard(address.key, "restore the record from a copy"):
            records[address] = read_commit(store, address)
    return records, named


def _check_part(store: ObjectStore, faults: Faults, part: Part, *, fast: bool) -> None:
    """Compare size, SHA-256 and counts of an object with its record; only the size if `fast`."""
    nbytes = store.head(part.key).nbytes
    if nbytes != part.nbytes:
        faults.note(part.key, f"{nbytes} bytes, the record says {part.nbytes}", _RESTORE)
        return
    if fast:
        return
    sha256 = sha256_of(store, part.key)
    if sha256 != part.sha256:
        faults.note(part.key, f"SHA-256 {sha256}, the record says {part.sha256}", _RESTORE)
        return
    images, masks = _counts(store, part)
    if (images, masks) != (part.images, part.masks):
        what = f"{images} images and {masks} masks, the record says {part.images} and {part.masks}"
        faults.note(part.key, what, _RESTORE)


def _counts(store: ObjectStore, part: Part) -> tuple[int, int]:
    """Count images and masks of one part in its bytes. A table of rows has one row an image, or one a mask."""
    if part.role == "rows":
        rows = contents.read_rows(store, part)
        return (part.images, rows.num_rows) if "mask_id" in rows.column_names else (rows.num_rows, part.masks)
    images = masks = 0
    for member in contents.read_part(store, part):
        images += 1
        masks += len(json.loads(member.parts["json"]).get("annotations", ()))
    return images, masks


def _check_snapshots(store: ObjectStore, faults: Faults) -> None:
    snapshot_ids: Iterable[str] = ()
    with faults.guard("snapshots/", "make the folder readable"):
        snapshot_ids = list_snapshots(store)
    for snapshot_id in snapshot_ids:
        key = f"snapshots/{snapshot_id}.json"
        with faults.guard(key, _SNAPSHOT):
            snapshot = read_snapshot(store, snapshot_id)
            if snapshot.snapshot_id != snapshot_id:
                faults.note(key, f"its content is that of snapshot {snapshot.snapshot_id}", _SNAPSHOT)
            prove(store, snapshot)
            _check_files(store, faults, key, snapshot)


def _check_files(store: ObjectStore, faults: Faults, key: str, snapshot: Snapshot) -> None:
    """See whether the files of a snapshot's tables are whole, and whether their rows can be counted by reading them."""
    for name, version in snapshot.versions.items():
        broken = broken_files(store, snapshot.folder, name, version)
        if broken:
            what = f"table {name}: {len(broken)} files are missing or not whole, the first is {broken[0]}"
            faults.note(key, what, _SNAPSHOT)
        else:
            query(store, snapshot, f"SELECT count(*) AS n FROM {name} WHERE plan <> ''")
