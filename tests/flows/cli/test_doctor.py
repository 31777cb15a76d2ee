"""What the doctor says of a workspace; the command as a whole is run in test_main.py."""

from pathlib import Path

from flows.cli.doctor import check_environment
from storage.workspace.workspace import Workspace


def finding(dataset: str | None, workspace: str | None) -> tuple[bool, str]:
    """Whether the check of the workspace was good, and what it said."""
    (found,) = [each for each in check_environment(dataset, workspace) if each.what == "workspace"]
    return found.good, found.detail


def test_the_workspace_is_checked_where_it_is_named_or_its_dataset_is(tmp_path: Path) -> None:
    for dataset in (None, "s3://bucket/data"):
        assert not [each for each in check_environment(dataset) if each.what == "workspace"]
    assert finding(str(tmp_path), None)[0]
    assert "`gigamask round open` makes one" in finding(str(tmp_path), None)[1]
    Workspace.open(tmp_path / "workspace.sqlite").close()
    for arguments in ((str(tmp_path), None), (None, str(tmp_path / "workspace.sqlite"))):
        good, detail = finding(*arguments)
        assert good
        assert detail.startswith("sqlite ")
        assert detail.endswith("the newest")


def test_a_sick_workspace_is_one_sentence(tmp_path: Path) -> None:
    absent = tmp_path / "absent.sqlite"
    assert finding(None, str(absent)) == (False, f"{absent}: no such file; expected an SQLite workspace")
    assert not absent.exists()
    good, detail = finding(None, "postgresql://me:secret@127.0.0.1:1/w")
    assert not good
    assert "127.0.0.1:1/w" in detail
    assert "secret" not in detail
    assert finding(None, "mysql://x/y") == (
        False,
        "workspace mysql://x/y: expected a file or postgresql://user@host/name",
    )
