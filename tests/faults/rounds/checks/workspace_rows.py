"""The rows of a workspace, looked at by plain SQL: what must hold at any time, whatever was killed or frozen.

Every acknowledged operation is stored once, with its content; lines have no gaps; a slot has one live lease, and a
submission the masks that its operations give.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.faults.checks.findings import DOUBLED, FOREIGN, LOST, TORN, Finding
from tests.faults.rounds.checks.refold import PASSIVE, Drawn, Refolded, document, prefilled, refold
from tests.faults.rounds.databases import Rows
from tests.faults.rounds.promises import Promises, Sent

COUNTED = ("submitted", "accepted")
"""States of submissions that count."""
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """All rows of a workspace that are looked at."""

    rounds: list[Row]
    tasks: list[Row]
    given: list[Row]
    slots: list[Row]
    leases: list[Row]
    assignments: list[Row]
    branches: list[Row]
    operations: list[Row]
    submissions: list[Row]

    @classmethod
    def read(cls, place: str) -> "Tables":
        names = ("rounds", "tasks", "slots", "leases", "assignments", "branches")
        with Rows(place) as rows:
            return cls(
                **{name: rows.of(f"SELECT * FROM {name}") for name in names},
                given=rows.of("SELECT * FROM given_masks ORDER BY task_id, position"),
                operations=rows.of("SELECT * FROM operations ORDER BY number"),
                submissions=rows.of("SELECT * FROM submissions ORDER BY submission_id"),
            )

    @cached_property
    def lines(self) -> Mapping[tuple[int, str], list[Row]]:
        """Operations of each annotator's main line on each task, in their order."""
        lines: dict[tuple[int, str], list[Row]] = defaultdict(list)
        for row in self.operations:
            if not row["branch"]:
                lines[row["task_id"], row["annotator"]].append(row)
        return lines

    def prefill(self, task_id: int) -> dict[str, Drawn]:
        """Masks that a task begins with, by name."""
        rows = (row for row in self.given if (row["task_id"], row["purpose"]) == (task_id, "prefill"))
        return dict(prefilled(row["mask"], document(row["payload"])) for row in rows)

    def refold(self, task_id: int, annotator: str, revision: int) -> Refolded:
        """The masks of a main line at a revision."""
        line = (row for row in self.lines[task_id, annotator] if row["revision"] <= revision)
        return refold(self.prefill(task_id), ((row["kind"], document(row["payload"])) for row in line))


def check_rows(tables: Tables, promises: Promises, *, steady_clock: bool = True) -> list[Finding]:
    """What is wrong. `steady_clock`: whether the server's clock never went back, so that times tell an order."""
    return [
        *operation_findings(tables, promises),
        *line_findings(tables),
        *branch_findings(tables),
        *lease_findings(tables, promises),
        *submission_findings(tables, promises),
        *(late_findings(tables) if steady_clock else ()),
    ]


def operation_findings(tables: Tables, promises: Promises) -> Iterator[Finding]:
    """Acknowledged operations are there once, as they were sent; copies that merging made once for each original."""
    branches = {row["branch"]: row for row in tables.branches}
    own = [row for row in tables.operations if row["session"] not in branches]
    copies = Counter(row["op_id"] for row in own)
    for op_id in promises.stored - set(copies):
        yield Finding(kind=LOST, thing="operation", what=f"{op_id} was acknowledged and is gone")
    for row in own:
        sent = promises.sent.get(row["op_id"])
        if row["kind"] == "fix":
            continue  # the server alone makes these
        if sent is None:
            yield Finding(kind=FOREIGN, thing="operation", what=f"{row['op_id']} was never sent")
        elif sent != Sent.of(row):
            yield Finding(kind=TORN, thing="operation", what=f"{row['op_id']} is not as it was sent")
    yield from more_than_one("operation", (row["op_id"] for row in tables.operations))
    yield from more_than_one("action", ((row["session"], row["sequence"]) for row in own))
    merged = defaultdict(list)
    for row in tables.operations:
        merged[row["session"]].append(row["sequence"])
    for name, branch in branches.items():
        originals = [row["sequence"] for row in tables.operations if row["branch"] == name]
        expected = originals if branch["state"] == "merged" else []
        if sorted(merged[name]) != sorted(expected):
            kind = LOST if len(merged[name]) < len(expected) else DOUBLED
            yield Finding(kind=kind, thing="merged operation", what=f"{name}: {merged[name]}, expected {expected}")


def line_findings(tables: Tables) -> Iterator[Finding]:
    """Main lines have the revisions 1, 2, 3, ... once, each made on the one before; the count is that of the line."""
    revisions = {(row["task_id"], row["annotator"]): row["revision"] for row in tables.assignments}
    for key in {*tables.lines, *revisions}:
        line = [row for row in tables.lines[key] if row["kind"] not in PASSIVE]
        found = [row["revision"] for row in line]
        if found != list(range(1, len(line) + 1)):
            yield Finding(kind=TORN, thing="line", what=f"{key} has the revisions {found}")
        if any(row["base_revision"] != row["revision"] - 1 for row in line):
            yield Finding(kind=TORN, thing="line", what=f"{key} took an operation that was made on another revision")
        if revisions.get(key) != len(line):
            yield Finding(kind=TORN, thing="line", what=f"{key} counts {revisions.get(key)} of {len(line)} operations")


def branch_findings(tables: Tables) -> Iterator[Finding]:
    """Branches go on from the revision where they forked."""
    for branch in tables.branches:
        own = [row for row in tables.operations if row["branch"] == branch["branch"]]
        expected = list(range(branch["fork_revision"] + 1, branch["revision"] + 1))
        if [row["revision"] for row in own] != expected:
            yield Finding(kind=TORN, thing="branch", what=f"{branch['branch']} has not the revisions {expected}")
    sessions = {(row["task_id"], row["session"], row["branch"]) for row in tables.operations if row["branch"]}
    yield from more_than_one("branch of a session", ((task_id, session) for task_id, session, _ in sessions))


def lease_findings(tables: Tables, promises: Promises) -> Iterator[Finding]:
    """A slot has one live lease at most, and says so; nobody has two slots of a task; acknowledged leases are there."""
    open_leases = [row for row in tables.leases if row["ended_at"] is None]
    yield from more_than_one("live lease", ((row["task_id"], row["slot"]) for row in open_leases))
    by_token = {row["token"]: row for row in tables.leases}
    for token in promises.claimed - set(by_token):
        yield Finding(kind=LOST, thing="lease", what=f"{token} was given out and is gone")
    tokens = {row["token"]: row for row in tables.slots if row["token"]}
    for row in open_leases:
        slot = tokens.get(row["token"])
        names = ("task_id", "slot") if row["fixes"] else ("task_id", "slot", "annotator")
        if slot is None or any(slot[name] != row[name] for name in names):
            yield Finding(kind=TORN, thing="lease", what=f"{row['token']} lives, but its slot does not know it")
    for token in set(tokens) - {row["token"] for row in open_leases}:
        yield Finding(kind=TORN, thing="slot", what=f"holds the lease {token}, which has ended")
    for slot in tables.slots:
        if slot["done"] and slot["token"] in by_token and not by_token[slot["token"]]["fixes"]:
            yield Finding(kind=TORN, thing="slot", what=f"of task {slot['task_id']} is done and leased")
    held = ((row["task_id"], row["annotator"]) for row in tables.slots if row["annotator"])
    yield from more_than_one("slots of a task and annotator", held)


def submission_findings(tables: Tables, promises: Promises) -> Iterator[Finding]:
    """Acknowledged submissions are there, one a lease; each counts its masks; done slots are those of submissions."""
    by_token = {row["token"]: row for row in tables.submissions}
    for token, revision in promises.submitted.items():
        if token not in by_token:
            yield Finding(kind=LOST, thing="submission", what=f"of the lease {token}, which was acknowledged")
        elif by_token[token]["revision"] != revision:
            yield Finding(kind=TORN, thing="submission", what=f"{token}: {by_token[token]['revision']}, not {revision}")
    yield from more_than_one("submission", (row["token"] for row in tables.submissions))
    counted = [row for row in tables.submissions if row["state"] in COUNTED and not row["fixes"]]
    yield from more_than_one("submission of a task", ((row["task_id"], row["annotator"]) for row in counted))
    standing = {row["submission_id"] for row in tables.submissions if row["state"] in COUNTED}
    for row in tables.submissions:
        if row["submission_id"] in standing and row["fixes"] and row["fixes"] not in standing:
            yield Finding(kind=LOST, thing="fix", what=f"{row['submission_id']} is of a submission that does not count")
        state = tables.refold(row["task_id"], row["annotator"], row["revision"])
        if (len(state.masks), state.revision) != (row["masks"], row["revision"]):
            what = f"{row['submission_id']}: {row['masks']} masks at {row['revision']}, the operations give {state}"
            yield Finding(kind=TORN, thing="submission", what=what)
    done = Counter((row["task_id"], row["annotator"]) for row in tables.slots if row["done"])
    for key in done | Counter((row["task_id"], row["annotator"]) for row in counted):
        if done[key] != sum((row["task_id"], row["annotator"]) == key for row in counted):
            yield Finding(kind=TORN, thing="slot", what=f"{key}: {done[key]} done, not as its submissions say")


def late_findings(tables: Tables) -> Iterator[Finding]:
    """No operation joined a main line after its lease had ended."""
    ended = {row["token"]: row["ended_at"] for row in tables.leases}
    for row in tables.operations:
        end = ended.get(row["token"])
        if not row["branch"] and row["kind"] not in PASSIVE and end is not None and row["server_time"] > end:
            yield Finding(kind=FOREIGN, thing="late operation", what=f"{row['op_id']} is on the main line")


def more_than_one(thing: str, keys: Iterable[Any]) -> Iterator[Finding]:
    for key, count in Counter(keys).items():
        if count > 1:
            yield Finding(kind=DOUBLED, thing=thing, what=f"{key}: {count} times")


def lost(thing: str, what: str) -> Finding:
    return Finding(kind=LOST, thing=thing, what=what)
