"""Bring the database of a workspace to the newest schema, or refuse one that a newer version made."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from storage.errors import StoreError
from storage.workspace.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"
"""Folder of the migrations."""
_LOCK = 0x67696761  # any number of our own: the key of PostgreSQL's advisory lock


def migrate(database: Database) -> None:
    """Create the tables, or bring older tables to the newest schema. Several processes may do so at once.

    Raises:
        StoreError: A newer version of gigamask wrote the database.
        WorkspaceUnavailable: The database does not answer.
    """
    newest = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    with database.read() as connection:
        if schema_of(connection) == newest:
            return
    with database.write() as connection:
        migrate_to(connection, "head")


def migrate_to(connection: Connection, revision: str) -> None:
    """Bring the tables to one revision of the schema, within a transaction that writes.

    Raises:
        StoreError: A newer version of gigamask wrote the database, or names the revision.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    check_known(schema_of(connection))
    check_known(None if revision == "head" else revision)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def check_known(schema: str | None) -> None:
    """Check that this version of gigamask knows a revision of the schema; None is a database without tables.

    Raises:
        StoreError: A newer version of gigamask wrote the database.
    """
    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if schema is not None and schema not in known:
        raise StoreError(
            f"workspace: its schema {schema!r} was written by a newer version of gigamask; "
            f"use that version, or a backup that this one made"
        )


def schema_of(connection: Connection) -> str | None:
    """Return the revision of the database's schema; None for a database without tables."""
    return MigrationContext.configure(connection).get_current_revision()
