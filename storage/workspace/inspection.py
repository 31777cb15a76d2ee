"""Inspection of a workspace's database without changing it: is it reachable, is its schema known, is it durable?"""

from alembic.script import ScriptDirectory
from sqlalchemy import text

from storage.errors import StoreError
from storage.workspace.database import Database
from storage.workspace.migrate import MIGRATIONS, check_known, schema_of


def inspect(database: Database) -> str:
    """Describe a database that a workspace can use: its system, its schema and its journal.

    Raises:
        WorkspaceUnavailable: The database does not answer, or is none.
        StoreError: A newer version of gigamask wrote it, or an SQLite file keeps no write-ahead log.
    """
    with database.read() as connection:
        schema = schema_of(connection)
        version = "sqlite_version()" if database.is_sqlite else "current_setting('server_version')"
        system = f"{database.engine.dialect.name} {connection.execute(text(f'SELECT {version}')).scalar_one()}"
        journal = connection.execute(text("PRAGMA journal_mode")).scalar_one() if database.is_sqlite else "wal"
    check_known(schema)
    if journal != "wal":
        raise StoreError(
            f"workspace {database.place}: journal mode {journal}, expected wal, without which annotators wait for one "
            "another; move the file to a local disk that allows it"
        )
    return f"{system} at {database.place}, {_describe_schema(schema)}"


def _describe_schema(schema: str | None) -> str:
    newest = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    if schema is None:
        return "without tables yet: the first command that uses it makes them"
    if schema != newest:
        return f"schema {schema}: the next command that uses it brings it to {newest}"
    return f"schema {schema}, the newest"
