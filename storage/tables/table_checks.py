"""The four tables of a fold, compared with the commit records and the log of folds."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ParamSpec

import pyarrow as pa

from storage.errors import NotFound
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit
from storage.protocol.inputs import ShardAddress
from storage.tables import contents, durability
from storage.tables.changes import count_rows
from storage.tables.columns import SCHEMAS
from storage.tables.delta import open_table
from storage.tables.faults import Faults
from storage.tables.fold_log import DoneFold, Fold, fold_number, folded_generations, is_done_key, read_done, read_fold
from storage.tables.query import query
from storage.tables.rows import reject_rows, shard_rows
from storage.tables.sql import quoted
from storage.tables.withdrawals import withdrawn_masks, without_masks

_RESTORE = "restore it from a copy"
_REBUILD = "run `gigamask rebuild`: it makes the tables from the records"

_Arguments = ParamSpec("_Arguments")
Place = tuple[str, str]
"""Plan and shard."""


@dataclass(frozen=True, kw_only=True)
class FoldLog:
    """Readable files of the folder folds/, by number of the fold."""

    folds: dict[int, Fold] = field(default_factory=dict)
    done: dict[int, DoneFold] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """Number of the fold with which the newest set of tables began."""
        folder = self.done[max(self.done)].folder if self.done else ""
        return min((number for number, done in self.done.items() if done.folder == folder), default=0)

    def applied(self) -> list[Fold]:
        """Folds whose records were added to the tables of the fold before.

        A fold whose number a rebuild used for new tables is left out.
        """
        return [fold for number, fold in sorted(self.folds.items()) if self.is_applied(number)]

    def is_applied(self, number: int) -> bool:
        """Whether the fold `number` is done, and has its result in the same tables as the fold before."""
        before, own = self.done.get(number - 1), self.done.get(number)
        return before is not None and own is not None and before.folder == own.folder


def read_fold_log(store: ObjectStore, faults: Faults) -> FoldLog:
    """Read all files of the folder folds/, and note each damaged or missing file as a fault.

    Only files of folds into the newest tables are noted, because nothing reads earlier folds any more.
    """
    log, found = FoldLog(), Faults()
    with faults.guard("folds/", "make the folder readable"):
        for key in store.list("folds/"):
            number = fold_number(key)
            if number is not None:
                with found.guard(key, _RESTORE):
                    _read_into(store, log, found, key, number)
    if log.done:
        _note_missing(log, found)
    for fault in found.found:
        number = fold_number(fault.key)
        if number is None or number >= log.first:
            faults.note(fault.key, fault.what, fault.advice)
    return log


def _note_missing(log: FoldLog, faults: Faults) -> None:
    newest = max(log.done)
    for number in range(log.first, newest + 1):
        done_key, key = f"folds/{number:08d}.done.json", f"folds/{number:08d}.json"
        if number not in log.done and done_key not in faults.keys:
            faults.note(done_key, f"no such object; the newest is that of fold {newest}", _RESTORE)
        if log.is_applied(number) and number not in log.folds and key not in faults.keys:
            faults.note(key, f"no such object, but fold {number} is done", _RESTORE)


def _read_into(store: ObjectStore, log: FoldLog, faults: Faults, key: str, number: int) -> None:
    read: Fold | DoneFold
    if is_done_key(key):
        read = log.done[number] = read_done(store, number)
    else:
        read = log.folds[number] = read_fold(store, number)
    if read.number != number:
        faults.note(key, f"its content is that of fold {read.number}", _RESTORE)


class TableChecks:
    """The checks of one fold's tables against the commit records.

    Args:
        records: The records that can be read.
        named: The addresses of all records, readable or not.
    """

    def __init__(
        self,
        store: ObjectStore,
        faults: Faults,
        done: DoneFold,
        records: Mapping[ShardAddress, Commit],
        named: Collection[ShardAddress],
        log: FoldLog,
    ) -> None:
        self._store, self._faults, self._done, self._log = store, faults, done, log
        self._records, self._named = records, set(named)
        self._folded: dict[Place, int] = {}
        self._withdrawn: pa.Table | None = None
        """Rows of the withdrawals in the tables; None where they cannot be read."""
        self._touched: set[Place] = set()
        """Shards of which they name masks, perhaps of an older generation, that is gone anyway."""

    def check(self, *, fast: bool) -> None:
        """Check all tables. With `fast`, the rows of the tables `images` and `masks` are not read."""
        if self._read_state():
            self._guarded("shards", self._check_taken)
            for name in SCHEMAS:
                self._guarded(name, self._check_counts, name)
            for name in ("masks", "shards"):
                self._guarded(name, self._check_generations, name)
            self._guarded("shards", self._check_record_rows, "shards", shard_rows)
            self._guarded("rejects", self._check_record_rows, "rejects", reject_rows)
            if not fast:
                for record in self._folded_records():
                    if record.kind in ("images", "masks"):
                        self._guarded(record.kind, self._check_values, record.kind, record)
        self._guarded("images", self._check_once, "images", "image_id")
        self._guarded("masks", self._check_once, "masks", "image_id, mask_id")
        for name in self._done.proofs:
            self._guarded(name, self._check_proof, name)

    def _guarded(
        self, name: str, check: Callable[_Arguments, None], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> None:
        with self._faults.guard(self._key(name), _REBUILD):
            check(*args, **kwargs)

    def _key(self, name: str) -> str:
        return f"{self._done.folder}/{name}"

    def _note(self, name: str, what: str) -> None:
        self._faults.note(self._key(name), what, _REBUILD)

    def _read_state(self) -> bool:
        """Read which shards are in the tables, and which masks are withdrawn; False where the first fails."""
        with self._faults.guard(self._key("shards"), _REBUILD):
            self._folded = folded_generations(self._store, self._done)
            with self._faults.guard(self._key("masks"), "restore the named object of a withdrawal from a copy"):
                rows = self._withdrawn = withdrawn_masks(self._store, self._done)
                self._touched = set(zip(rows["plan"].to_pylist(), rows["shard"].to_pylist(), strict=True))
            return True
        return False

    def _folded_records(self) -> list[Commit]:
        addresses = (ShardAddress(plan_id=p, shard=s, generation=g) for (p, s), g in self._folded.items())
        return [self._records[address] for address in addresses if address in self._records]

    def _check_taken(self) -> None:
        """Every record that a done fold took must be there, unchanged, and have a row in `shards`."""
        for fold in self._log.applied():
            for folded in fold.records:
                address = ShardAddress.of_key(folded.key)
                if address not in self._named:
                    self._faults.note(folded.key, f"no such object, but fold {fold.number} took it", _RESTORE)
                record = self._records.get(address)
                if record is not None and record.record_sha256 != folded.sha256:
                    self._faults.note(folded.key, f"changed after fold {fold.number} took it", _RESTORE)
                if self._folded.get((address.plan_id, address.shard), -1) < address.generation:
                    self._note("shards", f"{address}: fold {fold.number} took it, and it has no row")

    def _check_counts(self, name: str) -> None:
        """Each folded shard must have as many rows as its record counts, and no other shard any."""
        if name == "masks" and self._withdrawn is None:
            return
        answer = query(
            self._store, self._done, f"SELECT plan, shard, count(*) AS n FROM {name} GROUP BY plan, shard"
        ).to_pylist()
        counts = {(row["plan"], row["shard"]): row["n"] for row in answer}
        lineages = {(address.plan_id, address.shard) for address in self._named}
        for place in counts:
            if place not in lineages:
                self._note(name, f"{place[0]}/{place[1]}: {counts[place]} rows, and no record names it")
            elif place not in self._folded:
                self._note(name, f"{place[0]}/{place[1]}: {counts[place]} rows, and `shards` has none of it")
        for record in self._folded_records():
            self._guarded(name, self._check_count, name, record, counts)

    def _check_count(self, name: str, record: Commit, counts: Mapping[Place, int]) -> None:
        got, expected = counts.get((record.plan_id, record.shard), 0), count_rows(name, [record])
        if name == "masks" and (record.plan_id, record.shard) in self._touched:
            if self._has_faults(record):
                return
            expected = self._rows_of(name, record).num_rows
        if got != expected:
            self._note(name, f"{record.address}: {got} rows, its record counts {expected}")

    def _has_faults(self, record: Commit) -> bool:
        return any(part.key in self._faults.keys for part in record.rows())

    def _check_generations(self, name: str) -> None:
        """Rows must be of a generation that a record names; one that was inherited is older than its shard's."""
        for row in query(self._store, self._done, f"SELECT DISTINCT plan, shard, generation FROM {name}").to_pylist():
            address = ShardAddress(plan_id=row["plan"], shard=row["shard"], generation=row["generation"])
            if address not in self._named and (row["plan"], row["shard"]) in self._folded:
                self._note(name, f"{address}: rows of a generation that no record names")

    def _check_record_rows(self, name: str, make: Callable[[Iterable[Commit]], pa.Table]) -> None:
        """Rows that follow from the records alone must be what they follow to be."""
        columns = SCHEMAS[name].names
        found = query(self._store, self._done, f"SELECT * FROM {name}").select(columns).cast(SCHEMAS[name])
        by_place: defaultdict[Place, list[str]] = defaultdict(list)
        for row in found.to_pylist():
            by_place[row["plan"], row["shard"]].append(repr(row))
        for record in self._folded_records():
            got = sorted(by_place[record.plan_id, record.shard])
            expected = sorted(repr(row) for row in make([record]).select(columns).to_pylist())
            if len(got) == len(expected) and got != expected:  # another number was noted when they were counted
                self._note(name, f"{record.address}: values differ from those of its record")

    def _check_values(self, name: str, record: Commit) -> None:
        """The rows of a shard must be those of its Parquet parts, without the withdrawn masks."""
        if self._has_faults(record) or (name == "masks" and self._withdrawn is None):
            return
        columns = SCHEMAS[name].names
        where = f"plan = {quoted(record.plan_id)} AND shard = {quoted(record.shard)}"
        got = query(self._store, self._done, f"SELECT * FROM {name} WHERE {where}").select(columns)
        expected = self._rows_of(name, record)
        if got.num_rows != expected.num_rows:
            return  # noted when they were counted
        order = [(column, "ascending") for column in ("image_id", "mask_id") if column in columns]
        got, expected = got.cast(SCHEMAS[name]).sort_by(order), expected.sort_by(order)
        differ = [column for column in columns if not got[column].equals(expected[column])]
        if differ:
            self._note(name, f"{record.address}: values differ from those of its Parquet parts: {', '.join(differ)}")

    def _rows_of(self, name: str, record: Commit) -> pa.Table:
        """Read the rows that a shard count_rows into a table."""
        schema = SCHEMAS[name]
        parts = (contents.read_rows(self._store, part).select(schema.names).cast(schema) for part in record.rows())
        rows = pa.concat_tables([schema.empty_table(), *parts])
        return without_masks(rows, self._withdrawn) if name == "masks" else rows

    def _check_once(self, name: str, columns: str) -> None:
        twice = query(self._store, self._done, f"SELECT {columns} FROM {name} GROUP BY {columns} HAVING count(*) > 1")
        if twice.num_rows:
            advice = f"{_REBUILD}; if they stay, two plans hold them"
            self._faults.note(self._key(name), f"{twice.num_rows} {name} are there more than once", advice)

    def _check_proof(self, name: str) -> None:
        """The newest done fold says how many rows a table has, and what its log entry is."""
        version, proof = self._done.versions[name], self._done.proofs[name]
        try:
            log_sha256 = durability.log_sha256(self._store, self._done.folder, name, version)
        except NotFound:
            self._note(name, f"lost its version {version}, which fold {self._done.number} published")
            return
        rows = open_table(self._store, self._done.folder, name, version).count()
        if log_sha256 != proof.log_sha256:
            self._note(name, f"the log entry of version {version} is not the one that fold {self._done.number} wrote")
        if rows != proof.rows:
            self._note(name, f"{rows} rows in all, fold {self._done.number} published {proof.rows}")
