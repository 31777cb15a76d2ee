"""Workspaces in SQLite files and in a real PostgreSQL server; a test that takes `place` runs on both."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from storage.workspace.workspace import Workspace
from tests import postgresql_server

_EMPTY, _MIGRATED = "template1", "migrated"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgresql_server.Server]:
    """One PostgreSQL server for the session, with a migrated database to copy: that is faster than migrating each."""
    if postgresql_server.programs() is None:
        pytest.skip("no PostgreSQL: initdb is not installed (Debian: postgresql)")
    with postgresql_server.serving() as server:
        _create(server, _MIGRATED, _EMPTY)
        Workspace.open(server.url(_MIGRATED)).close()
        yield server


@pytest.fixture
def new_postgresql(postgresql: postgresql_server.Server) -> Callable[[], str]:
    """Function that makes an empty database and returns its address."""

    def make() -> str:
        name = f"w{uuid.uuid4().hex}"
        _create(postgresql, name, _EMPTY)
        return postgresql.url(name)

    return make


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty place for a workspace."""
    if request.param == "sqlite":
        return str(tmp_path / "workspace.sqlite")
    return str(request.getfixturevalue("new_postgresql")())


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace with the annotators ann and bob, the reviewer rita and the lead lea."""
    place = str(tmp_path / "workspace.sqlite")
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        name = f"w{uuid.uuid4().hex}"
        _create(server, name, _MIGRATED)
        place = server.url(name)
    with Workspace.open(place) as opened:
        for name, role in (("ann", "annotator"), ("bob", "annotator"), ("rita", "reviewer"), ("lea", "lead")):
            opened.users.add(name, role)
        yield opened


def _create(server: postgresql_server.Server, name: str, template: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
