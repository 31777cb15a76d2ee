"""Compare what simulated annotators logged with what the database holds: plain SQL, no code of gigamask.

    python tests/annotators/checker.py LOGS DATABASE

prints one JSON object. These must be 0: lost, doubled, foreign, changed, unconfirmed, gaps, tasks_given_twice,
claims_not_stored, submissions_lost, verdicts_lost, verdicts_doubled, reviews_lost and reviews_doubled.
"""

import collections
import hashlib
import itertools
import json
import re
import sqlite3
import statistics
import sys
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]

PASSIVE = ("activity", "note")
COUNTED = ("submitted", "accepted")
OF_THE_SERVER = "fix"
"""Kind of the operations that the server makes, when a reviewer begins to fix a submission."""


class Database:
    """Rows of an SQLite file or a PostgreSQL database."""

    def __init__(self, place: str) -> None:
        if "://" in place:
            import psycopg

            self._connection: Any = psycopg.connect(place)
        else:
            self._connection = sqlite3.connect(place)

    def rows(self, sql: str) -> list[Row]:
        """Rows of a query."""
        cursor = self._connection.cursor()
        cursor.execute(sql)
        return list(cursor.fetchall())


def check(logs: Path, place: str) -> dict[str, Any]:
    """Count what was sent, stored, lost and doubled."""
    events = [
        {"who": path.stem, **json.loads(line)}
        for path in sorted(logs.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    by_kind: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for event in events:
        by_kind[event["event"]].append(event)
    database = Database(place)
    clicks = sorted(event["ms"] for event in by_kind["click"])
    return {
        **check_operations(database, by_kind),
        **check_tasks(database, by_kind),
        **check_reviews(database, by_kind),
        "clicks": len(clicks),
        "click_to_mask_p50_ms": quantile(clicks, 0.5),
        "click_to_mask_p95_ms": quantile(clicks, 0.95),
        "retries": dict(collections.Counter(str(event["status"]) for event in by_kind["retry"])),
        "routes_p50_p95_ms": route_times(by_kind["request"]),
        "failed": [event["why"] for event in by_kind["failed"] + by_kind["stopped"]],
    }


def check_operations(database: Database, events: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """Compare operations by their ids, content and place in their sessions."""
    sent = {event["op_id"]: event for event in events["sent"]}
    confirmed = {event["op_id"] for event in events["confirmed"]}
    stored: dict[str, tuple[Row, str]] = {}
    copies = collections.Counter[str]()
    places = collections.Counter[tuple[str, int]]()
    fixes: list[Row] = []
    columns = "op_id, task_id, annotator, session, sequence, kind, payload, branch, revision, base_revision"
    for row in database.rows(f"SELECT {columns} FROM operations"):
        if row[3].startswith("branch-"):
            continue  # the copy that merging a branch made; its original is counted
        if row[5] == OF_THE_SERVER:
            fixes.append(row)
            continue
        payload = json.loads(row[6]) if isinstance(row[6], str) else row[6]
        stored[row[0]] = row, digest(payload)
        copies[row[0]] += 1
        places[row[3], row[4]] += 1
    changed = [
        op_id
        for op_id, (row, payload_sha256) in stored.items()
        if op_id in sent
        and (sent[op_id]["payload_sha256"], sent[op_id]["kind"], sent[op_id]["task_id"])
        != (payload_sha256, row[5], row[1])
    ]
    return {
        "operations_sent": len(sent),
        "operations_stored": len(stored),
        "lost": len(confirmed - set(stored)),
        "doubled": sum(n - 1 for n in copies.values()) + sum(n - 1 for n in places.values()),
        "foreign": len(set(stored) - set(sent)),
        "changed": len(changed),
        "unconfirmed": len(set(sent) - confirmed),
        "gaps": count_gaps([*fixes, *(row for row, _ in stored.values())]),
    }


def count_gaps(rows: list[Row]) -> int:
    """Count the revisions missing from main lines: each line has 1, 2, 3, ... once."""
    lines: dict[tuple[int, str], list[int]] = collections.defaultdict(list)
    merged = {(row[1], row[2]) for row in rows if row[7]}  # copies of branches have revisions, too
    for row in rows:
        if row[5] not in PASSIVE and not row[7] and (row[1], row[2]) not in merged:
            lines[row[1], row[2]].append(row[8])
    return sum(sorted(revisions) != list(range(1, len(revisions) + 1)) for revisions in lines.values())


def check_tasks(database: Database, events: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """Look for tasks that two annotators held at the same time, or that two submissions answer."""
    held: dict[int, list[tuple[float, float, str]]] = collections.defaultdict(list)
    for task_id, annotator, granted_at, ended_at in database.rows(
        "SELECT task_id, annotator, granted_at, ended_at FROM leases"
    ):
        held[task_id].append((granted_at, ended_at if ended_at is not None else float("inf"), annotator))
    twice = 0
    for leases in held.values():
        leases.sort()
        twice += sum(first[1] > second[0] for first, second in itertools.pairwise(leases))
    submissions = database.rows("SELECT submission_id, task_id, masks, token, state, fixes FROM submissions")
    counted = [row for row in submissions if row[4] in COUNTED]
    twice += too_many(task_id for _, task_id, _, _, _, fixes in counted if fixes is None)
    twice += too_many(token for _, _, _, token, _, _ in submissions)
    replaced = {fixes for *_, fixes in counted}
    tokens = {row[0] for row in database.rows("SELECT token FROM leases")}
    claims = [event["token"] for event in events["claimed"]]
    twice += len(claims) - len(set(claims))
    logged = {(event["submission_id"], event["task_id"], event["masks"]) for event in events["submitted"]}
    return {
        "tasks_given_twice": twice,
        "claims_not_stored": len(set(claims) - tokens),
        "submissions": len(submissions),
        "submissions_lost": len(logged - {row[:3] for row in submissions}),
        "masks": sum(row[2] for row in counted if row[0] not in replaced),
    }


def check_reviews(database: Database, events: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """Compare verdicts, and what reviewers did with submissions, by what each reviewer was told is done."""
    # Verdicts: a reviewer is asked each question once
    columns = ("reviewer", "submission_id", "question", "mask", "answer")
    verdicts = database.rows(f"SELECT {', '.join(columns)} FROM verdicts")
    given = {tuple(event["who" if name == "reviewer" else name] for name in columns) for event in events["verdict"]}

    # Submissions accepted, sent back and fixed
    log = database.rows("SELECT actor, action, subject FROM audit_log")
    accepted = {subject for _, action, subject in log if action == "accept submission"}
    sent_back = [(actor, subject) for actor, action, subject in log if action == "send back"]
    rows = database.rows("SELECT annotator, fixes, state FROM submissions WHERE fixes IS NOT NULL")
    fixed = {(annotator, f"submission {fixes}") for annotator, fixes, _ in rows}
    outcomes = collections.Counter(event["outcome"] for event in events["reviewed"])
    lost = 0
    for event in events["reviewed"]:
        subject = f"submission {event['submission_id']}"
        act = (event["who"], subject)
        done = {"accepted": subject in accepted, "sent_back": act in sent_back, "fixed": act in fixed}
        lost += not done[event["outcome"]]
    return {
        "verdicts": len(verdicts),
        "verdicts_lost": len(given - set(verdicts)),
        "verdicts_doubled": too_many(row[:4] for row in verdicts),
        **{name: outcomes[name] for name in ("accepted", "sent_back", "fixed")},
        "reviews_lost": lost,
        "reviews_doubled": too_many(subject for _, subject in sent_back)
        + too_many(fixes for _, fixes, state in rows if state in COUNTED),
    }


def too_many(values: Iterable[Hashable]) -> int:
    """Count the values that are there again."""
    return sum(count - 1 for count in collections.Counter(values).values())


def route_times(requests: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The p50 and p95 of answered requests in milliseconds, by route."""
    taken: dict[str, list[float]] = collections.defaultdict(list)
    for event in requests:
        route = re.sub(r"/(\d+|branch-\w+)(?=/|$)", "/{id}", f"{event['method']} {event['path']}")
        if event["status"] < 500:
            taken[route].append(event["ms"])
    return {
        route: [quantile(sorted(values), 0.5), quantile(sorted(values), 0.95)]
        for route, values in sorted(taken.items())
    }


def digest(payload: Any) -> str:
    """Hash a payload in one form of its JSON."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def quantile(values: list[float], fraction: float) -> float:
    """The value that a fraction of the sorted values does not exceed; 0 without values."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return round(statistics.quantiles(values, n=100, method="inclusive")[round(100 * fraction) - 1], 1)


if __name__ == "__main__":
    print(json.dumps(check(Path(sys.argv[1]), sys.argv[2])))
