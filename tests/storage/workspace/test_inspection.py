"""Inspection of a workspace's database: what it says of a healthy one, and one clear error for each sick one."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from storage.errors import StoreError
from storage.workspace.database import Database, WorkspaceUnavailable, connect
from storage.workspace.inspection import inspect
from storage.workspace.workspace import Workspace


def test_a_healthy_workspace_is_described(workspace: Workspace) -> None:
    assert inspect(workspace.database).endswith(", the newest")
    assert inspect(workspace.database).startswith(f"{workspace.database.engine.dialect.name} ")
    assert workspace.database.place in inspect(workspace.database)


def test_an_older_schema_and_an_empty_place_are_no_fault(place: str) -> None:
    database = connect(place)
    assert "without tables yet" in inspect(database)
    database.close()
    with Workspace.open(place) as workspace:
        with workspace.database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        assert "schema 0001: the next command that uses it brings it to " in inspect(workspace.database)


def test_a_newer_schema_is_named(workspace: Workspace) -> None:
    with workspace.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="'9999' was written by a newer version"):
        inspect(workspace.database)


def test_a_file_without_a_write_ahead_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.sqlite"
    Workspace.open(path).close()
    sqlite3.connect(path).execute("PRAGMA journal_mode=DELETE")
    with pytest.raises(StoreError, match=r"w\.sqlite: journal mode delete, expected wal"):
        inspect(Database(create_engine(f"sqlite:///{path}")))


def test_a_database_that_does_not_answer_or_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceUnavailable, match=r"127\.0\.0\.1:1/w"):
        inspect(connect("postgresql://me:secret@127.0.0.1:1/w"))
    (tmp_path / "w.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(WorkspaceUnavailable, match="not a database"):
        inspect(connect(tmp_path / "w.sqlite"))
