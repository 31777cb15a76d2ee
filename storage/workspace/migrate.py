"""Bring the database of a workspace to the newest schema, or refuse one that a newer version made."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from storage.errors import StoreError
from storage.workspace.database import Database

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x67696761  # any number of our own: the key of PostgreSQL's advisory lock


def migrate(database: Database) -> None:
    """Create the tables, or bring older tables to the newest schema. Several processes may do so at once.

    Raises:
        StoreError: A newer version of gigamask wrote the database.
        WorkspaceUnavailable: The database does not answer.
    """
    newest = ScriptDirectory(str(_FOLDER)).get_current_head()
    with database.read() as connection:
        if schema_of(connection) == newest:
            return
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        _check_known(connection, database)
        config = Config()
        config.set_main_option("script_location", str(_FOLDER))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def schema_of(connection: Connection) -> str | None:
    """Return the revision of the database's schema; None for a database without tables."""
    return MigrationContext.configure(connection).get_current_revision()


def _check_known(connection: Connection, database: Database) -> None:
    found = schema_of(connection)
    known = {script.revision for script in ScriptDirectory(str(_FOLDER)).walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(
            f"workspace {database.place}: its schema {found!r} was written by a newer version of gigamask; "
            f"use that version, or restore a backup made with this one"
        )
