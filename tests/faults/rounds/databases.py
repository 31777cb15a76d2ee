"""Databases of workspaces under fire: made, copied, cut off and looked into without any code of the product."""

import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg

from tests.postgresql_server import Server

Row = tuple[Any, ...]


class Databases(Protocol):
    """Databases of one kind."""

    name: str

    def create(self, folder: Path) -> str:
        """Address of an empty place for a workspace."""

    def copy(self, place: str, folder: Path) -> str:
        """Address of a copy of a workspace that nobody uses."""

    def remove(self, place: str) -> None:
        """Removes a workspace and ends whoever uses it."""

    def is_held(self, place: str) -> bool:
        """Whether a transaction holds locks in which others would wait."""


class SqliteFiles:
    """Files of SQLite, each in the folder of its case."""

    name = "SQLite"

    def create(self, folder: Path) -> str:
        return str(folder / "workspace.sqlite")

    def copy(self, place: str, folder: Path) -> str:
        for path in Path(place).parent.glob("workspace.sqlite*"):
            shutil.copy(path, folder / path.name)
        return self.create(folder)

    def remove(self, place: str) -> None:
        for path in Path(place).parent.glob("workspace.sqlite*"):
            path.unlink()

    def is_held(self, place: str) -> bool:
        with closing(sqlite3.connect(place, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    @contextmanager
    def held(self, place: str) -> Iterator[bool]:
        """Holds the only write lock meanwhile; False where somebody else has it."""
        with closing(sqlite3.connect(place, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                yield False
                return
            yield True


class PostgresqlDatabases:
    """Databases of one PostgreSQL server."""

    name = "PostgreSQL"

    def __init__(self, server: Server) -> None:
        self.server = server

    def create(self, folder: Path) -> str:
        return self.copy(self.server.url("template1"), folder)

    def copy(self, place: str, folder: Path) -> str:
        name = f"w{uuid.uuid4().hex}"
        self._do(f"CREATE DATABASE {name} TEMPLATE {_name_of(place)}")
        return self.server.url(name)

    def remove(self, place: str) -> None:
        self._do(f"DROP DATABASE {_name_of(place)} WITH (FORCE)")

    def is_held(self, place: str) -> bool:
        held = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_xid IS NOT NULL"
        return bool(self._rows(held, _name_of(place))[0][0])

    def end_connections(self, place: str) -> int:
        """Ends every connection to a database, in the middle of whatever it does; how many there were."""
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
        return len(self._rows(ended, _name_of(place)))

    def checkpoint(self) -> None:
        """Has a later crash keep the sequences of a copy.

        PostgreSQL logs a sequence's values 32 at a time. A copy begins with values that were logged for the original,
        and its own are not until the first one after a checkpoint: after a crash they would be given out again.
        """
        self._do("CHECKPOINT")

    def restart(self) -> None:
        """Has the server crash and recover."""
        self.server.stop("immediate")
        self.server.start()

    def _do(self, sql: str) -> None:
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.encode())

    def _rows(self, sql: str, *parameters: str) -> list[Row]:
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as connection:
            return connection.execute(sql.encode(), parameters).fetchall()


def _name_of(place: str) -> str:
    return place.rpartition("/")[2]


class Rows:
    """Rows of a workspace, read by plain SQL in one transaction."""

    def __init__(self, place: str) -> None:
        self._connection: Any = psycopg.connect(place) if "://" in place else sqlite3.connect(place)

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def of(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a query, by column."""
        cursor = self._connection.cursor()
        cursor.execute(sql)
        names = [each[0] for each in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
