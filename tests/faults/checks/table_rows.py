"""The rows that the four tables must hold, made from the shards' own bytes: what is in the tables, without copies."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from tests.faults.checks.files import parquet_rows
from tests.faults.checks.fold_order import Place, State

TABLES = ("images", "masks", "shards", "rejects")
COLUMNS = {
    "images": ("image_id", "plan", "shard", "part", "member_offset", "member_nbytes", "stored_sha256"),
    "masks": ("image_id", "mask_id", "plan", "shard", "generation", "part", "member_offset", "ordinal"),
    "shards": ("plan", "shard", "generation", "images", "masks", "record_sha256"),
    "rejects": ("source", "plan", "shard"),
}
"""Columns of each table that are compared."""

Rows = dict[str, Counter[Any]]
Row = tuple[Any, ...]


class Objects(Protocol):
    """What is asked of a dataset."""

    def object(self, key: str) -> bytes:
        """Bytes of an object."""

    def members(self, part: dict[str, Any]) -> list[tuple[str, int, bytes]]:
        """Name, offset and bytes of each file in a tar."""


def expected_rows(objects: Objects, state: State) -> Rows:
    """The rows of each table, in COLUMNS."""
    rows: Rows = {name: Counter() for name in TABLES}
    withdrawn = withdrawn_masks(objects, state.taken.values())
    for place, record in state.taken.items():
        copies = state.copies.get(place, frozenset())
        counts = [sum(part[what] for part in record.parts("tar")) for what in ("images", "masks")]
        rows["shards"][(*place, record.generation, *counts, record.sha256)] += 1
        rows["rejects"].update((reject["source"], *place) for reject in record.fields["rejects"])
        rows["rejects"].update((f"{image_id:016x}", *place) for image_id in copies)
        for part in record.parts("tar"):
            if record.kind == "images":
                rows["images"].update(row for row in image_rows(objects, place, part) if row[0] not in copies)
            elif record.kind in ("masks", "amendments"):
                every = (row for row in mask_rows(objects, place, part) if row[0] not in copies)
                rows["masks"].update(row for row in every if row[:2] not in withdrawn)
    return rows


def image_rows(objects: Objects, place: Place, part: dict[str, Any]) -> Iterator[Row]:
    for name, offset, data in objects.members(part):
        if name.endswith(".jpg"):
            sha256 = hashlib.sha256(data).hexdigest()
            yield int(sha256[:16], 16) >> 1, *place, part["key"], offset, len(data), sha256


def mask_rows(objects: Objects, place: Place, part: dict[str, Any]) -> Iterator[Row]:
    generation = int(part["key"].rpartition("/g")[2].partition("-")[0])
    for _, offset, data in objects.members(part):
        document = json.loads(data)
        for ordinal, mask in enumerate(document["annotations"]):
            yield document["image"]["image_id"], mask["id"], *place, generation, part["key"], offset, ordinal


def withdrawn_masks(objects: Objects, records: Iterable[Any]) -> set[Row]:
    """Pairs (image id, mask id) that withdrawals and amendments name."""
    roles = {"withdrawals": "rows", "amendments": "withdrawn"}
    parts = [part for record in records if record.kind in roles for part in record.parts(roles[record.kind])]
    return {(row["image_id"], row["mask_id"]) for part in parts for row in parquet_rows(objects.object(part["key"]))}
