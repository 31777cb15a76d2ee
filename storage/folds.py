"""Folding: commit records become table rows, each exactly once, and the four tables change together.

`folds/<n>.json` (put-if-absent) lists the records fold n takes. Any process may then apply it: to each table one
transaction (application "fold", version n), written from the very handle in which it was found absent, so that a
second one fails instead of doubling. `folds/<n>.done.json` records the four table versions; only then can n + 1 begin.
Readers open the highest done fold and never a table's newest version. A process that dies anywhere in between leaves
work that the next one completes.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError

from storage import contents, tables
from storage.commits import (
    FORMAT,
    Commit,
    CommitName,
    corrupt_where_malformed,
    json_bytes,
    list_commits,
    newest_generations,
    read_commit_at,
    read_json,
)
from storage.stores import Conflict, Corrupt, ObjectStore, StoreError

_APPLICATION = "fold"
_MOST_RECORDS = 1024  # records one fold takes, and
_MOST_MASKS = 1_000_000  # mask rows, which lie in memory (measured: 0.5 kB each) while they are written
_TRIES = 8
# Snapshots read old versions of the tables for ever, so the library must not expire their logs after its 30 days.
_TABLE_SETTINGS = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.enableExpiredLogCleanup": "false",
}
_WRITER = WriterProperties(compression="ZSTD")
_AFTER_COMMIT = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


@dataclass(frozen=True, kw_only=True)
class FoldedRecord:
    """A commit record that a fold takes."""

    key: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What `folds/<n>.json` says. `replaces`: its shards are newer generations of shards already in the tables."""

    number: int
    replaces: bool
    records: tuple[FoldedRecord, ...]


@dataclass(frozen=True, kw_only=True)
class DoneFold:
    """What `folds/<n>.done.json` says: the version of each table that agrees with the others."""

    number: int
    versions: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class FoldReport:
    """What one call of `fold` did: folds completed, records taken, and the fold readers now see."""

    folds: int
    records: int
    newest: int


def create_tables(store: ObjectStore) -> None:
    """The four empty tables and fold 0; harmless to repeat."""
    versions = {}
    for name, schema in tables.SCHEMAS.items():
        table = DeltaTable.create(
            store.table_uri(name),
            schema=schema,
            mode="ignore",
            configuration=_TABLE_SETTINGS,
            storage_options=store.table_options(),
        )
        versions[name] = table.version()
    with suppress(Conflict):
        _put_done(store, DoneFold(number=0, versions=versions))


def newest_done(store: ObjectStore) -> DoneFold:
    """The fold that readers open. Raises Corrupt where there is none."""
    done = [key for key in store.list("folds/") if key.endswith(".done.json")]
    if not done:
        raise Corrupt(f"{store.uri}: folds/ holds no finished fold; the dataset was copied in part, copy it again")
    return read_done(store, int(done[-1].removeprefix("folds/").removesuffix(".done.json")))


def read_done(store: ObjectStore, number: int) -> DoneFold:
    """Raises NotFound, Corrupt."""
    key = _done_key(number)
    fields = read_json(store.get(key), f"{store.uri}/{key}")
    with corrupt_where_malformed(f"{store.uri}/{key}"):
        return DoneFold(number=fields["number"], versions={name: fields["versions"][name] for name in tables.SCHEMAS})


def open_table(store: ObjectStore, name: str, version: int | None = None) -> DeltaTable:
    """A table at one version; None means the newest, which is for the folder alone. Raises StoreError."""
    try:
        return DeltaTable(store.table_uri(name), version=version, storage_options=store.table_options())
    except DeltaError as error:
        raise Corrupt(f"{store.table_uri(name)}: version {version} cannot be opened ({_line(error)})") from error


def fold(store: ObjectStore, *, before_step: Callable[[str], None] = lambda step: None) -> FoldReport:
    """Completes an unfinished fold, then folds all records not yet taken; safe beside other folders.

    `before_step` is called with the name of each step about to be taken: a place for tests to die in.
    """
    folds = records = 0
    done = newest_done(store)
    while (current := _next_fold(store, done, before_step)) is not None:
        commits = [_checked_record(store, record) for record in current.records]
        versions = {}
        for name in tables.SCHEMAS:
            before_step(f"apply {name}")
            versions[name] = _apply(store, name, current, commits)
        before_step("done")
        with suppress(Conflict):
            _put_done(store, DoneFold(number=current.number, versions=versions))
        done = read_done(store, current.number)
        folds, records = folds + 1, records + len(commits)
    return FoldReport(folds=folds, records=records, newest=done.number)


def _next_fold(store: ObjectStore, done: DoneFold, before_step: Callable[[str], None]) -> Fold | None:
    """The fold after `done`: the one already begun, or a new one over records not yet taken; None if there are none."""
    number = done.number + 1
    key = _fold_key(number)
    if key not in store.list(key):
        planned = _plan_fold(store, done)
        if planned is None:
            return None
        before_step("plan")
        with suppress(Conflict):
            store.put_if_absent(key, json_bytes({"format": FORMAT, **asdict(planned), "created_at": _now()}))
    fields = read_json(store.get(key), f"{store.uri}/{key}")
    with corrupt_where_malformed(f"{store.uri}/{key}"):
        records = tuple(FoldedRecord(**record) for record in fields["records"])
        return Fold(number=fields["number"], replaces=fields["replaces"], records=records)


def _plan_fold(store: ObjectStore, done: DoneFold) -> Fold | None:
    taken = folded_generations(store, done)
    names = newest_generations(list_commits(store))
    fresh = [name for name in names if (name.plan_id, name.shard) not in taken]
    redone = [name for name in names if name.generation > taken.get((name.plan_id, name.shard), name.generation)]
    records = _within_limits(store, fresh or redone)
    if not records:
        return None
    return Fold(number=done.number + 1, replaces=not fresh, records=records)


def folded_generations(store: ObjectStore, done: DoneFold) -> dict[tuple[str, str], int]:
    """(plan, shard) -> generation in the tables. `shards` has a row for every record taken: it is the list of them."""
    rows = open_table(store, "shards", done.versions["shards"]).to_pyarrow_table(
        columns=["plan", "shard", "generation"]
    )
    plans, shards, generations = (rows.column(name).to_pylist() for name in ("plan", "shard", "generation"))
    return {(plan, shard): generation for plan, shard, generation in zip(plans, shards, generations, strict=True)}


def _within_limits(store: ObjectStore, names: Sequence[CommitName]) -> tuple[FoldedRecord, ...]:
    records: list[FoldedRecord] = []
    masks = 0
    for name in names[:_MOST_RECORDS]:
        commit = read_commit_at(store, name.key)
        masks += commit.masks
        if records and masks > _MOST_MASKS:
            break
        records.append(FoldedRecord(key=name.key, sha256=commit.record_sha256))
    return tuple(records)


def _checked_record(store: ObjectStore, record: FoldedRecord) -> Commit:
    commit = read_commit_at(store, record.key)
    if commit.record_sha256 != record.sha256:
        raise Corrupt(f"{store.uri}/{record.key}: changed after it was folded; restore it from a copy")
    return commit


def _apply(store: ObjectStore, name: str, current: Fold, commits: Sequence[Commit]) -> int:
    """One table's part of a fold, unless it is already there; gives the table's version after it."""
    rows: pa.Table | None = None
    for attempt in range(_TRIES):
        table = open_table(store, name)
        if (table.transaction_version(_APPLICATION) or 0) >= current.number:
            return table.version()
        rows = _rows(store, name, commits) if rows is None else rows
        if not rows.num_rows and not current.replaces:
            return table.version()
        try:
            _write(table, rows, current, commits)
        except CommitFailedError:  # another folder was faster: look again
            time.sleep(0.05 * 2**attempt)
        except DeltaError as error:
            raise StoreError(f"{store.table_uri(name)}: fold {current.number} failed ({_line(error)})") from error
        else:
            return table.version()
    raise StoreError(f"{store.table_uri(name)}: {_TRIES} writes met other writers; run the command again")


def _write(table: DeltaTable, rows: pa.Table, current: Fold, commits: Sequence[Commit]) -> None:
    once = CommitProperties(app_transactions=[Transaction(_APPLICATION, current.number)], max_commit_retries=0)
    write = partial(
        write_deltalake,
        table,
        rows,
        writer_properties=_WRITER,
        commit_properties=once,
        post_commithook_properties=_AFTER_COMMIT,
    )
    if current.replaces:
        write(mode="overwrite", predicate=_of_shards(commits))
    else:
        write(mode="append")


def _rows(store: ObjectStore, name: str, commits: Sequence[Commit]) -> pa.Table:
    """What these records add to a table, by plan and shard."""
    ordered = sorted(commits, key=lambda commit: (commit.plan_id, commit.shard))
    if name == "shards":
        return tables.shard_rows(ordered)
    if name == "rejects":
        return tables.reject_rows(ordered)
    parts = [part for commit in ordered if commit.kind == name for part in commit.rows()]
    schema = tables.SCHEMAS[name]
    return pa.concat_tables([schema.empty_table(), *(contents.read_rows(store, part).cast(schema) for part in parts)])


def _of_shards(commits: Iterable[Commit]) -> str:
    shards = (f"(plan = '{commit.plan_id}' AND shard = '{commit.shard}')" for commit in commits)
    return " OR ".join(shards)


def _put_done(store: ObjectStore, done: DoneFold) -> None:
    store.put_if_absent(_done_key(done.number), json_bytes({"format": FORMAT, **asdict(done), "created_at": _now()}))


def _fold_key(number: int) -> str:
    return f"folds/{number:08d}.json"


def _done_key(number: int) -> str:
    return f"folds/{number:08d}.done.json"


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
