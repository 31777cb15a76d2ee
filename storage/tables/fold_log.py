"""The log of folds: which records each takes, and the versions of the five tables that agree after it.

`folds/<n>.json` is the plan of a fold, `folds/<n>.done.json` its end; both are put-if-absent. Readers open the tables
at the highest done fold. A rebuild makes tables in a new folder and has no plan; `folds/<n>.<folder>.json` then lists
all records of the new tables, in their order.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from storage.errors import Conflict, Corrupt, NotFound
from storage.formats.documents import FORMAT, corrupt_where_malformed, json_bytes, read_json
from storage.objects.stores import ObjectStore
from storage.protocol.inputs import ShardAddress
from storage.tables.columns import SCHEMAS
from storage.tables.durability import TableProof
from storage.tables.query import query_own

_DONE = ".done.json"
_FOLD_KEY = re.compile(r"folds/([0-9]{8}|[1-9][0-9]{8,17})(\.done)?\.json")
_REBUILT_KEY = re.compile(r"folds/([0-9]{8}|[1-9][0-9]{8,17})\.tables-[0-9]{8,18}-[0-9a-f]{8}\.json")


@dataclass(frozen=True, kw_only=True)
class FoldedRecord:
    """Commit record that a fold takes into the tables."""

    key: str
    """Key of the record."""
    sha256: str
    """SHA-256 of the record, in hex, by which a later change is noticed."""
    kept_out: tuple[str, ...] | None = None
    """Keys of the images that stay out of the tables, because another shard holds them; None if an earlier format wrote
    the fold."""

    @property
    def address(self) -> ShardAddress:
        """Address of the record's shard."""
        return ShardAddress.of_key(self.key)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Plan of a fold: the content of `folds/<n>.json`."""

    number: int
    """Number of the fold."""
    action: str
    """Kind of change that the fold makes to the tables.

    "append" adds shards new to the tables, "replace" newer generations of shards that are in them; "withdraw" removes
    withdrawn masks; "amend" removes masks and adds those that take their place; "erase" removes all rows of erased
    images; "compact" rewrites the rows of small folds as one file. The list of a rebuild's records has the action
    "rebuild".
    """
    records: tuple[FoldedRecord, ...]
    """Commit records that the fold takes."""


@dataclass(frozen=True, kw_only=True)
class DoneFold:
    """Result of a fold, the content of `folds/<n>.done.json`: table versions that agree with each other."""

    number: int
    """Number of the fold."""
    folder: str
    """Folder of the tables."""
    versions: dict[str, int]
    """Version of each table, by name; a table that came with a later version of gigamask may be missing."""
    proofs: dict[str, TableProof] = field(default_factory=dict)
    """Proof of each version, by table name; empty if an earlier format wrote the file."""


def newest_done(store: ObjectStore) -> DoneFold:
    """Read the newest done fold, whose tables readers open.

    Raises:
        Corrupt: There is no done fold, or its file is damaged.
    """
    numbers = _done_numbers(store)
    if not numbers:
        raise Corrupt(f"{store.uri}: folds/ holds no finished fold; the dataset was copied in part, copy it again")
    return read_done(store, numbers[-1])


def read_done(store: ObjectStore, number: int) -> DoneFold:
    """Read the result of a fold.

    Raises:
        NotFound: The fold is not done.
        Corrupt: Its file is damaged.
    """
    key = _done_key(number)
    fields = read_json(store.get(key), "done_fold", f"{store.uri}/{key}")
    with corrupt_where_malformed(f"{store.uri}/{key}"):
        versions = {name: fields["versions"][name] for name in SCHEMAS if name in fields["versions"]}
        return DoneFold(number=fields["number"], folder=fields["folder"], versions=versions, proofs=read_proofs(fields))


def is_done(store: ObjectStore, number: int) -> bool:
    """Whether a fold's done file is there."""
    key = _done_key(number)
    return key in store.list(key)


def read_proofs(fields: Mapping[str, Any]) -> dict[str, TableProof]:
    """Read the proofs from the JSON of a done fold or a snapshot."""
    return {name: TableProof(**proof) for name, proof in fields.get("proofs", {}).items()}


def table_rows(store: ObjectStore, done: DoneFold, name: str, columns: Sequence[str]) -> pa.Table:
    """Read some columns of one table, as of the fold `done`.

    Raises:
        Corrupt: The table cannot be opened or read.
        StoreError: The store fails.
    """
    try:
        # Not with Arrow's own reader: its threads may outlive the interpreter, which then aborts at its end
        return query_own(store, done, f"SELECT {', '.join(columns)} FROM {name}")
    except ValueError as error:
        raise Corrupt(f"{store.uri}: table {name} cannot be read ({error}); run `gigamask verify`") from error


def folded_generations(store: ObjectStore, done: DoneFold) -> dict[tuple[str, str], int]:
    """Map (plan, shard) to the generation of the shard that is in the tables, for every shard in the tables."""
    rows = table_rows(store, done, "shards", ("plan", "shard", "generation"))
    return {(row["plan"], row["shard"]): row["generation"] for row in rows.to_pylist()}


def read_fold(store: ObjectStore, number: int) -> Fold:
    """Read the plan of a fold.

    Raises:
        NotFound: There is no such fold.
        Corrupt: Its file is damaged.
    """
    key = fold_key(number)
    fields = read_json(store.get(key), "fold", f"{store.uri}/{key}")
    with corrupt_where_malformed(f"{store.uri}/{key}"):
        return Fold(number=fields["number"], action=fields["action"], records=_records(fields))


def _records(fields: Mapping[str, Any]) -> tuple[FoldedRecord, ...]:
    return tuple(
        FoldedRecord(
            key=record["key"],
            sha256=record["sha256"],
            kept_out=tuple(record["kept_out"]) if "kept_out" in record else None,
        )
        for record in fields["records"]
    )


def put_rebuilt(store: ObjectStore, done: DoneFold, records: Sequence[FoldedRecord]) -> None:
    """Store which records the tables of a rebuild hold, in their order, before the rebuild is published as `done`."""
    content = Fold(number=done.number, action="rebuild", records=tuple(records))
    fields = {"format": FORMAT, **asdict(content), "created_at": now()}
    with suppress(Conflict):  # put before, and the answer was lost
        store.put_if_absent(rebuilt_key(done), json_bytes(fields))


def folded_records(store: ObjectStore, newest: int) -> list[FoldedRecord]:
    """List the records that the tables hold after the fold `newest`, in the order in which they were folded.

    Each shard has the place of its first generation and the record of its newest one. The list is made from the log
    alone. Files of the log that are lost or damaged are skipped, so records may be missing.
    """
    folder = folder_of(store, newest)

    # Folds since the tables were made, and the list of the records that the tables were made with
    first = newest
    while first > 0 and folder_of(store, first - 1) in (folder, ""):
        first -= 1
    rebuilt = read_or_nothing(store, rebuilt_key(DoneFold(number=first, folder=folder, versions={})))
    later = range(first + 1 if rebuilt else 1, newest + 1)
    folds = [rebuilt, *(read_or_nothing(store, fold_key(number)) for number in later)]

    taken = (record for fold in folds if fold and fold.action != "compact" for record in fold.records)
    return newest_of_each(taken)


def newest_of_each(records: Iterable[FoldedRecord]) -> list[FoldedRecord]:
    """Keep one record of each shard: that of the newest generation, at the place of the first one."""
    by_lineage: dict[str, FoldedRecord] = {}
    for record in records:
        before = by_lineage.get(record.address.lineage)
        if before is None or before.address.generation <= record.address.generation:
            by_lineage[record.address.lineage] = record
    return list(by_lineage.values())


def read_or_nothing(store: ObjectStore, key: str) -> Fold | None:
    """Read the records of a fold or of a rebuild; None where the file is lost or damaged."""
    try:
        fields = read_json(store.get(key), "fold", f"{store.uri}/{key}")
        with corrupt_where_malformed(f"{store.uri}/{key}"):
            return Fold(number=fields["number"], action=fields["action"], records=_records(fields))
    except (NotFound, Corrupt):
        return None


def folder_of(store: ObjectStore, number: int) -> str:
    """Return the folder of the tables at a fold; empty if its file is lost or damaged."""
    try:
        return read_done(store, number).folder
    except (NotFound, Corrupt):
        return ""


def _done_numbers(store: ObjectStore) -> list[int]:
    """List the numbers of the done folds, ascending; `verify` reports other files below folds/."""
    numbers = [fold_number(key) for key in store.list("folds/") if is_done_key(key)]
    return sorted(number for number in numbers if number is not None)


def is_fold_key(key: str) -> bool:
    """Whether a key is that of a file of the log: a fold, a done fold or the list of a rebuild's records."""
    return _FOLD_KEY.fullmatch(key) is not None or _REBUILT_KEY.fullmatch(key) is not None


def is_done_key(key: str) -> bool:
    """Whether a key is that of a done fold."""
    return is_fold_key(key) and key.endswith(_DONE)


def fold_number(key: str) -> int | None:
    """Return the number of the fold or done fold with this key; None for another file."""
    found = _FOLD_KEY.fullmatch(key)
    return int(found[1]) if found else None


def next_number(store: ObjectStore) -> int:
    """Return the number of the next fold, which is one more than the number of the newest done fold."""
    numbers = _done_numbers(store)
    return numbers[-1] + 1 if numbers else 0


def put_done(store: ObjectStore, done: DoneFold) -> None:
    """Put the file of a done fold.

    Raises:
        Conflict: A done fold of this number is there already.
    """
    store.put_if_absent(_done_key(done.number), json_bytes({"format": FORMAT, **asdict(done), "created_at": now()}))


def rebuilt_key(done: DoneFold) -> str:
    """Return the key of the list of a rebuild's records."""
    return f"folds/{done.number:08d}.{done.folder}.json"


def fold_key(number: int) -> str:
    """Return the key of a fold's plan."""
    return f"folds/{number:08d}.json"


def _done_key(number: int) -> str:
    return f"folds/{number:08d}{_DONE}"


def now() -> str:
    """Return the present time in UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat()
