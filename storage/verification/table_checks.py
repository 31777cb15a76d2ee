"""The five tables of a fold, compared with the commit records and the log of folds.

Facts about the whole tables come from one query each: how many rows each shard has, what is there twice. Their values
are compared chunk by chunk of shards, with one query a table and chunk.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import ParamSpec

import pyarrow as pa

from storage.errors import NotFound
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, Part
from storage.protocol.inputs import ShardAddress
from storage.tables import contents, durability
from storage.tables.changes import LeftOut, count_rows, left_out, rows_to_keep
from storage.tables.columns import SCHEMAS, conform
from storage.tables.delta import open_table
from storage.tables.duplicates import Duplicates, ids_of, without_images
from storage.tables.fold_log import DoneFold, folded_generations, newest_of_each
from storage.tables.query import query
from storage.tables.rows import reject_rows, shard_rows
from storage.tables.sql import are_shards
from storage.verification.differences import Place, differing_columns
from storage.verification.faults import RESTORE, Faults
from storage.verification.fold_log_checks import FoldLog

_REBUILD = "run `gigamask rebuild`: it makes the tables from the records"
_IDS_AT_ONCE = 50_000_000
"""Rows among which one query looks for ids that are there twice; the engine holds some 30 bytes for each."""
_OF_PARTS = ("images", "masks")
"""Tables whose rows come from the Parquet parts of shards; those of the others follow from the records alone."""
_WITH_GENERATION = ("masks", "shards")
"""Tables with a column `generation`."""

_Arguments = ParamSpec("_Arguments")


class TableChecks:
    """The checks of one fold's tables: `begin`, then `check_chunk` for all records, then `finish`."""

    def __init__(self, store: ObjectStore, faults: Faults, done: DoneFold, named: Collection[ShardAddress]) -> None:
        """Prepare the checks; `named` are the addresses of all records, readable or not."""
        self._store, self._faults, self._done, self._named = store, faults, done, set(named)
        self._folded: dict[Place, int] | None = None
        """Generation of each shard in the tables; None where that cannot be read."""
        self._counts: dict[str, dict[Place, int]] = {}
        """Rows of each shard, by table; a table whose rows cannot be counted is missing."""
        self._left_out: LeftOut | None = None
        """Content that stays out of the tables; None where it cannot be read."""
        self._touched: set[Place] = set()
        """Shards whose masks the record does not count: some are withdrawn, or are those of copies."""
        self._sha256: dict[ShardAddress, str] = {}
        """SHA-256 of each record that can be read."""

    def begin(self) -> None:
        """Read what the chunks are compared with, and find the rows that no record names."""
        self._read_state()
        if self._folded is not None:
            for name in self._done.versions:
                self._guarded(name, self._count_rows, name)

    def remember(self, records: Sequence[Commit]) -> None:
        """Note the hashes of records, which `finish` compares with the log of folds."""
        self._sha256 |= {record.address: record.record_sha256 for record in records}

    def check_chunk(self, records: Sequence[Commit], rows: Mapping[str, pa.Table], *, fast: bool) -> list[Commit]:
        """Compare the rows of some shards with their records and Parquet parts.

        Args:
            records: Commit records; those that are not in the tables are passed over.
            rows: Rows of parts that were read already, by key.
            fast: Whether to leave the values of `images` and `masks` unread.

        Returns:
            The records whose rows are as they should be; none where a fault was found in any of them.
        """
        folded = [each for each in records if (self._folded or {}).get(_place(each)) == each.generation]
        if not folded:
            return []
        before = self._faults.noted
        expected = self._expected_rows(folded, rows, fast=fast)
        for name in SCHEMAS:
            self._guarded(name, self._check_counts, name, folded, expected)
        self._guarded("shards", self._check_values, "shards", {each.address: shard_rows([each]) for each in folded})
        rejects = {each.address: reject_rows([each], self._duplicates) for each in folded}
        self._guarded("rejects", self._check_values, "rejects", rejects)
        for name in _OF_PARTS:
            own = {
                each.address: expected[each.address]
                for each in folded
                if each.kind.table == name and each.address in expected
            }
            if own and not fast:
                self._guarded(name, self._check_values, name, own)
        if not fast:
            self._guarded("annotations", self._check_values, "annotations", self._expected_annotations(folded, rows))
        if self._faults.noted > before:
            return []
        return [each for each in folded if not each.kind.table or each.address in expected]

    def finish(self, log: FoldLog) -> None:
        """Check what the log of folds says about the records that were seen, and about the tables as a whole."""
        if self._folded is not None:
            self._guarded("shards", self._check_taken, log)
            self._guarded("rejects", self._check_copies, log)
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

    def _read_state(self) -> None:
        """Read which shards are in the tables, and which masks are withdrawn."""
        with self._faults.guard(self._key("shards"), _REBUILD):
            self._folded = folded_generations(self._store, self._done)
            with self._faults.guard(self._key("masks"), "restore the named object of a withdrawal from a copy"):
                self._left_out = left_out(self._store, self._done)
                rows = self._left_out.withdrawn
                self._touched = set(zip(rows["plan"].to_pylist(), rows["shard"].to_pylist(), strict=True))
                self._touched |= {place for place in self._folded if "/".join(place) in self._duplicates}

    @property
    def _duplicates(self) -> Duplicates:
        return self._left_out.duplicates if self._left_out else {}

    def _count_rows(self, name: str) -> None:
        """Count the rows of each shard; they must be of a shard, and of a generation, that a record names."""
        columns = "plan, shard" + (", generation" if name in _WITH_GENERATION else "")
        answer = query(self._store, self._done, f"SELECT {columns}, count(*) AS n FROM {name} GROUP BY {columns}")
        counts: defaultdict[Place, int] = defaultdict(int)
        folded, lineages = self._folded or {}, {(address.plan_id, address.shard) for address in self._named}
        for row in answer.to_pylist():
            place = row["plan"], row["shard"]
            counts[place] += row["n"]
            address = ShardAddress(plan_id=row["plan"], shard=row["shard"], generation=row.get("generation", 0))
            if name in _WITH_GENERATION and address not in self._named and place in folded:
                self._note(name, f"{address}: rows of a generation that no record names")
        for place, number in counts.items():
            if place not in lineages:
                self._note(name, f"{place[0]}/{place[1]}: {number} rows, and no record names it")
            elif place not in folded:
                self._note(name, f"{place[0]}/{place[1]}: {number} rows, and `shards` has none of it")
        self._counts[name] = dict(counts)

    def _expected_rows(
        self, records: Sequence[Commit], rows: Mapping[str, pa.Table], *, fast: bool
    ) -> dict[ShardAddress, pa.Table]:
        """Collect the rows that shards bring into `images` or `masks`; a shard whose parts cannot be read is left out.

        With `fast`, only shards are read whose rows the record does not count: those with withdrawn masks.
        """
        expected: dict[ShardAddress, pa.Table] = {}
        for record in records:
            name, is_touched = record.kind.table, _place(record) in self._touched
            if name not in _OF_PARTS or (fast and not is_touched):
                continue
            if self._left_out is None:
                continue
            pieces = [self._rows_of_part(name, part, rows) for part in record.rows()]
            whole = [piece for piece in pieces if piece is not None]
            if len(whole) == len(pieces):
                joined = pa.concat_tables([SCHEMAS[name].empty_table(), *whole])
                expected[record.address] = rows_to_keep(record, joined, self._left_out)
        return expected

    def _expected_annotations(
        self, records: Sequence[Commit], rows: Mapping[str, pa.Table]
    ) -> dict[ShardAddress, pa.Table]:
        """Collect the rows that shards bring into `annotations`; a shard whose parts cannot be read is left out."""
        expected: dict[ShardAddress, pa.Table] = {}
        for record in records:
            pieces = [self._rows_of_part("annotations", part, rows) for part in record.annotations()]
            whole = [piece for piece in pieces if piece is not None]
            if pieces and len(whole) == len(pieces):
                erased = self._left_out.erased if self._left_out else ()
                expected[record.address] = without_images(pa.concat_tables(whole), erased)
        return expected

    def _rows_of_part(self, name: str, part: Part, rows: Mapping[str, pa.Table]) -> pa.Table | None:
        if part.key in self._faults.keys:
            return None
        with self._faults.guard(part.key, "restore the object from a copy, or redo the shard"):
            read = rows[part.key] if part.key in rows else contents.read_rows(self._store, part)
            return conform(read, SCHEMAS[name], part.key)
        return None

    def _check_counts(self, name: str, records: Sequence[Commit], parts: Mapping[ShardAddress, pa.Table]) -> None:
        """Each folded shard must have as many rows as its record counts, without the withdrawn masks."""
        if name not in self._counts or self._left_out is None:
            return
        for record in records:
            got, expected = self._counts[name].get(_place(record), 0), count_rows(name, [record], self._duplicates)
            if name == "masks" == record.kind.table and _place(record) in self._touched:
                if record.address not in parts:
                    continue
                expected = parts[record.address].num_rows
            if got != expected and self._left_out.erased:
                expected = self._count_unerased(name, record, expected)
            if got != expected:
                self._note(name, f"{record.address}: {got} rows, its record counts {expected}")

    def _count_unerased(self, name: str, record: Commit, counted: int) -> int:
        """Count the rows that a shard brings into a table, by reading them; `counted` where it brings none."""
        if name == "annotations":
            rows = self._expected_annotations([record], {})
        else:
            rows = self._expected_rows([record], {}, fast=False) if name == record.kind.table else {}
        return rows[record.address].num_rows if record.address in rows else counted

    def _check_values(self, name: str, expected: Mapping[ShardAddress, pa.Table]) -> None:
        """The rows of shards must be those of their records and Parquet parts, without the withdrawn masks."""
        if name not in self._counts or not any(rows.num_rows for rows in expected.values()):
            return  # rows that should not be there were noted when they were counted
        columns = SCHEMAS[name].names
        places = {(address.plan_id, address.shard): address for address in expected}
        sql = f"SELECT {', '.join(columns)} FROM {name} WHERE {are_shards(places)}"
        got = conform(query(self._store, self._done, sql), SCHEMAS[name], self._key(name))
        origin = "record" if name in ("shards", "rejects") else "Parquet parts"
        for place, differ in differing_columns(got, pa.concat_tables(expected.values())).items():
            self._note(name, f"{places[place]}: values differ from those of its {origin}: {', '.join(differ)}")

    def _check_taken(self, log: FoldLog) -> None:
        """Every record that a done fold took must be there, unchanged, and have a row in `shards`."""
        assert self._folded is not None
        for fold in log.applied():
            for folded in fold.records:
                address = ShardAddress.of_key(folded.key)
                if address not in self._named:
                    self._faults.note(folded.key, f"no such object, but fold {fold.number} took it", RESTORE)
                if self._sha256.get(address, folded.sha256) != folded.sha256:
                    self._faults.note(folded.key, f"changed after fold {fold.number} took it", RESTORE)
                if self._folded.get((address.plan_id, address.shard), -1) < address.generation:
                    self._note("shards", f"{address}: fold {fold.number} took it, and it has no row")

    def _check_copies(self, log: FoldLog) -> None:
        """The copies that the folds left out must be those in `rejects`."""
        if self._left_out is None or self._folded is None:
            return
        taken = (folded for fold in log.applied() for folded in fold.records if fold.action != "compact")
        for folded in newest_of_each(taken):
            place = folded.address.plan_id, folded.address.shard
            if folded.kept_out is None or self._folded.get(place) != folded.address.generation:
                continue
            if ids_of(folded.kept_out) != self._duplicates.get(folded.address.lineage, frozenset()):
                self._note("rejects", f"{folded.address}: other copies of images than its fold left out")

    def _check_once(self, name: str, columns: str) -> None:
        """No id may be there twice. Ids are hashes, so ranges of them hold about as many rows each."""
        rows = open_table(self._store, self._done.folder, name, self._done.versions[name]).count()
        passes, twice = 1 + rows // _IDS_AT_ONCE, 0
        ends = [2**63 * number // passes for number in range(passes + 1)]
        for start, stop in pairwise(ends):
            where = f"image_id BETWEEN {start} AND {stop - 1}" if passes > 1 else "true"
            sql = f"SELECT {columns} FROM {name} WHERE {where} GROUP BY {columns} HAVING count(*) > 1"
            twice += query(self._store, self._done, sql).num_rows
        if twice:
            advice = f"{_REBUILD}; if they stay, two plans hold them"
            self._faults.note(self._key(name), f"{twice} {name} are there more than once", advice)

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


def _place(record: Commit) -> Place:
    return record.plan_id, record.shard
