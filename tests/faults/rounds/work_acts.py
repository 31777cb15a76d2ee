"""What annotators and reviewers do: claim, draw, submit, skip, hand back, merge; accept, send back, fix, judge."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from storage.workspace.leases import StaleLease
from tests.faults.checks.findings import Finding
from tests.faults.rounds.checks.workspace_rows import Tables, lost
from tests.faults.rounds.clients import Page, claim, made
from tests.faults.rounds.promises import Promises
from tests.faults.rounds.worlds import Opened, World, claimed


def with_a_task(opened: Opened, promises: Promises) -> dict[str, Any]:
    """bob holds the last task, and has made some operations that he has not sent."""
    page = claimed(opened.workspace, "bob", promises)
    batch = [
        page.make("add", made("m1", 301)),
        page.make("activity", {"inputs": [[0.0, None], [2.0, "m1"]]}),
        page.make("change", made("m1", 302)),
        page.make("add", made("m2", 303)),
    ]
    return {"token": page.token, "task_id": page.task_id, "batch": batch, "revision": page.revision}


def with_finished_work(opened: Opened, promises: Promises) -> dict[str, Any]:
    """bob has sent what he made, and has not submitted it."""
    facts = with_a_task(opened, promises)
    append(replace(opened, world=replace(opened.world, facts=facts)), promises)
    return facts


def with_a_branch(opened: Opened, promises: Promises) -> dict[str, Any]:
    """ann has her last task again, and her late work lies on a branch."""
    page = claimed(opened.workspace, "ann", promises)
    (branch,) = opened.workspace.operations.branches(page.task_id)
    return {"token": page.token, "task_id": page.task_id, "branch": branch.branch}


def with_a_submission(opened: Opened, promises: Promises) -> dict[str, Any]:
    """The submission that is judged: ann's first one."""
    first = opened.workspace.submissions.read(round_id=opened.world.round_id)[0]
    return {"submission_id": first.submission_id}


def append(opened: Opened, promises: Promises) -> None:
    facts = opened.world.facts
    result = opened.workspace.operations.append(facts["token"], facts["batch"])
    promises.stored.update({*result.stored, *result.known})


def submit(opened: Opened, promises: Promises) -> None:
    facts = opened.world.facts
    submission = opened.workspace.submissions.submit(facts["token"], facts["revision"])
    promises.submitted[facts["token"]] = submission.revision


def claim_a_task(opened: Opened, promises: Promises) -> None:
    """What a page does that hears nothing: it asks again, and reads what is held."""
    claim(opened.workspace, "bob", promises)
    promises.claimed.update({each.token for each in opened.workspace.leases.held("bob")})


def claim_for_ann(opened: Opened, promises: Promises) -> None:
    claim(opened.workspace, "ann", promises)


def skip(opened: Opened, promises: Promises) -> None:
    ended(lambda: opened.workspace.leases.skip(opened.world.facts["token"], "too dark"))


def hand_back(opened: Opened, promises: Promises) -> None:
    ended(lambda: opened.workspace.leases.hand_back(opened.world.facts["token"]))


def release(opened: Opened, promises: Promises) -> None:
    ended(lambda: opened.workspace.leases.release(opened.world.facts["token"], actor="lea"))


def ended(call: Callable[[], object]) -> None:
    """Ends a lease, as a client does that was not answered: a lease that has ended is what it wants."""
    try:
        call()
    except StaleLease:
        return


def merge(opened: Opened, promises: Promises) -> None:
    facts = opened.world.facts
    opened.workspace.operations.merge(facts["branch"], facts["token"], actor="ann")


def accept(opened: Opened, promises: Promises) -> None:
    opened.workspace.submissions.accept(opened.world.facts["submission_id"], actor="rita")


def send_back(opened: Opened, promises: Promises) -> None:
    submission_id = opened.world.facts["submission_id"]
    if opened.workspace.submissions.get(submission_id).state != "sent_back":
        opened.workspace.submissions.send_back(submission_id, "leaks", actor="rita")


def judge(opened: Opened, promises: Promises) -> None:
    more = {"reviewer": "rita", "question": "mask_good", "answer": "no", "mask": "p0"}
    opened.workspace.submissions.add_verdict(opened.world.facts["submission_id"], **more)


def with_a_fix(opened: Opened, promises: Promises) -> dict[str, Any]:
    """The submission that rita fixes, and the operations that she will make."""
    first = opened.workspace.submissions.read(round_id=opened.world.round_id)[0]
    page = Page("rita", first.task_id, "", 1, promises)
    batch = [page.make("change", made("m1", 401)), page.make("remove", {"mask": "p1"})]
    return {"submission_id": first.submission_id, "batch": batch, "revision": page.revision}


def fix(opened: Opened, promises: Promises) -> None:
    """A reviewer draws one mask of a submission anew, and removes another one."""
    facts, workspace = opened.world.facts, opened.workspace
    if is_fixed_already(opened):
        return
    lease = workspace.fixes.begin(facts["submission_id"], reviewer="rita")
    promises.claimed.add(lease.token)
    result = workspace.operations.append(lease.token, facts["batch"])
    promises.stored.update({*result.stored, *result.known})
    submission = workspace.submissions.submit(lease.token, facts["revision"])
    promises.submitted[lease.token] = submission.revision


def is_fixed_already(opened: Opened) -> bool:
    every = opened.workspace.submissions.read()
    return opened.world.facts["submission_id"] in [each.fixes for each in every]


def fix_by_another(opened: Opened, promises: Promises) -> None:
    """The other reviewer takes it up, and hands it back."""
    lease = opened.workspace.fixes.begin(opened.world.facts["submission_id"], reviewer="lea")
    promises.claimed.add(lease.token)
    opened.workspace.leases.hand_back(lease.token)


def is_fixed(world: World, tables: Tables) -> Iterable[Finding]:
    """One fix has taken the place of the submission."""
    fixes = [row["state"] for row in tables.submissions if row["fixes"] == world.facts["submission_id"]]
    return [] if fixes == ["accepted"] else [lost("fix", f"there are {fixes}, expected one that is accepted")]


def is_claimed(world: World, tables: Tables) -> Iterable[Finding]:
    """bob holds a task."""
    held = [row for row in tables.slots if row["annotator"] == "bob" and row["token"]]
    return [] if held else [lost("lease", "bob was given no task")]


def is_stored(world: World, tables: Tables) -> Iterable[Finding]:
    """The whole batch is stored."""
    sent = {each.op_id for each in world.facts["batch"]}
    stored = sent & {row["op_id"] for row in tables.operations}
    return [] if stored == sent else [lost("operation", f"{len(sent - stored)} of a batch")]


def is_submitted(world: World, tables: Tables) -> Iterable[Finding]:
    tokens = [row["token"] for row in tables.submissions if row["token"] == world.facts["token"]]
    return [] if tokens else [lost("submission", "is not there")]


def has_ended(outcome: str) -> Callable[[World, Tables], Iterable[Finding]]:
    """The lease has ended in this way."""

    def effect(world: World, tables: Tables) -> Iterable[Finding]:
        (got,) = (row["outcome"] for row in tables.leases if row["token"] == world.facts["token"])
        return [] if got == outcome else [lost("lease", f"ended as {got!r}, expected {outcome}")]

    return effect


def is_merged(world: World, tables: Tables) -> Iterable[Finding]:
    states = [row["state"] for row in tables.branches if row["branch"] == world.facts["branch"]]
    return [] if states == ["merged"] else [lost("merge", f"the branch is {states}")]


def is_judged(state: str) -> Callable[[World, Tables], Iterable[Finding]]:
    """The submission is in this state."""

    def effect(world: World, tables: Tables) -> Iterable[Finding]:
        by_id = {row["submission_id"]: row["state"] for row in tables.submissions}
        got = by_id[world.facts["submission_id"]]
        return [] if got == state else [lost("judgement", f"the submission is {got}, expected {state}")]

    return effect
