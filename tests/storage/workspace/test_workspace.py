"""Opening: schemas, addresses, and that migrations and schema.py say the same."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, inspect, text
from sqlalchemy.engine.interfaces import ReflectedIndex

from storage.errors import StoreError
from storage.workspace.database import Database, WorkspaceUnavailable, connect
from storage.workspace.schema import METADATA
from storage.workspace.workspace import Workspace
from tests.workspaces import open_round


def test_the_migrations_make_the_tables_of_the_schema(workspace: Workspace) -> None:
    with workspace.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def described_index(index: ReflectedIndex) -> str:
    """An index with its condition as text."""
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return str({**index, "dialect_options": options})


def described(database: Database) -> dict[str, Any]:
    """Columns, constraints and indexes of every table, as the database itself tells them."""
    with database.read() as connection:
        found = inspect(connection)
        return {
            table: {
                "columns": {column["name"]: str(column) for column in found.get_columns(table)},
                "key": found.get_pk_constraint(table),
                "references": sorted(map(str, found.get_foreign_keys(table))),
                "checks": sorted(map(str, found.get_check_constraints(table))),
                "indexes": sorted(map(described_index, found.get_indexes(table))),
            }
            for table in found.get_table_names()
            if table != "alembic_version"
        }


def test_the_migrations_give_the_same_database_as_the_schema_to_the_last_constraint(
    workspace: Workspace, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    is_sqlite = workspace.database.is_sqlite
    fresh = connect(tmp_path / "fresh.sqlite" if is_sqlite else request.getfixturevalue("new_postgresql")())
    with fresh.write() as connection:
        METADATA.create_all(connection)
    made, expected = described(workspace.database), described(fresh)
    fresh.close()
    assert len(expected) == len(METADATA.tables)
    assert made == expected


def test_opening_again_finds_what_was_there(place: str) -> None:
    with Workspace.open(place) as first:
        first.users.add("ann", "annotator")
        opened = open_round(first)
    with Workspace.open(place) as second:
        assert [user.name for user in second.users.read_all()] == ["ann"]
        assert second.rounds.read_all() == [opened]


def test_a_newer_schema_is_refused(place: str) -> None:
    with Workspace.open(place) as workspace, workspace.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="'9999' was written by a newer version of gigamask"):
        Workspace.open(place)


def test_sqlite_is_durable_and_checks_references(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "w.sqlite") as workspace, workspace.database.read() as connection:
        settings = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")]
        assert settings == ["wal", 2]
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_addresses_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a file or postgresql://"):
        Workspace.open("mysql://localhost/x")
    with pytest.raises(StoreError, match="is missing; create it first"):
        Workspace.open(tmp_path / "nowhere" / "w.sqlite")


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    with pytest.raises(WorkspaceUnavailable, match="try again") as caught:
        Workspace.open("postgresql://me:secret@127.0.0.1:1/w")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(WorkspaceUnavailable, match="not a database"):
        Workspace.open(tmp_path / "w.sqlite")


def test_a_locked_file_is_waited_for_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.workspace.database.BUSY_TIMEOUT_S", 0.1)
    with Workspace.open(tmp_path / "w.sqlite") as workspace:
        other = sqlite3.connect(tmp_path / "w.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WorkspaceUnavailable, match="database is locked; nothing was changed"):
            workspace.users.add("ann", "annotator")
        other.execute("ROLLBACK")
        workspace.users.add("ann", "annotator")


@pytest.mark.slow
def test_a_connection_that_breaks_at_the_commit_is_not_said_to_have_changed_nothing(
    new_postgresql: Callable[[], str],
) -> None:
    place = new_postgresql()
    with Workspace.open(place) as workspace:

        @event.listens_for(workspace.database.engine, "commit")
        def break_the_connection(_connection: object) -> None:
            with psycopg.connect(place, autocommit=True) as other:
                others = "datname = current_database() AND pid <> pg_backend_pid()"
                other.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}".encode())

        with pytest.raises(WorkspaceUnavailable, match="it may be there or not; try again"):
            workspace.users.add("ann", "annotator")
