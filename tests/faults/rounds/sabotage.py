"""Ways to break the workspace and the closing of rounds. The harness must notice each.

Each takes a `patch` that is called like `setattr`; a test gives one that is undone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages.rounds import answers, close
from stages.rounds.standing import Standing
from storage.workspace import leases, operations, rounds, submissions
from storage.workspace.columns import seconds_from_now
from storage.workspace.lines import Line
from storage.workspace.operations import Operations
from storage.workspace.records import AppendResult, ClientRequest, Operation, Round, RoundSpec
from storage.workspace.rounds import Rounds
from storage.workspace.submissions import Submissions
from tests.faults.rounds.clients import uuid7
from tests.faults.rounds.kinds.batches import DISTURBED
from tests.faults.rounds.kinds.clocks import JUMPED
from tests.faults.rounds.kinds.kills import KILLED, OVERTAKEN

Patch = Callable[[Any, str, Any], None]


def submit_to_rounds_that_are_closing(patch: Patch) -> None:
    """A submission does not ask whether its round is still open."""
    patch(submissions, "check_state", lambda found, states: None)


def write_with_ended_leases(patch: Patch) -> None:
    """An operation of a lease that has ended joins the main line."""
    patch(leases, "lock_slot", lambda connection, row: True)


def store_a_batch_in_pieces(patch: Patch) -> None:
    """Each operation of a batch has a transaction of its own."""
    real = Operations.append

    def append(self: Operations, token: str, some: Sequence[Operation]) -> AppendResult:
        results = [real(self, token, [each]) for each in some]
        stored = tuple(op_id for each in results for op_id in each.stored)
        return replace(results[-1], stored=stored)

    patch(Operations, "append", append)


def open_in_pieces(patch: Patch) -> None:
    """A round is opened with one image, and the others are added."""
    real = Rounds.open_once

    def open_once(self: Rounds, spec: RoundSpec, request: ClientRequest | None, **more: Any) -> tuple[Round, bool]:
        opened, is_new = real(self, replace(spec, tasks=spec.tasks[:1]), request, **more)
        if is_new:
            self.extend(opened.round_id, spec.tasks[1:])
        return opened, is_new

    patch(Rounds, "open_once", open_once)


def forget_requests(patch: Patch) -> None:
    """A request to open a round is not stored, so that it counts again when it comes again."""
    patch(rounds, "store_request", lambda *some, **more: None)


def end_closing_too_early(patch: Patch) -> None:
    """A round is marked as closed once it has its plan."""
    real = close._plan

    def plan(dataset: Any, workspace: Any, frozen: Round, chosen: Any) -> Any:
        made = real(dataset, workspace, frozen, chosen)
        workspace.rounds.end_closing(frozen.round_id)
        return made

    patch(close, "_plan", plan)


def withdraw_nothing(patch: Patch) -> None:
    """Closing leaves the masks in the dataset that annotators replaced."""
    patch(close, "_replaced", lambda *some: {})


def keep_what_other_rounds_made(patch: Patch) -> None:
    """An edit leaves what another round made of the same prefilled mask."""
    patch(Standing, "made_of", lambda self, image_id, given: set())


def count_what_was_withdrawn(patch: Patch) -> None:
    """Closing takes submissions that were withdrawn."""
    patch(answers, "COUNTED", ("submitted", "accepted", "withdrawn"))


def merge_under_new_ids(patch: Patch) -> None:
    """Merging a branch again copies it again."""
    real = operations._copy
    patch(operations, "_copy", lambda *some: replace(real(*some), op_id=uuid7()))


def submit_in_two_transactions(patch: Patch) -> None:
    """A submission ends its lease afterwards."""
    real = Submissions.submit

    def submit(self: Submissions, token: str, revision: int) -> Any:
        ends: list[tuple[Any, ...]] = []
        end = leases.end
        leases.end = lambda connection, *some, **more: ends.append((some, more))
        try:
            submitted = real(self, token, revision)
        finally:
            leases.end = end
        with self._database.write() as connection:
            for some, more in ends:
                end(connection, *some, **more)
        return submitted

    patch(Submissions, "submit", submit)


def let_leases_end_too_early(patch: Patch) -> None:
    """A claim takes the time for 700 seconds later than it is."""
    patch(leases, "now", lambda: seconds_from_now(700))


def take_late_work_in_any_order(patch: Patch) -> None:
    """A late operation does not wait for its predecessors."""
    patch(Line, "_check_predecessor", lambda self, operation: None)


def forget_what_is_stored(patch: Patch) -> None:
    """An operation that comes again under another base revision counts as new."""
    patch(operations, "_known", lambda *some, **more: {})


def acknowledge_too_early(patch: Patch) -> None:
    """Operations are stored with the next call, and confirmed at once."""
    real, waiting = Operations.append, list[tuple[str, Sequence[Operation]]]()

    def append(self: Operations, token: str, some: Sequence[Operation]) -> AppendResult:
        while waiting:
            real(self, *waiting.pop())
        waiting.append((token, some))
        ids = tuple(each.op_id for each in some)
        return AppendResult(stored=ids, known=(), revision=0, branch="", reason="", expires_at=None)

    patch(Operations, "append", append)


@dataclass(frozen=True, kw_only=True)
class Sabotage:
    """A break of the code, and the cases that show it: what job is struck, and how."""

    install: Callable[[Patch], None]
    job: str
    how: str


KINDS = {
    "freezing": Sabotage(install=submit_to_rounds_that_are_closing, job="submit", how=OVERTAKEN),
    "leases": Sabotage(install=write_with_ended_leases, job="append", how=OVERTAKEN),
    "batches": Sabotage(install=store_a_batch_in_pieces, job="append", how=KILLED),
    "opening": Sabotage(install=open_in_pieces, job="open", how=KILLED),
    "asking": Sabotage(install=forget_requests, job="open", how=KILLED),
    "ending": Sabotage(install=end_closing_too_early, job="close", how=KILLED),
    "withdrawing": Sabotage(install=withdraw_nothing, job="close", how=KILLED),
    "superseding": Sabotage(install=keep_what_other_rounds_made, job="close beside another", how=KILLED),
    "counting": Sabotage(install=count_what_was_withdrawn, job="withdraw before closing", how=KILLED),
    "merging": Sabotage(install=merge_under_new_ids, job="merge", how=KILLED),
    "expiring": Sabotage(install=let_leases_end_too_early, job="close", how=JUMPED),
    "ordering": Sabotage(install=take_late_work_in_any_order, job="close", how=DISTURBED),
    "repeating": Sabotage(install=forget_what_is_stored, job="close", how=DISTURBED),
    "confirming": Sabotage(install=acknowledge_too_early, job="append", how=KILLED),
    "submitting": Sabotage(install=submit_in_two_transactions, job="submit", how=KILLED),
}
