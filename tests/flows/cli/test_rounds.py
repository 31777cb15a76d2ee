"""Rounds as commands: opened, answered, reported, closed, queried; and what is refused."""

import json
import os
import pty
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from storage.workspace.workspace import Workspace
from tests.conftest import Gigamask
from tests.small_dataset import small_dataset
from tests.stages.rounds.answering import answer, answer_all, square
from tests.workspaces import Page, made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    small_dataset(folder / "data").fold()
    return folder


@pytest.fixture
def command(gigamask: Gigamask, home: Path) -> Any:
    """Run a command on the dataset, and return its JSON."""

    def run(*arguments: str) -> Any:
        done = gigamask(*arguments, "--dataset", "data", "--json", cwd=home)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def answer_as(home: Path, name: str, squares: int = 2) -> int:
    with Workspace.open(home / "data" / "workspace.sqlite", max_held=100) as workspace:
        if name not in {user.name for user in workspace.users.read_all()}:
            workspace.users.add(name, "annotator")
        return answer_all(workspace, name, squares=squares)


def test_an_assisted_manual_round_from_opening_to_sql(gigamask: Gigamask, command: Any, home: Path) -> None:
    opened = command("round", "open", "--stage", "assisted_manual", "--images", "3", "--overlap", "2")
    assert (opened["images"], opened["slots"], opened["stage"]) == (3, 6, "assisted_manual")
    round_id = opened["round_id"]
    with Workspace.open(home / "data" / "workspace.sqlite") as workspace:
        assert "30 seconds" in workspace.rounds.get(round_id).guidelines

    assert command("round", "pause", round_id)["state"] == "paused"
    assert answer_as(home, "ann") == 0
    assert command("round", "reopen", round_id)["state"] == "open"
    assert command("round", "extend", round_id, "--images", "1")["images"] == 4
    assert answer_as(home, "ann") == answer_as(home, "bob", squares=1) == 4
    (status,) = command("round", "status")
    assert (status["round_id"], status["done"], status["answers"], status["free"]) == (round_id, 8, 8, 0)

    report = command("round", "report", round_id)
    assert report["total"]["masks_made"] == 12
    assert report["agreement"]["mean"] == pytest.approx(2 / 3)
    page = gigamask("round", "report", round_id, "--dataset", "data", "--output", "page.html", cwd=home)
    assert page.returncode == 0, page.stderr
    html = (home / "page.html").read_text()
    assert re.search(r'id="masks-made">12<', html)
    assert "ann" in html

    table = gigamask("round", "report", round_id, "--dataset", "data", cwd=home).stdout
    assert [line.split()[0] for line in table.splitlines()[-2:]] == ["ann", "bob"]

    backup = command("workspace", "backup", "backup.gz")
    assert backup["operations"] == 20
    restored = gigamask("workspace", "restore", "backup.gz", "--workspace", "restored.sqlite", "--json", cwd=home)
    assert json.loads(restored.stdout) == backup

    closed = command("round", "close", round_id)
    assert (closed["images"], closed["masks"], closed["annotations"]) == (4, 8, 12)
    assert command("round", "close", round_id) == closed
    sql = "SELECT origin, count(*) AS masks, avg(active_s) AS seconds FROM annotations GROUP BY origin"
    query = gigamask("query", "--dataset", "data", "--format", "json", sql, cwd=home)
    assert json.loads(query.stdout) == [{"origin": "made", "masks": 12, "seconds": 4.0}]

    withdrawn = command("round", "withdraw", round_id, "--annotator", "ann", "--reason", "left the team")
    assert withdrawn["masks"] == 8
    assert command("round", "withdraw", round_id, "--annotator", "ann", "--reason", "left the team")["masks"] == 0


def test_closing_over_drafted_masks_asks_at_a_terminal_and_needs_a_yes_elsewhere(
    gigamask: Gigamask, command: Any, home: Path
) -> None:
    query = "SELECT image_id FROM images ORDER BY image_id LIMIT 3"
    place = ("--workspace", "drafts.sqlite")
    round_id = command("round", "open", "--stage", "assisted_manual", "--query", query, *place)["round_id"]
    with Workspace.open(home / "drafts.sqlite", max_held=9) as workspace:
        workspace.users.add("ann", "annotator")
        first, second = workspace.leases.claim("ann", 2)
        workspace.operations.append(second.token, [Page()("add", made("m", square(1)))])
        close = ("round", "close", round_id, "--dataset", "data", *place)
        assert "has no answer" in gigamask(*close, "--yes", cwd=home).stderr
        answer(workspace, first)
        refused = gigamask(*close, cwd=home)
        assert refused.returncode == 1
        assert "1 task held now, 1 answer still wanted, 1 mask on 1 task drafted and not submitted" in refused.stderr
        assert "--yes" in refused.stderr

        # A person says no, then yes
        person, terminal = pty.openpty()
        os.write(person, b"n\ny\n")
        declined, done = (gigamask(*close, cwd=home, stdin=terminal) for _ in range(2))
        assert (declined.returncode, done.returncode) == (1, 0), done.stderr
        assert "nothing was changed" in declined.stderr
        assert workspace.rounds.get(round_id).state == "closed"
        for each in (person, terminal):
            os.close(each)


def test_withdrawing_without_a_reason_is_refused(gigamask: Gigamask, tmp_path: Path) -> None:
    refused = gigamask("round", "withdraw", "round-0", "--annotator", "ann", "--reason", " ", cwd=tmp_path)
    assert refused.returncode == 2
    assert "empty reason" in refused.stderr


def test_a_semi_automatic_round_begins_with_masks_of_the_dataset(command: Any, home: Path) -> None:
    opened = command(
        "round", "open", "--stage", "semi_automatic", "--query", "SELECT image_id FROM images ORDER BY image_id",
        "--prefill", "model_id = 'one-1'", "--empty-fraction", "0.5", "--name", "second",
    )  # fmt: skip
    assert opened["images"] == 10
    assert 4 <= opened["prefilled"] <= 5
    assert opened["prefilled_masks"] == 2 * opened["prefilled"]
    assert command("round", "cancel", opened["round_id"])["state"] == "cancelled"


def test_a_command_given_again_with_its_request_id_does_nothing_twice(gigamask: Gigamask, home: Path) -> None:
    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        place = ("--dataset", "data", "--workspace", "requests.sqlite", "--json")
        done = gigamask("round", *arguments, *place, cwd=home)
        assert done.returncode == status, done.stderr
        return done

    opened = run("open", "--stage", "assisted_manual", "--images", "3")
    request = re.findall(r"request (\S{36})\n", opened.stderr)[0]
    again = ("open", "--stage", "assisted_manual", "--request-id", request)
    assert run(*again, "--images", "3").stdout == opened.stdout
    assert f"request {request} was sent before, to open round" in run(*again, "--images", "4", status=1).stderr
    extend = ("extend", json.loads(opened.stdout)["round_id"], "--images", "1", "--request-id", str(uuid.uuid4()))
    assert [json.loads(run(*extend).stdout)["images"] for _ in range(2)] == [4, 4]
    with Workspace.open(home / "requests.sqlite") as workspace:
        assert len(workspace.rounds.read_all()) == 1

    # Fewer images than asked for, and none with masks, are told
    fewer = run("open", "--stage", "semi_automatic", "--images", "300", "--prefill", "stage = 'semi_automatic'").stderr
    assert "300 images were asked for, 6 were left" in fewer
    assert "no image begins with masks; \"stage = 'semi_automatic'\" gave none" in fewer


def test_users_are_added_listed_paused_and_disabled(gigamask: Gigamask, command: Any, home: Path) -> None:
    def run(*arguments: str) -> str:
        done = gigamask("users", *arguments, "--workspace", "users.sqlite", cwd=home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("add", "cleo", "--role", "lead", "--no-password") == "cleo is lead\n"
    assert "no new tasks" in run("pause", "cleo")
    assert "disabled" in run("disable", "cleo")
    (account,) = json.loads(run("list", "--json"))
    assert account == {"name": "cleo", "role": "lead", "has_password": False, "disabled": True, "paused": True}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("round", "close", "round-x"), 1, "there is no such round"),
        (("round", "open", "--stage", "assisted_manual", "--query", "SELECT 1 AS image_id"), 1, "are not in"),
        (("round", "open", "--stage", "assisted_manual", "--prefill", "true"), 2, "begins empty"),
        (
            ("round", "open", "--stage", "assisted_manual", "--query", "SELECT 1", "--choose-by", "mix"),
            2,
            "gives an order already",
        ),
        (("round", "open", "--stage", "other"), 2, "other"),
        (
            ("round", "open", "--stage", "assisted_manual", "--guidelines", "missing.txt"),
            1,
            "--guidelines missing.txt: No such file or directory; expected a text file",
        ),
        (
            ("round", "open", "--stage", "semi_automatic", "--prefill", "boxes"),
            1,
            "--prefill 'boxes': expected `detector`, `generator` or an SQL condition on the table masks",
        ),
        (("workspace", "restore", "missing.gz"), 1, "missing.gz"),
        (("round", "status", "--workspace", "mysql://x/y"), 1, "expected a file or postgresql://"),
    ],
)
def test_wrong_use_is_refused_in_words(
    gigamask: Gigamask, home: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    done = gigamask(*arguments, "--dataset", "data", cwd=home)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
