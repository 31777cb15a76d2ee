"""A short run of simulated annotators against a server that is killed, and a checker that notices what it must."""

import json
import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import postgresql_server
from tests.annotators.checker import check, digest
from tests.annotators.harness import MUST_BE_ZERO
from tests.paths import ROOT
from tests.tiny_network import save_tiny_model


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_nothing_is_lost_or_doubled_while_the_server_is_killed(database: str, tmp_path: Path) -> None:
    if database == "postgresql" and postgresql_server.programs() is None:
        pytest.skip("no PostgreSQL: initdb is not installed (Debian: postgresql)")
    options = ["--annotators", "3", "--reviewers", "1", "--minutes", "0.3", "--kills", "1", "--images", "3"]
    options += ["--rounds", "10"]
    options += ["--processes", "1", "--pace", "30", "--side", "96", "--database", database]
    options += ["--model", str(save_tiny_model(tmp_path))]
    command = [sys.executable, "-m", "tests.annotators.harness", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert {name: result[name] for name in MUST_BE_ZERO} == dict.fromkeys(MUST_BE_ZERO, 0)
    assert result["operations_sent"] == result["operations_stored"] > 10
    assert result["masks"] > 0
    assert result["verdicts"] > result["accepted"] + result["fixed"] + result["sent_back"] > 0
    assert result["click_to_mask_p95_ms"] >= result["click_to_mask_p50_ms"] > 0


OPERATIONS = "op_id, task_id, annotator, session, sequence, kind, payload, branch, revision, base_revision"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A log and a database of two operations on one task, which agree."""
    database = sqlite3.connect(tmp_path / "w.sqlite")
    database.executescript(
        f"CREATE TABLE operations ({OPERATIONS});"
        "CREATE TABLE leases (token, task_id, annotator, granted_at, ended_at);"
        "CREATE TABLE submissions (submission_id, task_id, annotator, masks, token, state, fixes);"
        "CREATE TABLE verdicts (reviewer, submission_id, question, mask, answer);"
        "CREATE TABLE audit_log (actor, action, subject);"
    )
    lines = [{"event": "claimed", "task_id": 1, "token": "t1"}, {"event": "click", "ms": 10.0}]
    for number in range(2):
        payload = {"mask": f"m{number}"}
        operation = {"op_id": uuid.uuid4().hex, "session": "s", "sequence": number, "kind": "add", "task_id": 1}
        lines.append({"event": "sent", "payload_sha256": digest(payload), **operation})
        lines.append({"event": "confirmed", "op_id": operation["op_id"]})
        row = (operation["op_id"], 1, "ann", "s", number, "add", json.dumps(payload), "", number + 1, number)
        database.execute("INSERT INTO operations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    lines.append({"event": "submitted", "submission_id": 7, "task_id": 1, "revision": 2, "masks": 2})
    database.execute("INSERT INTO leases VALUES ('t1', 1, 'ann', 10, 20)")
    database.execute("INSERT INTO submissions VALUES (7, 1, 'ann', 2, 't1', 'submitted', NULL)")
    database.execute("INSERT INTO submissions VALUES (8, 2, 'bob', 1, 't2', 'accepted', NULL)")
    database.execute("INSERT INTO submissions VALUES (9, 3, 'bob', 1, 't3', 'sent_back', NULL)")
    database.execute("INSERT INTO submissions VALUES (10, 1, 'rev', 3, 't4', 'accepted', 7)")
    database.execute("INSERT INTO verdicts VALUES ('rev', 7, 'mask_good', 'm0', 'no')")
    database.execute("INSERT INTO audit_log VALUES ('rev', 'accept submission', 'submission 8')")
    database.execute("INSERT INTO audit_log VALUES ('rev', 'send back', 'submission 9')")
    verdict = {"submission_id": 7, "question": "mask_good", "mask": "m0", "answer": "no"}
    reviews: list[dict[str, object]] = [{"event": "verdict", **verdict}]
    for number, outcome in ((7, "fixed"), (8, "accepted"), (9, "sent_back")):
        reviews.append({"event": "reviewed", "submission_id": number, "outcome": outcome})
    database.commit()
    database.close()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ann.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "logs" / "rev.jsonl").write_text("\n".join(map(json.dumps, reviews)))
    return tmp_path


def counted(folder: Path) -> dict[str, int]:
    found = check(folder / "logs", str(folder / "w.sqlite"))
    return {name: found[name] for name in MUST_BE_ZERO if found[name]}


def test_the_checker_is_content_with_what_agrees(small: Path) -> None:
    assert counted(small) == {}
    assert check(small / "logs", str(small / "w.sqlite"))["operations_stored"] == 2


SECOND = "sequence = 1"


@pytest.mark.parametrize(
    ("break_it", "noticed"),
    [
        (f"DELETE FROM operations WHERE {SECOND}", {"lost": 1}),
        ("DELETE FROM operations WHERE sequence = 0", {"lost": 1, "gaps": 1}),
        (f"INSERT INTO operations SELECT * FROM operations WHERE {SECOND}", {"doubled": 2}),
        (
            "INSERT INTO operations SELECT 'new', 1, 'ann', 's', 9, kind, payload, '', 3, 2 "
            f"FROM operations WHERE {SECOND}",
            {"foreign": 1},
        ),
        (f"UPDATE operations SET payload = '{{}}' WHERE {SECOND}", {"changed": 1}),
        (f"UPDATE operations SET task_id = 2 WHERE {SECOND}", {"changed": 1, "gaps": 1}),
        ("INSERT INTO leases VALUES ('t2', 1, 'bob', 15, 30)", {"tasks_given_twice": 1}),
        ("INSERT INTO submissions VALUES (11, 1, 'bob', 2, 't5', 'submitted', NULL)", {"tasks_given_twice": 1}),
        ("INSERT INTO submissions VALUES (11, 4, 'bob', 2, 't1', 'submitted', NULL)", {"tasks_given_twice": 1}),
        ("UPDATE leases SET token = 'other'", {"claims_not_stored": 1}),
        ("DELETE FROM submissions WHERE submission_id = 7", {"submissions_lost": 1}),
        ("DELETE FROM submissions WHERE fixes = 7", {"reviews_lost": 1}),
        ("INSERT INTO submissions VALUES (11, 1, 'eve', 2, 't5', 'accepted', 7)", {"reviews_doubled": 1}),
        ("DELETE FROM audit_log WHERE action = 'send back'", {"reviews_lost": 1}),
        ("UPDATE audit_log SET subject = 'submission 1' WHERE action <> 'send back'", {"reviews_lost": 1}),
        ("INSERT INTO audit_log VALUES ('eve', 'send back', 'submission 9')", {"reviews_doubled": 1}),
        ("UPDATE verdicts SET answer = 'yes'", {"verdicts_lost": 1}),
        ("INSERT INTO verdicts SELECT * FROM verdicts", {"verdicts_doubled": 1}),
    ],
)
def test_the_checker_notices_every_break(small: Path, break_it: str, noticed: dict[str, int]) -> None:
    with sqlite3.connect(small / "w.sqlite") as database:
        database.execute(break_it)
    assert counted(small) == noticed


def test_the_checker_notices_what_was_never_confirmed(small: Path) -> None:
    log = small / "logs" / "ann.jsonl"
    lines: list[str] = log.read_text().splitlines()
    is_kept: Callable[[str], bool] = lambda line: "confirmed" not in line  # noqa: E731
    log.write_text("\n".join(filter(is_kept, lines)))
    assert counted(small) == {"unconfirmed": 2}
