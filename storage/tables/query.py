"""SQL over the tables of one fold: DataFusion, as it comes with the Delta library, on disk and S3 alike; read-only."""

import re
from collections.abc import Iterator
from functools import lru_cache

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from storage.errors import Corrupt, StoreError
from storage.objects.stores import ObjectStore
from storage.tables.columns import SCHEMAS
from storage.tables.delta import is_of_store, one_line, open_table, try_again
from storage.tables.fold_log import DoneFold

_READING = ("SELECT", "WITH", "VALUES", "EXPLAIN", "DESCRIBE")
_WRITING = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|COPY|CREATE|DROP|ALTER|TRUNCATE)\b", re.IGNORECASE)
_QUOTED_OR_COMMENT = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)


def query(store: ObjectStore, done: DoneFold, sql: str) -> pa.Table:
    """The answer, with plain Arrow types. Raises ValueError, in one line, for SQL that is wrong or would write."""
    _check_reads(sql)
    try:
        answer = try_again(lambda: _answer(store, done, sql))
    except StoreError:
        raise
    except Exception as error:  # the library's own class derives from nothing more telling
        raise _telling(store, error) from error
    return answer.cast(_plain_schema(answer.schema))


def stream(store: ObjectStore, done: DoneFold, sql: str) -> pa.RecordBatchReader:
    """The answer batch by batch, for one that memory may not hold. Raises as `query` does, StoreError also later."""
    _check_reads(sql)
    try:
        batches = pa.RecordBatchReader.from_stream(_builder(store, done, sql).execute(sql))
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


def _answer(store: ObjectStore, done: DoneFold, sql: str) -> pa.Table:
    try:
        return pa.table(_builder(store, done, sql).execute(sql).read_all())
    except Exception:
        _opened.cache_clear()  # a further try looks whether the tables are still what they were
        raise


def _builder(store: ObjectStore, done: DoneFold, sql: str) -> QueryBuilder:
    """With the tables that the statement speaks of."""
    builder = QueryBuilder()
    for name in SCHEMAS:
        if re.search(rf"\b{name}\b", sql, re.IGNORECASE):
            builder.register(name, _opened(store, done.folder, name, done.versions[name]))  # type: ignore[arg-type]
    return builder


@lru_cache(maxsize=16)  # four tables of four states: a version never changes, and reading its log takes milliseconds
def _opened(store: ObjectStore, folder: str, name: str, version: int) -> DeltaTable:
    return open_table(store, folder, name, version)


def _telling(store: ObjectStore, error: Exception) -> Exception:
    """The store's fault or the statement's, in one line."""
    if is_of_store(error) and "not found" in str(error):
        return Corrupt(f"{store.uri}: a file of the tables is missing ({one_line(error)}); run `gigamask verify`")
    if is_of_store(error):
        return StoreError(f"{store.uri}: the tables cannot be read ({one_line(error)}); try again")
    return ValueError(_explain(one_line(error)))


def _check_reads(sql: str) -> None:
    bare = _QUOTED_OR_COMMENT.sub(" ", sql).strip().lstrip("( ")
    first = bare.split(None, 1)[0].upper() if bare else ""
    writing = _WRITING.search(bare)
    if first not in _READING or writing:
        got = writing.group().upper() if writing else first or "nothing"
        raise ValueError(f"SQL: got {got}, a dataset is read with SELECT; {_tables()}")


def _explain(message: str) -> str:
    """One line; for an unknown column the library lists those there are."""
    return f"SQL: {message.rstrip('.')}; {_tables()}"


def _tables() -> str:
    return f"tables are {', '.join(SCHEMAS)} (`DESCRIBE masks` lists the columns of one)"


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(_plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type every reader of Arrow and Parquet knows."""
    if kind == pa.string_view() or pa.types.is_dictionary(kind):
        return pa.string()
    return pa.binary() if kind == pa.binary_view() else kind
