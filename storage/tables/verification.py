"""Reads a dataset back as a stranger would: every object a record names, its counts, and the tables against them.

Records of replaced generations count too: snapshots, and shards planned from them, read their objects. The tables are
compared with the newest.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from storage.errors import StoreError
from storage.objects.stores import ObjectStore, sha256_of
from storage.protocol.commits import Commit, Part, list_commits, newest_generations, read_commit
from storage.protocol.inputs import PlanKind
from storage.protocol.plans import list_plan_ids, read_plan
from storage.tables import contents
from storage.tables.fold_log import DoneFold, folded_generations, newest_done
from storage.tables.query import query
from storage.tables.withdrawals import withdrawn_masks, without_masks

_RESTORE = "restore the object from a copy, or redo the shard"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that is not as its record says. `key`: the object, record or table."""

    key: str
    what: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was checked, and each fault found.

    `images` and `masks`: those in the shards of the newest generations; `withdrawn`: masks that withdrawals name.
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
    """Checks all; a fault never ends it. `fast` compares the sizes of objects and does not read them."""
    faults: list[Fault] = []
    records = list(_records(store, faults))
    parts = list(dict.fromkeys(part for record in records for part in record.parts))  # a redo may keep some
    names = set(newest_generations(record.address for record in records))
    newest = [record for record in records if record.address in names]
    for part in parts:
        faults += _size_faults(store, part) if fast else _part_faults(store, part)
    faults += _table_faults(store, newest_done(store), newest)
    return VerifyReport(
        plans=len(list(store.list("plans/"))),
        records=len(records),
        objects=len(parts),
        nbytes=sum(part.nbytes for part in parts),
        images=sum(record.images for record in newest if record.kind is PlanKind.IMAGES),
        masks=sum(record.masks for record in newest if record.kind is PlanKind.MASKS),
        withdrawn=sum(part.masks for record in newest if record.kind is PlanKind.WITHDRAWALS for part in record.parts),
        faults=tuple(faults),
    )


def _records(store: ObjectStore, faults: list[Fault]) -> Iterator[Commit]:
    for plan_id in list_plan_ids(store):
        try:
            read_plan(store, plan_id)
        except StoreError as error:
            faults.append(Fault(key=f"plans/{plan_id}.json", what=str(error), advice="restore the plan from a copy"))
    for address in list_commits(store):
        try:
            yield read_commit(store, address)
        except StoreError as error:
            faults.append(Fault(key=address.key, what=str(error), advice="restore the record from a copy"))


def _size_faults(store: ObjectStore, part: Part) -> list[Fault]:
    try:
        nbytes = store.head(part.key).nbytes
    except StoreError as error:
        return [Fault(key=part.key, what=str(error), advice=_RESTORE)]
    if nbytes == part.nbytes:
        return []
    return [Fault(key=part.key, what=f"{nbytes} bytes, the record says {part.nbytes}", advice=_RESTORE)]


def _part_faults(store: ObjectStore, part: Part) -> list[Fault]:
    faults = _size_faults(store, part)
    if faults:
        return faults
    try:
        sha256 = sha256_of(store, part.key)
        if sha256 != part.sha256:
            return [Fault(key=part.key, what=f"SHA-256 {sha256}, the record says {part.sha256}", advice=_RESTORE)]
        images, masks = _counts(store, part)
    except (StoreError, ValueError) as error:
        return [Fault(key=part.key, what=str(error), advice=_RESTORE)]
    if (images, masks) == (part.images, part.masks):
        return []
    what = f"{images} images and {masks} masks, the record says {part.images} and {part.masks}"
    return [Fault(key=part.key, what=what, advice=_RESTORE)]


def _counts(store: ObjectStore, part: Part) -> tuple[int, int]:
    """Images and masks of one part, counted in its bytes. A table of rows has one row an image, or one a mask."""
    if part.role == "rows":
        rows = contents.read_rows(store, part)
        return (part.images, rows.num_rows) if "mask_id" in rows.column_names else (rows.num_rows, part.masks)
    images = masks = 0
    for member in contents.read_part(store, part):
        images += 1
        masks += len(json.loads(member.parts["json"]).get("annotations", ()))
    return images, masks


def _table_faults(store: ObjectStore, done: DoneFold, records: list[Commit]) -> list[Fault]:
    """Each folded shard must have as many rows as its record counts, and no mask may be there twice."""
    try:
        folded = folded_generations(store, done)
        faults = []
        withdrawn = withdrawn_masks(store, done)
        touched = {(row["plan"], row["shard"]) for row in withdrawn.to_pylist()}
        for table, count in (("images", "images"), ("masks", "masks")):
            answer = query(store, done, f"SELECT plan, shard, count(*) AS n FROM {table} GROUP BY plan, shard")
            rows = {(row["plan"], row["shard"]): row["n"] for row in answer.to_pylist()}
            for record in records:
                place = (record.plan_id, record.shard)
                if record.kind == table and folded.get(place) == record.generation:
                    got, expected = rows.get(place, 0), getattr(record, count)
                    if table == "masks" and place in touched:
                        expected = _left_of(store, record, withdrawn)
                    if got != expected:
                        faults.append(_rows_fault(table, record, got, expected))
        twice = query(store, done, "SELECT image_id, mask_id FROM masks GROUP BY image_id, mask_id HAVING count(*) > 1")
    except (StoreError, ValueError) as error:
        return [Fault(key="tables/", what=str(error), advice="rebuild the tables from the records")]
    if twice.num_rows:
        faults.append(
            Fault(
                key="tables/masks", what=f"{twice.num_rows} masks are there more than once", advice="rebuild the tables"
            )
        )
    return faults


def _left_of(store: ObjectStore, record: Commit, withdrawn: pa.Table) -> int:
    """Masks of a shard that are not withdrawn; a withdrawal may speak of an older generation, that is gone anyway."""
    rows = (contents.read_rows(store, part) for part in record.rows())
    return sum(without_masks(each, withdrawn).num_rows for each in rows)


def _rows_fault(table: str, record: Commit, got: int, expected: int) -> Fault:
    what = f"{record.address}: {got} rows, its record counts {expected}"
    return Fault(key=f"tables/{table}", what=what, advice="rebuild the tables from the records")
