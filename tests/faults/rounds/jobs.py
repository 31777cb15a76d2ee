"""What is struck: everything that people and leads do to a round, each as one job that can be done again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from stages.rounds.close import close_round
from stages.rounds.open import RoundRequest, choose_for, make_tasks, open_round, request_of
from stages.rounds.withdraw import withdraw_work
from storage.errors import StoreError
from storage.workspace.database import WorkspaceUnavailable
from storage.workspace.leases import StaleLease
from storage.workspace.records import RoundState
from tests.faults import truth
from tests.faults.checks.findings import LOST, Finding
from tests.faults.rounds.checks.workspace_rows import COUNTED, Tables
from tests.faults.rounds.clients import Page, claim, made
from tests.faults.rounds.promises import Promises
from tests.faults.rounds.worlds import Opened, World, claimed, prefill_of

DONE, REFUSED, UNAVAILABLE = "done", "refused", "unavailable"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended: done, refused with an error that its caller understands, or without the database."""

    kind: str
    message: str = ""
    promises: Promises


@dataclass(frozen=True, kw_only=True)
class RoundJob:
    """A job upon a world.

    `prepare` makes the world ready, and returns what the job needs to know; `do` adds to the promises what was
    acknowledged; `effect` says what is wrong once the job is done.
    """

    do: Callable[[Opened, Promises], object]
    prepare: Callable[[Opened, Promises], dict[str, Any]] = lambda opened, promises: {}
    effect: Callable[[World, Tables], Iterable[Finding]] = lambda world, tables: ()
    takes_back: str = ""
    """Annotator whose masks it withdraws from the dataset."""


def attempt(world: World, job: RoundJob) -> Outcome:
    """Does a job in a worker."""
    promises = Promises()
    try:
        opened = world.open()
        job.do(opened, promises)
    except WorkspaceUnavailable as error:
        return Outcome(kind=UNAVAILABLE, message=str(error), promises=promises)
    except (ValueError, StoreError) as error:
        return Outcome(kind=REFUSED, message=str(error), promises=promises)
    return Outcome(kind=DONE, promises=promises)


def prepared(world: World, job: RoundJob) -> World:
    """The world of a job, in a worker."""
    opened = world.open()
    facts = job.prepare(opened, world.promises)
    opened.workspace.close()
    taken = {(world.round_id, job.takes_back)} if job.takes_back else set()
    return replace(world, facts=facts, taken_back=frozenset(taken))


# Rounds


def close(opened: Opened, promises: Promises) -> None:
    close_round(opened.dataset, opened.workspace, opened.world.round_id)


def close_all(opened: Opened, promises: Promises) -> None:
    """Every round, however it stands."""
    for each in opened.workspace.rounds.read_all():
        if each.state is RoundState.CANCELLED:
            opened.workspace.rounds.reopen(each.round_id)
        close_round(opened.dataset, opened.workspace, each.round_id)


def withdraw(opened: Opened, promises: Promises) -> None:
    withdraw_work(opened.dataset, opened.workspace, opened.world.round_id, "ann", "asked for")


def cancel(opened: Opened, promises: Promises) -> None:
    opened.workspace.rounds.cancel(opened.world.round_id)


def reopen(opened: Opened, promises: Promises) -> None:
    opened.workspace.rounds.reopen(opened.world.round_id)


def open_another(opened: Opened, promises: Promises) -> None:
    query = "SELECT image_id FROM images ORDER BY image_id"
    request = RoundRequest(stage="semi_automatic", images=4, query=query, name="opened", overlap=2)
    images = choose_for(opened.dataset, opened.workspace, request)
    prefilled = {each.image_id: prefill_of(opened.dataset, each.image_id) for each in images}
    open_round(opened.workspace, request, make_tasks(opened.dataset, request, images, prefilled))


def extend(opened: Opened, promises: Promises) -> None:
    ids = ", ".join(str(each) for each in further_images())
    query = f"SELECT image_id FROM images WHERE image_id IN ({ids}) ORDER BY image_id"
    found = opened.workspace.rounds.get(opened.world.round_id)
    request = request_of(found, query=query)
    tasks = make_tasks(opened.dataset, request, choose_for(opened.dataset, opened.workspace, request))
    opened.workspace.rounds.extend(opened.world.round_id, tasks)


def further_images() -> list[int]:
    """Images that the base round does not ask about."""
    return [truth.image_id(number) for number in (9, 10)]


def after_close(opened: Opened, promises: Promises) -> dict[str, Any]:
    close(opened, promises)
    return {}


def after_cancel(opened: Opened, promises: Promises) -> dict[str, Any]:
    cancel(opened, promises)
    return {}


def is_in(state: str) -> Callable[[World, Tables], Iterable[Finding]]:
    """The round is in a state."""

    def effect(world: World, tables: Tables) -> Iterable[Finding]:
        (found,) = (row["state"] for row in tables.rounds if row["round_id"] == world.round_id)
        return [] if found == state else [lost("round", f"is {found}, expected {state}")]

    return effect


def is_taken_back(world: World, tables: Tables) -> Iterable[Finding]:
    """No submission of ann counts."""
    left = [row for row in tables.submissions if row["annotator"] == "ann" and row["state"] in COUNTED]
    return [lost("withdrawal", f"{len(left)} submissions still count")] if left else []


def is_opened(world: World, tables: Tables) -> Iterable[Finding]:
    """Each round that was opened is whole."""
    rounds = [row["round_id"] for row in tables.rounds if row["name"] == "opened"]
    if not rounds:
        yield lost("round", "was not opened")
    for round_id in rounds:
        yield from whole(tables, round_id, tasks=4, slots=8, given=12)


def is_extended(world: World, tables: Tables) -> Iterable[Finding]:
    """The round has each further image once."""
    images = sorted(row["image_id"] for row in tables.tasks if row["round_id"] == world.round_id)
    expected = sorted({*images, *further_images()})
    if images != expected:
        yield lost("task", f"the round has the images {images}, expected {expected}")
    yield from whole(tables, world.round_id, tasks=8, slots=9, given=7)


def whole(tables: Tables, round_id: str, *, tasks: int, slots: int, given: int) -> list[Finding]:
    """A round has so many tasks, slots and given masks."""
    ids = {row["task_id"] for row in tables.tasks if row["round_id"] == round_id}
    counts = (
        len(ids),
        sum(row["task_id"] in ids for row in tables.slots),
        sum(row["task_id"] in ids for row in tables.given),
    )
    return [] if counts == (tasks, slots, given) else [lost("task", f"{round_id} has {counts} tasks, slots, masks")]


def lost(thing: str, what: str) -> Finding:
    return Finding(kind=LOST, thing=thing, what=what)


# Work of annotators and reviewers


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
    page = claim(opened.workspace, "bob", promises)
    held = opened.workspace.leases.held("bob")
    promises.claimed.update({each.token for each in held})
    assert page or held, "bob was given no task"


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


JOBS: dict[str, RoundJob] = {
    "close": RoundJob(do=close, effect=is_in("closed")),
    "withdraw before closing": RoundJob(do=withdraw, effect=is_taken_back),
    "withdraw after closing": RoundJob(prepare=after_close, do=withdraw, effect=is_in("closed"), takes_back="ann"),
    "cancel": RoundJob(do=cancel, effect=is_in("cancelled")),
    "reopen": RoundJob(prepare=after_cancel, do=reopen, effect=is_in("open")),
    "open": RoundJob(do=open_another, effect=is_opened),
    "extend": RoundJob(do=extend, effect=is_extended),
    "append": RoundJob(prepare=with_a_task, do=append, effect=is_stored),
    "submit": RoundJob(prepare=with_finished_work, do=submit, effect=is_submitted),
    "claim": RoundJob(do=claim_a_task),
    "skip": RoundJob(prepare=with_a_task, do=skip, effect=has_ended("skipped")),
    "hand back": RoundJob(prepare=with_a_task, do=hand_back, effect=has_ended("handed_back")),
    "release": RoundJob(prepare=with_a_task, do=release, effect=has_ended("released")),
    "merge": RoundJob(prepare=with_a_branch, do=merge, effect=is_merged),
    "accept": RoundJob(prepare=with_a_submission, do=accept, effect=is_judged("accepted")),
    "send back": RoundJob(prepare=with_a_submission, do=send_back, effect=is_judged("sent_back")),
    "fix": RoundJob(prepare=with_a_fix, do=fix, effect=is_fixed),
    "judge": RoundJob(prepare=with_a_submission, do=judge),
}
"""By name, each job; all are done again until they are done."""
