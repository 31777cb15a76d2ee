"""Read-only SQL over the tables of one fold, on disk or S3, with the DataFusion engine of the Delta library."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from storage.errors import Corrupt, InvalidInput, StoreError
from storage.objects.stores import ObjectStore
from storage.tables.columns import SCHEMAS
from storage.tables.delta import is_of_store, one_line, open_table, try_again
from storage.tables.read_only import Refused, check_is_condition, check_reads, read_batches, tables_there
from storage.tables.views import TABLES_OF_VIEWS, VIEWS


class TablesState(Protocol):
    """Part of a done fold that a query needs: the folder and the versions of the tables."""

    @property
    def folder(self) -> str:
        """Folder of the tables within the dataset."""
        ...

    @property
    def versions(self) -> Mapping[str, int]:
        """Version of each table."""
        ...


def query(store: ObjectStore, done: TablesState, sql: str) -> pa.Table:
    """Answer one SQL statement that only reads. The columns of the result have plain Arrow types.

    Raises:
        ValueError: The statement is wrong or would not only read; the message is one line.
        StoreError: The tables cannot be read.
    """
    return _query(store, done, sql, check=check_reads)


def query_own(store: ObjectStore, done: TablesState, sql: str) -> pa.Table:
    """Answer a statement that this package wrote and no user had a part in.

    It is not checked, which saves planning it twice: 1 to 4 ms.

    Raises:
        StoreError: The tables cannot be read.
    """
    return _query(store, done, sql, check=None)


def stream(store: ObjectStore, done: TablesState, sql: str) -> pa.RecordBatchReader:
    """Answer one SQL statement that only reads, batch by batch, for a result that may not fit into memory.

    Raises:
        ValueError: The statement is wrong or would not only read; the message is one line.
        StoreError: The tables cannot be read, now or while the batches are read.
    """
    try:
        builder = _builder(store, done, sql)
        check_reads(builder, sql)
        batches = read_batches(builder, sql)
    except (StoreError, Refused):
        raise
    except Exception as error:  # as above
        _opened.cache_clear()  # as in _answer
        raise _telling(store, error) from error
    schema = _plain_schema(batches.schema)

    def plain_batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                yield batch.cast(schema)
        except Exception as error:  # as above
            _opened.cache_clear()
            raise _telling(store, error) from error

    return pa.RecordBatchReader.from_batches(schema, plain_batches())


def stream_masks(store: ObjectStore, done: TablesState, columns: Sequence[str], condition: str) -> pa.RecordBatchReader:
    """Stream the given columns of the table `masks`, for the rows where the SQL condition of a user holds.

    Raises:
        ValueError: The condition is wrong, or the text is not a single condition.
        StoreError: The tables cannot be read, now or while the batches are read.
    """
    try:
        check_is_condition(_builder(store, done, f"masks {condition}"), condition, "masks")
    except (StoreError, Refused):
        raise
    except Exception as error:  # as above
        _opened.cache_clear()
        raise _telling(store, error) from error
    return stream(store, done, f"SELECT {', '.join(columns)} FROM masks WHERE ({condition}\n)")


def _query(
    store: ObjectStore, done: TablesState, sql: str, *, check: Callable[[QueryBuilder, str], None] | None
) -> pa.Table:
    try:
        answer = try_again(lambda: _answer(store, done, sql, check=check))
    except (StoreError, Refused):
        raise
    except Exception as error:  # the library's own class derives from nothing more telling
        raise _telling(store, error) from error
    return answer.cast(_plain_schema(answer.schema))


def _answer(
    store: ObjectStore, done: TablesState, sql: str, *, check: Callable[[QueryBuilder, str], None] | None
) -> pa.Table:
    try:
        builder = _builder(store, done, sql)
        if check is not None:
            check(builder, sql)
        return read_batches(builder, sql).read_all()
    except Refused:
        raise
    except Exception:
        _opened.cache_clear()  # so that a further try opens the tables again
        raise


def _builder(store: ObjectStore, done: TablesState, sql: str) -> QueryBuilder:
    """Make a query builder that has the tables and views named in the statement."""
    builder = QueryBuilder()
    named = {name for name in (*SCHEMAS, *VIEWS) if re.search(rf"\b{name}\b", sql, re.IGNORECASE)}
    views = named & VIEWS.keys()
    for name in (named | TABLES_OF_VIEWS if views else named) & done.versions.keys():
        builder.register(name, _opened(store, done.folder, name, done.versions[name]))  # type: ignore[arg-type]
    for name in views:
        read_batches(builder, VIEWS[name].statement(name)).read_all()
    return builder


@lru_cache(maxsize=20)  # five tables of four states: a version never changes, and reading its log takes milliseconds
def _opened(store: ObjectStore, folder: str, name: str, version: int) -> DeltaTable:
    return open_table(store, folder, name, version)


def _telling(store: ObjectStore, error: Exception) -> Exception:
    """Make the error that tells, in one line, whether the store or the statement is at fault."""
    if is_of_store(error) and "not found" in str(error):
        return Corrupt(f"{store.uri}: a file of the tables is missing ({one_line(error)}); run `gigamask verify`")
    if is_of_store(error):
        return StoreError(f"{store.uri}: the tables cannot be read ({one_line(error)}); try again")
    return InvalidInput(f"SQL: {one_line(error).rstrip('.')}; {tables_there()}")  # the engine lists the known columns


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(_plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type for the same values that every reader of Arrow and Parquet knows."""
    if kind == pa.string_view() or pa.types.is_dictionary(kind):
        return pa.string()
    return pa.binary() if kind == pa.binary_view() else kind
