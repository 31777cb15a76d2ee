"""Backup of a workspace in one file, and its restoration, on the same or on the other database system.

The file is gzipped JSON lines: a header, every row of every table, and an end line with the number of rows. It is one
consistent state, taken while annotators go on working.
"""

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, func, insert, select, text

from storage.errors import Conflict, Corrupt, StoreError
from storage.workspace.database import Database, connect
from storage.workspace.migrate import migrate, migrate_to, schema_of

FORMAT = 1
"""Version of the file's format."""
_VERSION_TABLE = "alembic_version"
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class Backup:
    """Content of a backup file."""

    schema: str
    """Revision of the schema."""
    rows: int
    """Number of rows of all tables together."""
    users: int
    rounds: int
    operations: int


def back_up(database: Database, file: Path) -> Backup:
    """Write the whole workspace to a new file.

    The file appears under its name only when it is complete and on disk.

    Raises:
        Conflict: The file is there already.
        WorkspaceUnavailable: The database does not answer.
    """
    if file.exists():
        raise Conflict(f"{file}: the file is there already; choose another name")
    half = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with half.open("xb") as raw:
            with gzip.open(raw, "wt", encoding="utf-8") as lines, database.snapshot() as connection:
                result = _write(connection, lines.write)
            raw.flush()
            os.fsync(raw.fileno())
        os.link(half, file)
    except FileExistsError as error:
        raise Conflict(f"{file}: the file is there already; choose another name") from error
    finally:
        half.unlink(missing_ok=True)
    return result


def restore(file: Path, place: str | Path) -> Backup:
    """Fill an empty place with the content of a backup file, all or nothing, and migrate it to the newest schema.

    Raises:
        Corrupt: The file is damaged or incomplete.
        Conflict: There is a workspace already.
        StoreError: A newer version of gigamask wrote the file, or the place cannot be used.
    """
    header = _header(file)
    database = connect(place)
    try:
        with database.write() as connection:
            if schema_of(connection) is not None:
                raise Conflict(f"workspace {database.place}: there is one already; restore into an empty place")
            migrate_to(connection, header["schema"])
            result = _read(connection, file)
        migrate(database)
    finally:
        database.close()
    return result


def _write(connection: Connection, write: Any) -> Backup:
    counts: dict[str, int] = {}
    tables = _tables(connection)
    schema = str(schema_of(connection))
    write(json.dumps({"gigamask": "workspace", "format": FORMAT, "schema": schema}) + "\n")
    for table in tables:
        rows = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(select(table).order_by(*table.primary_key))
        for row in rows.mappings():
            write(json.dumps([table.name, dict(row)]) + "\n")
            counts[table.name] = counts.get(table.name, 0) + 1
    write(json.dumps({"end": sum(counts.values())}) + "\n")
    return _result(schema, counts)


def _read(connection: Connection, file: Path) -> Backup:
    tables = {table.name: table for table in _tables(connection)}
    counts: dict[str, int] = {}
    for name, rows in _rows(file):
        connection.execute(insert(tables[name]), rows)
        counts[name] = counts.get(name, 0) + len(rows)
    if connection.dialect.name == "postgresql":
        _set_sequences(connection, tables.values())
    return _result(_header(file)["schema"], counts)


def _rows(file: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the rows of a file, many of one table at a time.

    Raises:
        Corrupt: The file is damaged or incomplete.
    """
    read, every = 0, _lines(file)
    while lines := list(islice(every, _ROWS_AT_ONCE)):
        by_table: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            if isinstance(line, dict):
                if line["end"] != read:
                    raise Corrupt(f"{file}: {read} rows, its end says {line['end']}; use another copy")
                yield from by_table.items()
                return
            by_table.setdefault(line[0], []).append(line[1])
            read += 1
        yield from by_table.items()
    raise Corrupt(f"{file}: the end is missing; the copy is incomplete, use another one")


def _lines(file: Path) -> Iterator[Any]:
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            next(lines)
            for line in lines:
                yield json.loads(line)
    except (EOFError, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise Corrupt(f"{file}: damaged ({error}); use another copy") from error


def _header(file: Path) -> dict[str, Any]:
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            header = json.loads(next(lines))
        known = header["gigamask"] == "workspace"
    except FileNotFoundError:
        raise
    except (EOFError, OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise Corrupt(f"{file}: not a backup of a workspace; `gigamask workspace backup` writes one") from error
    if not known or header["format"] != FORMAT:
        raise StoreError(
            f"{file}: a backup of format {header.get('format')}; use the version of gigamask that wrote it"
        )
    return dict(header)


def _tables(connection: Connection) -> list[Table]:
    """Read the tables as they are in the database, in the order of their references."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != _VERSION_TABLE]


def _set_sequences(connection: Connection, tables: Iterable[Table]) -> None:
    """Let PostgreSQL number new rows after the restored ones."""
    for table in tables:
        for column in table.primary_key:
            name = connection.execute(select(func.pg_get_serial_sequence(table.name, column.name))).scalar_one()
            newest = name and connection.execute(select(func.max(column))).scalar_one()
            if newest:
                connection.execute(text("SELECT setval(:name, :newest)"), {"name": name, "newest": newest})


def _result(schema: str, counts: dict[str, int]) -> Backup:
    return Backup(
        schema=schema,
        rows=sum(counts.values()),
        users=counts.get("users", 0),
        rounds=counts.get("rounds", 0),
        operations=counts.get("operations", 0),
    )
