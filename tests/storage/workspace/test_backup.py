import gzip
import re
from pathlib import Path

import pytest
from sqlalchemy import select

from storage.errors import Conflict, Corrupt, StoreError
from storage.workspace.backup import back_up, restore
from storage.workspace.schema import METADATA
from storage.workspace.workspace import Workspace
from tests.workspaces import Page, made, open_round


def content(workspace: Workspace) -> dict[str, list[tuple[object, ...]]]:
    with workspace.database.read() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=str)
            for table in METADATA.sorted_tables
        }


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    open_round(workspace, images=3, prefill=2, overlap=2)
    lease, _ = workspace.leases.claim("ann", 2)
    workspace.operations.append(lease.token, [Page()("add", made("a", predicted_iou=0.25))])
    workspace.submissions.submit(lease.token, 1)
    workspace.users.add("zoe", "lead", password="correct horse")
    return workspace


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_backup_restores_every_row_on_either_database(
    filled: Workspace, target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made_by_backup = back_up(filled.database, tmp_path / "backup.gz")
    if target == "sqlite":
        place = str(tmp_path / "restored.sqlite")
    else:
        place = request.getfixturevalue("new_postgresql")()
    restored = restore(tmp_path / "backup.gz", place)
    assert restored == made_by_backup
    with Workspace.open(place) as again:
        assert content(again) == content(filled)
        assert again.users.check_password("zoe", "correct horse") is not None
        (lease,) = again.leases.claim("bob")
        again.operations.append(lease.token, [Page(session="new")("add", made("b"))])  # new rows get new numbers
        again.submissions.submit(lease.token, 1)


def test_a_damaged_backup_is_refused_and_nothing_is_restored(filled: Workspace, tmp_path: Path) -> None:
    back_up(filled.database, tmp_path / "backup.gz")
    lines = gzip.decompress((tmp_path / "backup.gz").read_bytes()).splitlines(keepends=True)
    for damage, content_bytes in {
        "cut": (tmp_path / "backup.gz").read_bytes()[:-40],
        "no end": gzip.compress(b"".join(lines[:-1])),
        "row lost": gzip.compress(b"".join(lines[:5] + lines[6:])),
        "other": b"hello",
    }.items():
        (tmp_path / damage).write_bytes(content_bytes)
        with pytest.raises(Corrupt, match=r"use another|not a backup"):
            restore(tmp_path / damage, tmp_path / "new.sqlite")
    restore(tmp_path / "backup.gz", tmp_path / "new.sqlite")


def test_a_backup_of_a_newer_schema_is_refused(filled: Workspace, tmp_path: Path) -> None:
    back_up(filled.database, tmp_path / "backup.gz")
    newer = re.sub(rb'"schema": "[0-9]+"', b'"schema": "9999"', gzip.decompress((tmp_path / "backup.gz").read_bytes()))
    (tmp_path / "newer.gz").write_bytes(gzip.compress(newer))
    with pytest.raises(StoreError, match="'9999' was written by a newer version"):
        restore(tmp_path / "newer.gz", tmp_path / "new.sqlite")


def test_nothing_is_overwritten(filled: Workspace, tmp_path: Path) -> None:
    back_up(filled.database, tmp_path / "backup.gz")
    with pytest.raises(Conflict, match="there already"):
        back_up(filled.database, tmp_path / "backup.gz")
    Workspace.open(tmp_path / "used.sqlite").close()
    with pytest.raises(Conflict, match="there is one already"):
        restore(tmp_path / "backup.gz", tmp_path / "used.sqlite")
