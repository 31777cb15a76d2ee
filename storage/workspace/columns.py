"""Column types of the workspace, and its clock: the clock of the database server."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Double, type_coerce
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """A time, stored as seconds since 1970 so that SQLite and PostgreSQL compare it alike; a datetime in Python."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:
        """Convert a datetime with a time zone to seconds.

        Raises:
            ValueError: The datetime has no time zone.
        """
        if value is not None and value.tzinfo is None:
            raise ValueError(f"time {value} has no time zone; use datetime.now(UTC)")
        return None if value is None else value.timestamp()

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Convert seconds to a datetime in UTC."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


class database_now(ColumnElement[float]):
    """The present time by the clock of the database server, in seconds since 1970."""

    inherit_cache = True
    type = Double()


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: SQLCompiler, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def seconds_from_now(seconds: float) -> ColumnElement[datetime]:
    """Return the SQL of the time that many seconds from now, by the clock of the database server."""
    return type_coerce(database_now() + seconds, UtcTime)


def now() -> ColumnElement[datetime]:
    """Return the SQL of the present time, by the clock of the database server."""
    return type_coerce(database_now(), UtcTime)
