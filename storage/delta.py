"""The Delta tables themselves: created, opened at a version, changed exactly once for a transaction number."""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

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

from storage import tables
from storage.commits import Commit
from storage.stores import Corrupt, ObjectStore, StoreError

Change = Callable[[DeltaTable, CommitProperties], None]

FIRST_FOLDER = "tables"
_APPLICATION = "fold"
_TRIES = 8
_READ_TRIES = 4
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_T = TypeVar("_T")
# Snapshots read old versions of the tables for ever, so the library must not expire their logs after its 30 days.
_TABLE_SETTINGS = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "10",  # a reader replays the log since then: 26 ms at version 95 with the library's 100
}
_WRITER = WriterProperties(compression="ZSTD")
_AFTER_COMMIT = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


def create_tables(store: ObjectStore, folder: str) -> dict[str, int]:
    """The four empty tables, with their versions; harmless to repeat. Raises StoreError."""
    return {name: _create_table(store, store.table_uri(folder, name), name) for name in tables.SCHEMAS}


def _create_table(store: ObjectStore, uri: str, name: str) -> int:
    """Of several creators at a time one creates; the others lose a race once and then find the table."""
    for attempt in range(_TRIES):
        try:
            table = DeltaTable.create(
                uri,
                tables.SCHEMAS[name],
                mode="ignore",
                configuration=_TABLE_SETTINGS,
                storage_options=store.table_options(),
            )
            return table.version()
        except (DeltaError, OSError) as error:
            if isinstance(error, CommitFailedError) and attempt < _TRIES - 1:
                continue
            raise StoreError(f"{uri}: the table could not be created ({one_line(error)})") from error
    raise AssertionError("the last try returns or raises")


def open_table(store: ObjectStore, folder: str, name: str, version: int | None = None) -> DeltaTable:
    """A table at one version; None means the newest, which is for writers alone. Raises Corrupt, StoreError."""
    uri = store.table_uri(folder, name)
    try:
        return try_again(lambda: DeltaTable(uri, version=version, storage_options=store.table_options()))
    except DeltaError as error:
        at = "" if version is None else f" at version {version}"
        raise Corrupt(f"{uri}: cannot be opened{at} ({one_line(error)}); run `gigamask verify`") from error
    except OSError as error:
        raise StoreError(f"{uri}: cannot be read ({one_line(error)}); run the command again") from error


def change_once(store: ObjectStore, folder: str, name: str, number: int, change: Change | None) -> int:
    """Applies a change under a transaction number unless that is there already; gives the table's version after it.

    The change is written from the very handle in which the number was found absent, without rebasing: where another
    process was faster it fails and the table is looked at again. None changes nothing. Raises StoreError.
    """
    for attempt in range(_TRIES):
        table = open_table(store, folder, name)
        if change is None or (table.transaction_version(_APPLICATION) or 0) >= number:
            return table.version()
        once = CommitProperties(app_transactions=[Transaction(_APPLICATION, number)], max_commit_retries=0)
        try:
            change(table, once)
        except (DeltaError, OSError) as error:
            # Another process was faster, or an answer was lost: the table itself knows. A full disk stays full.
            if not isinstance(error, CommitFailedError) and attempt + 1 >= _READ_TRIES:
                uri = store.table_uri(folder, name)
                raise StoreError(f"{uri}: fold {number} could not be written ({one_line(error)})") from error
            time.sleep(0.05 * 2**attempt)
        else:
            return table.version()
    uri = store.table_uri(folder, name)
    raise StoreError(f"{uri}: {_TRIES} writes of fold {number} met other writers; run the command again")


def change_unshared(store: ObjectStore, folder: str, name: str, change: Change | None) -> int:
    """Applies a change to a table that no other process knows yet; gives its version. Raises StoreError."""
    table = open_table(store, folder, name)
    if change is not None:
        try:
            change(table, CommitProperties())
        except (DeltaError, OSError) as error:
            raise StoreError(f"{store.table_uri(folder, name)}: could not be written ({one_line(error)})") from error
    return table.version()


def appending(rows: pa.Table) -> Change | None:
    """Adds rows; no rows change nothing."""
    return partial(_write, rows=rows, replaced=None) if rows.num_rows else None


def replacing(rows: pa.Table, commits: Sequence[Commit]) -> Change:
    """Puts rows in the place of all rows of these shards, in one version of the table."""
    shards = (f"(plan = '{commit.plan_id}' AND shard = '{commit.shard}')" for commit in commits)
    return partial(_write, rows=rows, replaced=" OR ".join(shards))


def subtracting(pairs: pa.Table) -> Change:
    """Deletes the masks of these (image_id, mask_id)."""

    def subtract(table: DeltaTable, once: CommitProperties) -> None:
        same = "target.image_id = source.image_id AND target.mask_id = source.mask_id"
        merger = table.merge(
            pairs.select(["image_id", "mask_id"]),
            same,
            source_alias="source",
            target_alias="target",
            writer_properties=_WRITER,
            commit_properties=once,
            post_commithook_properties=_AFTER_COMMIT,
        )
        merger.when_matched_delete().execute()

    return subtract


def try_again(read: Callable[[], _T]) -> _T:
    """Reads, again where the store failed: the library retries requests but not answers that break off half-way."""
    for attempt in range(_READ_TRIES - 1):
        try:
            return read()
        except (DeltaError, OSError) as error:
            if not is_of_store(error):
                raise
            time.sleep(0.1 * 2**attempt)
    return read()


def is_of_store(error: Exception) -> bool:
    """Whether an error of the Delta library comes from reading bytes, and not from what they say."""
    return isinstance(error, OSError) or "object store error" in str(error).lower()


def one_line(error: Exception) -> str:
    """The message without line breaks and colours."""
    return " ".join(_COLOURS.sub("", str(error)).split())


def _write(table: DeltaTable, properties: CommitProperties, *, rows: pa.Table, replaced: str | None) -> None:
    write = partial(
        write_deltalake,
        table,
        rows.combine_chunks(),  # several chunks are written side by side, in whatever order they finish
        writer_properties=_WRITER,
        commit_properties=properties,
        post_commithook_properties=_AFTER_COMMIT,
    )
    if replaced is None:
        write(mode="append")
    else:
        write(mode="overwrite", predicate=replaced)
