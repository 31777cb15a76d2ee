"""What really is damaged: `verify` must name it, whatever was damaged and however. Nothing else is asked here.

Bytes are deleted, cut off or changed below the dataset; rows of a table are changed by a fold that does it wrong and
publishes what it has made, with fresh proofs.
"""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from storage.dataset import Dataset
from storage.tables.durability import log_sha256
from storage.tables.fold_log import newest_done
from tests.faults.checks.files import FolderFiles, live_files, own_keys
from tests.faults.checks.table_rows import TABLES
from tests.faults.datasets import copy_dataset
from tests.faults.kinds.cases import Case, Template
from tests.faults.kinds.planted import WAYS
from tests.faults.tally import Tally, in_child

BYTES_DAMAGED, ROWS_DAMAGED = "bytes damaged", "rows damaged"
GONE, EMPTY, CUT, CHANGED, OTHER = WAYS
TARGETS = {
    "plan": (GONE, EMPTY, CUT, OTHER),
    "record": (GONE, EMPTY, CUT, CHANGED, OTHER),
    "fold": (GONE, EMPTY, CUT, OTHER),
    "done fold": (EMPTY, CUT, OTHER),
    "tar": (GONE, EMPTY, CUT, CHANGED, OTHER),
    "rows": (GONE, EMPTY, CUT, CHANGED, OTHER),
    "table file": (GONE, EMPTY, CUT),
    "log entry": (GONE, EMPTY, CUT, CHANGED),
    "snapshot": (EMPTY, CUT),
    "table file of a snapshot": (GONE, EMPTY, CUT),
}
"""How each kind of file can be damaged such that what is left can tell.

It cannot tell of a flipped bit in a date that nothing vouches for, nor of a plan without records, a snapshot or the
newest done fold that is gone without a trace.
"""
ROWS = ("doubled", "lost", "foreign", "changed")
COLUMN = {"images": "license", "masks": "area_px", "shards": "seconds", "rejects": "detail"}
"""A column of each table that nothing else depends on."""


def damages(template: Template) -> list[Case]:
    cases = [
        Case(name=f"{target} {way}", how=BYTES_DAMAGED, run=partial(damage_bytes, template, target, way))
        for target, ways in TARGETS.items()
        for way in ways
    ]
    return cases + [
        Case(name=f"{name}: rows {how}", how=ROWS_DAMAGED, run=partial(damage_rows, template, name, how))
        for name in TABLES
        for how in ROWS
    ]


def damage_bytes(template: Template, target: str, way: str, root: Path, dice: random.Random, tally: Tally) -> None:
    copy_dataset(template.folder, root)
    files = FolderFiles(root)
    key, names = dice.choice(list(candidates(files, target)))
    WAYS[way](files, key, dice)
    tally.faults[f"{BYTES_DAMAGED}: {target} {way}"] += 1
    expect_named(root, names, f"{key} {way}", tally)


def candidates(files: FolderFiles, target: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Files of a kind, each with the words of which `verify` must say one."""
    newest = max(key for key in own_keys(files, "folds/") if key.endswith(".done.json"))
    done = json.loads(files.get(newest))
    folded = [record["key"] for key in folds_of(files) for record in json.loads(files.get(key))["records"]]
    keys = {
        "plan": sorted({f"plans/{key.split('/')[1]}.json" for key in folded}),
        "record": folded,
        "fold": folds_of(files),
        "done fold": [newest],
        "tar": [key for key in files.keys("data/") if key.endswith(".tar")],
        "rows": [key for key in files.keys("data/") if key.endswith(".parquet")],
        "snapshot": own_keys(files, "snapshots/"),
    }
    yield from ((key, (key,)) for key in keys.get(target, ()))
    if target == "log entry":
        for name in TABLES:
            key = f"{done['folder']}/{name}/_delta_log/{done['versions'][name]:020d}.json"
            yield key, (f"{done['folder']}/{name}",)
    if target.startswith("table file"):
        states = [newest] if target == "table file" else own_keys(files, "snapshots/")
        for state in states:
            fields = json.loads(files.get(state))
            for name in TABLES:
                for key in live_files(files.get, fields["folder"], name, fields["versions"][name]):
                    yield key, (f"{fields['folder']}/{name}", *own_keys(files, "snapshots/"))


def folds_of(files: FolderFiles) -> list[str]:
    return [key for key in own_keys(files, "folds/") if key.count(".") == 1]


def damage_rows(template: Template, name: str, how: str, root: Path, dice: random.Random, tally: Tally) -> None:
    copy_dataset(template.folder, root)
    in_child(lambda: publish_wrong_rows(Dataset.open(root), name, how))
    tally.faults[f"{ROWS_DAMAGED}: {name} {how}"] += 1
    expect_named(root, (f"tables/{name}",), f"rows of {name} {how}", tally)


def publish_wrong_rows(dataset: Dataset, name: str, how: str) -> None:
    """The newest done fold names a version of the table with wrong rows, and its proofs are those of that version."""
    done = newest_done(dataset.store)
    table = DeltaTable(dataset.store.table_uri(done.folder, name), version=done.versions[name])
    write_deltalake(table, wrong_rows(table.to_pyarrow_table(), name, how), mode="overwrite")
    key = f"folds/{done.number:08d}.done.json"
    fields = json.loads(dataset.store.get(key))
    fields["versions"][name] = table.version()
    proof = {"rows": table.count(), "log_sha256": log_sha256(dataset.store, done.folder, name, table.version())}
    fields["proofs"][name] = proof
    dataset.store.put(key, json.dumps(fields).encode())


def wrong_rows(rows: pa.Table, name: str, how: str) -> pa.Table:
    first = rows.slice(0, 1)
    wrong: dict[str, Callable[[], pa.Table]] = {
        "doubled": lambda: pa.concat_tables([rows, first]),
        "lost": lambda: rows.slice(1),
        "foreign": lambda: pa.concat_tables([rows, of_nobody(first, name)]),
        "changed": lambda: pa.concat_tables([with_value(first, COLUMN[name], 1), rows.slice(1)]),
    }
    return wrong[how]()


def of_nobody(row: pa.Table, name: str) -> pa.Table:
    """The row of another image or mask, of a plan that is not there."""
    own_id = {"images": "image_id", "masks": "mask_id"}.get(name)
    foreign = with_value(row, "plan", f"{name}-{'f' * 16}")
    return with_value(foreign, own_id, 7) if own_id else foreign


def with_value(rows: pa.Table, column: str, value: object) -> pa.Table:
    field = rows.schema.field(column)
    changed = str(value) if pa.types.is_string(field.type) or pa.types.is_large_string(field.type) else value
    at = rows.schema.get_field_index(column)
    return rows.set_column(at, field, pa.array([changed] * rows.num_rows, field.type))


def expect_named(root: Path, names: tuple[str, ...], what: str, tally: Tally) -> None:
    """`verify` must name one of them."""

    def said() -> str:
        return "\n".join(f"{fault.key} {fault.what}" for fault in Dataset.open(root).maintenance.verify().faults)

    tally.verified += 1
    text = in_child(said)
    if not any(name in text for name in names):
        tally.missed.append(f"{what}; verify said: {text or 'nothing'}")
