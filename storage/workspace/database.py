"""Connection to the workspace's database: SQLite in a file, or PostgreSQL."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from storage.errors import StoreError

BUSY_TIMEOUT_S = 30
"""Longest time to wait for another process to release an SQLite file, in seconds."""


class WorkspaceUnavailable(StoreError):
    """Failure of the database to answer; trying again later is safe."""


class Database:
    """Transactions of one workspace. A process that forks opens its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def place(self) -> str:
        """Address of the database, without its password."""
        url = self.engine.url
        return str(url.database) if self.is_sqlite else url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file of SQLite."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a transaction that only reads.

        Raises:
            WorkspaceUnavailable: The database does not answer.
        """
        with self._transaction(write=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Begin a transaction that writes; it is committed at the end, and rolled back on an error.

        Raises:
            WorkspaceUnavailable: The database does not answer, or the disk is full.
        """
        with self._transaction(write=True) as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Begin a transaction that reads one state, whatever others write in the meantime.

        Raises:
            WorkspaceUnavailable: The database does not answer.
        """
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}  # SQLite reads one state anyhow
        with self._transaction(write=False, **options) as connection:
            yield connection

    @contextmanager
    def _transaction(self, *, write: bool, **options: Any) -> Iterator[Connection]:
        engine = self.engine.execution_options(gigamask_write=write, **options)
        outcome = "nothing was changed"
        try:
            with engine.begin() as connection:
                yield connection
                if write:
                    outcome = "the connection broke while this was stored, so it may be there or not"
        except IntegrityError:
            raise
        except DBAPIError as error:
            cause = " ".join(str(error.orig).split())
            raise WorkspaceUnavailable(
                f"workspace {self.place}: {cause}; {outcome}; try again, or run `gigamask doctor`"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


def connect(place: str | Path) -> Database:
    """Connect to the database of a workspace; no table is read or made yet.

    Args:
        place: Path of an SQLite file, or URL: postgresql://user@host/name.

    Raises:
        ValueError: The URL is malformed, or is that of another database system.
        StoreError: The driver for PostgreSQL is not installed, or the folder of the file is missing.
    """
    url = _url(place)
    options: dict[str, Any] = {"json_serializer": partial(json.dumps, allow_nan=False)}
    if url.get_backend_name() == "sqlite":
        folder = Path(str(url.database)).absolute().parent
        if not folder.is_dir():
            raise StoreError(f"workspace {url.database}: the folder {folder} is missing; create it first")
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, **options)
        _set_up_sqlite(engine)
    else:
        try:
            engine = create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=30, **options)
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise StoreError(
                f"workspace {url.render_as_string()}: the driver is missing; pip install 'gigamask[postgresql]'"
            ) from error
    return Database(engine)


def _url(place: str | Path) -> URL:
    if "://" not in str(place):
        return URL.create("sqlite", database=str(place))
    try:
        url = make_url(str(place))
    except ArgumentError as error:
        raise ValueError(f"workspace {place!r}: expected a file or postgresql://user@host/name") from error
    backend = url.drivername.partition("+")[0]
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database:
        return url
    raise ValueError(f"workspace {url.render_as_string()}: expected a file or postgresql://user@host/name")


def _set_up_sqlite(engine: Engine) -> None:
    """Make transactions of SQLite durable and serial: a write begins by taking the file's only write lock."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transactions by itself
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("gigamask_write", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
