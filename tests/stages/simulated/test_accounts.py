"""Accounts of simulated annotators: held by one crew at a time, and closed after it, however it ended."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.simulated.accounts import open_accounts
from storage.workspace.workspace import Workspace

HOLD = """
import sys, time
from stages.simulated.accounts import open_accounts
from storage.workspace.workspace import Workspace
with Workspace.open(sys.argv[1]) as workspace, open_accounts(workspace, 2, lease_s=1):
    print("open", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace.sqlite") as opened:
        opened.users.add("simulated-eve", "annotator")
        yield opened


def names_of_open(workspace: Workspace) -> list[str]:
    return [user.name for user in workspace.users.read_all() if not user.disabled]


def test_no_two_crews_hold_an_account_and_what_is_given_back_is_taken_again(workspace: Workspace) -> None:
    with open_accounts(workspace, 2) as first:
        with open_accounts(workspace, 1) as second:
            assert (sorted(first), sorted(second)) == (["simulated-1", "simulated-2"], ["simulated-3"])
            for name, password in {**first, **second}.items():
                assert workspace.users.check_password(name, password), "a password that another crew set in between"
        assert names_of_open(workspace) == ["simulated-1", "simulated-2", "simulated-eve"]
    with open_accounts(workspace, 1) as again:
        assert list(again) == ["simulated-1"]
    assert names_of_open(workspace) == ["simulated-eve"], "an account that no crew opened is left alone"


def test_a_crew_that_fails_closes_its_accounts(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="the server refuses"), open_accounts(workspace, 1):
        raise ValueError("the server refuses")
    assert names_of_open(workspace) == ["simulated-eve"]


def test_the_next_crew_closes_the_accounts_of_one_that_was_killed(workspace: Workspace) -> None:
    command = [sys.executable, "-c", HOLD, workspace.database.place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crew:
        assert crew.stdout is not None
        assert crew.stdout.readline() == "open\n"
        crew.kill()
    left = ["simulated-1", "simulated-2", "simulated-eve"]
    assert names_of_open(workspace) == left
    while len(workspace.firings.lost()) < 2:  # its leases last a second longer
        time.sleep(0.1)
    with open_accounts(workspace, 1) as next_crew:
        assert list(next_crew) == ["simulated-1"]
        assert names_of_open(workspace) == ["simulated-1", "simulated-eve"]
    assert names_of_open(workspace) == ["simulated-eve"]
