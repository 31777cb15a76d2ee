"""Delta tables: create them, open them at a version, change them exactly once per transaction number."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import pyarrow as pa
from deltalake import (
    BloomFilterProperties,
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError

from storage.errors import Corrupt, StoreError
from storage.objects.stores import ObjectStore
from storage.tables import durability
from storage.tables.columns import SCHEMAS, compact, conform
from storage.tables.sql import are_shards

Change = Callable[[DeltaTable, CommitProperties], None]
"""Function that changes a table in one commit with the given properties."""
Rows = Callable[[], Iterable[pa.Table]]
"""Function that reads rows piece by piece, from the start for each try, so that a fold need not fit into memory."""

FIRST_FOLDER = "tables"
"""Folder of the tables until the first rebuild."""
_APPLICATION = "fold"
"""Application id of the Delta transactions; their versions are fold numbers."""
_TRIES = 8
"""Most attempts to write while other processes write the same table."""
_READ_TRIES = 4
"""Most attempts while the store itself fails."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_T = TypeVar("_T")
# Snapshots read old versions of the tables for ever, so the library must not expire logs after its default of 30 days.
_TABLE_SETTINGS = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.enableExpiredLogCleanup": "false",
}
_FILE_BYTES = 128 << 20
"""Bytes of a table file, about 5 million masks; a query spends about 0.7 ms on each file that it opens."""
_MAX_IMAGES_NAMED = 10_000
"""Largest number of images that a condition names."""
_BATCH_ROWS = 1 << 17
"""Rows of a batch; each of the few batches in memory takes half a kilobyte per row."""
# Bloom filters find the rows of an image, which can lie anywhere, without reading the ids of all other rows. A filter
# shrinks to the number of ids that it holds; a row group has at most a million.
_BLOOM = ColumnProperties(bloom_filter_properties=BloomFilterProperties(True, fpp=0.01, ndv=1 << 20))
_WRITER = WriterProperties(compression="ZSTD", column_properties={"image_id": _BLOOM})
_AFTER_COMMIT = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)  # see durability.py


def create_tables(store: ObjectStore, folder: str) -> dict[str, int]:
    """Create the five empty tables, and return the version of each. Calling this again does no harm.

    Raises:
        StoreError: A table could not be created.
    """
    return {name: _create_table(store, store.table_uri(folder, name), name) for name in SCHEMAS}


def add_table(store: ObjectStore, folder: str, name: str) -> int:
    """Add a table to a dataset of an earlier version, and return its first version, which is durable from then on.

    Calling this again does no harm.

    Raises:
        StoreError: The table could not be created.
    """
    durability.remove_torn_log(store, folder, name, -1)  # of an earlier call that a power cut ended
    _create_table(store, store.table_uri(folder, name), name)
    durability.publish_version(store, folder, name, -1, open_table(store, folder, name, 0))
    return 0


def _create_table(store: ObjectStore, uri: str, name: str) -> int:
    """Create one table; if several processes try at once, one creates it and the others find it at their next try."""
    for attempt in range(_TRIES):
        try:
            table = DeltaTable.create(
                uri,
                SCHEMAS[name],
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
    """Open a table at one version.

    Args:
        store: The store of the dataset.
        folder: Folder of the tables.
        name: Name of the table.
        version: The version; None for the newest, which only writers may use.

    Raises:
        Corrupt: The table cannot be opened at this version.
        StoreError: The store fails.
    """
    uri = store.table_uri(folder, name)
    try:
        return try_again(lambda: DeltaTable(uri, version=version, storage_options=store.table_options()))
    except DeltaError as error:
        at = "" if version is None else f" at version {version}"
        raise Corrupt(f"{uri}: cannot be opened{at} ({one_line(error)}); run `gigamask verify`") from error
    except OSError as error:
        raise StoreError(f"{uri}: cannot be read ({one_line(error)}); run the command again") from error


class Overtaken(Exception):
    """Failure to change a table, because another process finished the fold in the meantime.

    Newer versions of the tables may therefore belong to later folds.
    """


def change_once(
    store: ObjectStore,
    folder: str,
    name: str,
    number: int,
    change: Change | None,
    *,
    since: int,
    is_done: Callable[[], bool],
) -> int:
    """Apply the change of a fold to a table, unless the table has the transaction number of the fold already.

    The change is written, without rebasing, on the version in which the number was absent. If another process was
    faster, the write fails, and the table is opened and checked again.

    Args:
        store: The dataset's store.
        folder: Folder of the tables.
        name: Name of the table.
        number: Transaction number: that of the fold.
        change: The change; None changes nothing.
        since: Version that the previous fold published. Newer versions that a power cut tore are taken back.
        is_done: Tells whether the done file of the fold exists by now; if it exists, nothing is taken back.

    Returns:
        The table's version after the change.

    Raises:
        Corrupt: The table cannot be opened, or is older than `since`.
        StoreError: The change could not be written.
        Overtaken: A newer version is torn, but the fold is done.
    """
    for attempt in range(_TRIES):
        table = _open_whole(store, folder, name, since, number, is_done)
        if table is None:
            continue
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


def _open_whole(
    store: ObjectStore, folder: str, name: str, since: int, number: int, is_done: Callable[[], bool]
) -> DeltaTable | None:
    """Open the newest version of a table; None if that was torn and was taken back, by this process or another one.

    Taking a version back makes a further version: the table as it was at `since`, under the number of the fold before.
    """
    try:
        table = open_table(store, folder, name)
    except Corrupt:
        if is_done():
            raise Overtaken from None
        if durability.remove_torn_log(store, folder, name, since):
            return None
        raise
    if table.version() < since:
        uri = store.table_uri(folder, name)
        raise Corrupt(
            f"{uri}: is at version {table.version()}, but fold {number - 1} published {since}; run `gigamask rebuild`"
        )
    if not durability.torn_files(store, folder, name, since, table):
        return table
    if is_done():
        raise Overtaken
    before = CommitProperties(app_transactions=[Transaction(_APPLICATION, number - 1)], max_commit_retries=0)
    try:
        table.restore(since, commit_properties=before, post_commithook_properties=_AFTER_COMMIT)
    except CommitFailedError:
        pass  # another process was faster
    except (DeltaError, OSError) as error:
        uri = store.table_uri(folder, name)
        raise StoreError(f"{uri}: what a power cut tore could not be taken back ({one_line(error)})") from error
    return None


def change_unshared(store: ObjectStore, folder: str, name: str, change: Change | None) -> int:
    """Apply a change to a table that is not published yet, and return the version of the table.

    A `change` of None changes nothing.

    Raises:
        StoreError: The change could not be written.
    """
    table = open_table(store, folder, name)
    if change is not None:
        try:
            change(table, CommitProperties())
        except (DeltaError, OSError) as error:
            raise StoreError(f"{store.table_uri(folder, name)}: could not be written ({one_line(error)})") from error
    return table.version()


def take_back_unshared(store: ObjectStore, folder: str, name: str, version: int) -> int:
    """Give a table that is not published yet the content of an earlier version, and return the version it now has.

    Raises:
        StoreError: The change could not be written.
    """
    table = open_table(store, folder, name)
    if table.version() != version:
        try:
            table.restore(version, post_commithook_properties=_AFTER_COMMIT)
        except (DeltaError, OSError) as error:
            raise StoreError(f"{store.table_uri(folder, name)}: could not be written ({one_line(error)})") from error
    return open_table(store, folder, name).version()


def appending(name: str, rows: Rows) -> Change:
    """Make the change that appends rows to a table."""
    return lambda table, properties: _write(table, properties, name, rows, None)


def replacing(name: str, rows: Rows, shards: Iterable[tuple[str, str]]) -> Change:
    """Make the change that replaces all rows of some shards, in one version of the table.

    Args:
        name: Name of the table.
        rows: The new rows.
        shards: Pairs (plan, shard) whose old rows are removed.
    """
    where = are_shards(shards)
    return lambda table, properties: _write(table, properties, name, rows, where)


def deleting_images(image_ids: Sequence[int]) -> Change:
    """Make the change that deletes all rows of some images, at least one."""
    delete = _delete_matches if len(image_ids) > _MAX_IMAGES_NAMED else _delete_named
    return lambda table, properties: delete(table, properties, image_ids)


def _delete_named(table: DeltaTable, properties: CommitProperties, image_ids: Sequence[int]) -> None:
    where = f"image_id IN ({', '.join(map(str, image_ids))})"
    table.delete(
        where, writer_properties=_WRITER, commit_properties=properties, post_commithook_properties=_AFTER_COMMIT
    )


def _delete_matches(table: DeltaTable, properties: CommitProperties, image_ids: Sequence[int]) -> None:
    """Delete the rows of many images: a condition with 50,000 of them overflows the engine's stack.

    The files that are written anew are in no order, so that queries skip fewer of their rows, until a rebuild.
    """
    matches = table.merge(
        pa.table({"image_id": pa.array(image_ids, pa.int64())}),
        "rows.image_id = gone.image_id",
        source_alias="gone",
        target_alias="rows",
        writer_properties=_WRITER,
        commit_properties=properties,
        post_commithook_properties=_AFTER_COMMIT,
    )
    matches.when_matched_delete().execute()


def try_again(read: Callable[[], _T]) -> _T:
    """Call `read`, and call it again if the store fails.

    The Delta library itself repeats failed requests, but not responses that break off.
    """
    for attempt in range(_READ_TRIES - 1):
        try:
            return read()
        except (DeltaError, OSError) as error:
            if not is_of_store(error):
                raise
            time.sleep(0.1 * 2**attempt)
    return read()


def is_of_store(error: Exception) -> bool:
    """Whether an error of the Delta library comes from reading bytes, rather than from the content of the bytes."""
    return isinstance(error, OSError) or "object store error" in str(error).lower()


def one_line(error: BaseException) -> str:
    """Return the message of an error without line breaks and colours."""
    return " ".join(_COLOURS.sub("", str(error)).split())


def _write(table: DeltaTable, properties: CommitProperties, name: str, rows: Rows, replaced: str | None) -> None:
    """Append rows to a table, or replace the rows for which the condition `replaced` holds.

    Errors of reading the rows keep their class.
    """
    failures: list[Exception] = []
    schema = compact(SCHEMAS[name])
    columns = {column.name for column in table.schema().fields}

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from _batches(rows(), schema)
        except Exception as error:  # passing through the library it would lose its class
            failures.append(error)
            raise

    write = partial(
        write_deltalake,
        table,
        pa.RecordBatchReader.from_batches(schema, batches()),
        target_file_size=_FILE_BYTES,
        writer_properties=_WRITER,
        commit_properties=properties,
        post_commithook_properties=_AFTER_COMMIT,
        schema_mode=None if set(schema.names) <= columns else "merge",  # an earlier version made the table
    )
    try:
        if replaced is None:
            write(mode="append")
        else:
            write(mode="overwrite", predicate=replaced)
    except (DeltaError, OSError):
        if failures:
            raise failures[0] from None
        raise


def _batches(pieces: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Merge the rows of several shards into one batch: batches are written in any order, but a batch stays together."""
    held: list[pa.Table] = []
    for piece in pieces:
        held.append(conform(piece, schema, "rows of a commit record"))
        if sum(each.num_rows for each in held) >= _BATCH_ROWS:
            yield from pa.concat_tables(held).combine_chunks().to_batches()
            held = []
    if held:
        yield from pa.concat_tables(held).combine_chunks().to_batches()
