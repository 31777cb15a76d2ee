"""Workspaces in SQLite files and in a real PostgreSQL server; a test that takes `place` runs on both."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from storage.workspace.workspace import Workspace
from tests import postgresql_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgresql_server.Server]:
    """One PostgreSQL server for the session."""
    if postgresql_server.programs() is None:
        pytest.skip("no PostgreSQL: initdb is not installed (Debian: postgresql)")
    with postgresql_server.serving() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty workspace."""
    if request.param == "sqlite":
        return str(tmp_path / "workspace.sqlite")
    server = request.getfixturevalue("postgresql")
    name = f"w{uuid.uuid4().hex}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return str(server.url(name))


@pytest.fixture
def workspace(place: str) -> Iterator[Workspace]:
    """An empty workspace with the annotators ann and bob, the reviewer rita and the lead lea."""
    with Workspace.open(place) as opened:
        for name, role in (("ann", "annotator"), ("bob", "annotator"), ("rita", "reviewer"), ("lea", "lead")):
            opened.users.add(name, role)
        yield opened
