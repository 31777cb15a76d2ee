"""What is struck: everything that people and leads do to a round, each as one job that can be done again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from storage.errors import InvalidInput, StoreError
from storage.workspace.database import WorkspaceUnavailable
from tests.faults.checks.findings import Finding
from tests.faults.rounds import lead_acts as lead
from tests.faults.rounds import work_acts as work
from tests.faults.rounds.checks.workspace_rows import Tables
from tests.faults.rounds.promises import Promises
from tests.faults.rounds.worlds import Opened, World

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
    except (InvalidInput, StoreError) as error:
        return Outcome(kind=REFUSED, message=str(error), promises=promises)
    return Outcome(kind=DONE, promises=promises)


def prepared(world: World, job: RoundJob) -> World:
    """The world of a job, in a worker."""
    opened = world.open()
    facts = job.prepare(opened, world.promises)
    opened.workspace.close()
    taken = {(world.round_id, job.takes_back)} if job.takes_back else set()
    return replace(world, facts=facts, taken_back=frozenset(taken))


JOBS: dict[str, RoundJob] = {
    "close": RoundJob(do=lead.close, effect=lead.is_in("closed")),
    "close beside another": RoundJob(prepare=lead.with_another_round, do=lead.close, effect=lead.is_in("closed")),
    "withdraw before closing": RoundJob(do=lead.withdraw, effect=lead.is_taken_back),
    "withdraw after closing": RoundJob(
        prepare=lead.after_close, do=lead.withdraw, effect=lead.is_in("closed"), takes_back="ann"
    ),
    "cancel": RoundJob(do=lead.cancel, effect=lead.is_in("cancelled")),
    "reopen": RoundJob(prepare=lead.after_cancel, do=lead.reopen, effect=lead.is_in("open")),
    "open": RoundJob(do=lead.open_another, effect=lead.is_opened),
    "extend": RoundJob(do=lead.extend, effect=lead.is_extended),
    "append": RoundJob(prepare=work.with_a_task, do=work.append, effect=work.is_stored),
    "submit": RoundJob(prepare=work.with_finished_work, do=work.submit, effect=work.is_submitted),
    "claim": RoundJob(do=work.claim_a_task, effect=work.is_claimed),
    "skip": RoundJob(prepare=work.with_a_task, do=work.skip, effect=work.has_ended("skipped")),
    "hand back": RoundJob(prepare=work.with_a_task, do=work.hand_back, effect=work.has_ended("handed_back")),
    "release": RoundJob(prepare=work.with_a_task, do=work.release, effect=work.has_ended("released")),
    "merge": RoundJob(prepare=work.with_a_branch, do=work.merge, effect=work.is_merged),
    "accept": RoundJob(prepare=work.with_a_submission, do=work.accept, effect=work.is_judged("accepted")),
    "send back": RoundJob(prepare=work.with_a_submission, do=work.send_back, effect=work.is_judged("sent_back")),
    "fix": RoundJob(prepare=work.with_a_fix, do=work.fix, effect=work.is_fixed),
    "judge": RoundJob(prepare=work.with_a_submission, do=work.judge),
}
"""By name, each job; all are done again until they are done."""
