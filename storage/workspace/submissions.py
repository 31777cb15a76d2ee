"""Submissions and verdicts: finished work, and what reviewers say about it."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, insert, select, update

from storage.errors import InvalidInput, NotFound
from storage.workspace import audit, leases, lending
from storage.workspace.columns import now, seconds_from_now
from storage.workspace.database import Database
from storage.workspace.lines import state_of
from storage.workspace.records import COUNTED, Round, RoundState, Submission, Verdict
from storage.workspace.round_rows import check_state, locked_round
from storage.workspace.schema import ASSIGNMENTS, ROUNDS, SLOTS, SUBMISSIONS, TASKS, VERDICTS

RESERVED_S = 24 * 3600
"""Seconds for which a task that was sent back is kept for its annotator."""
QUESTIONS = ("mask_good", "nothing_missing")
ANSWERS = ("yes", "no", "unsure")
_MAX_NOTE = 2000
UNFINISHED = (RoundState.OPEN, RoundState.PAUSED)


class StaleRevision(InvalidInput):
    """Error of a submission of another revision than the newest of the line.

    Attributes:
        revision: Newest revision of the line.
    """

    def __init__(self, revision: int, got: int) -> None:
        super().__init__(f"revision {got} was submitted, but the line is at {revision}; read the state and submit that")
        self.revision = revision


class Submissions:
    """Methods for the submissions of a workspace and the verdicts about them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(self, token: str, revision: int) -> Submission:
        """Finish a task: submit the newest revision of the lease's line, and end the lease.

        A reviewer's fix is accepted with that, and takes the place of the submission that it fixes. The submission of a
        task that its annotator opened again takes the place of the earlier one, which is withdrawn. Repeating this does
        no harm: the same lease gives the same submission.

        Raises:
            NotFound: There is no such lease.
            StaleLease: The lease has ended without a submission.
            StaleRevision: The line has another revision; what the client wants to submit is not what is stored.
            ValueError: The round is no longer open.
        """
        with self._database.write() as connection:
            earlier = _of_token(connection, token)
            if earlier is not None:
                return earlier
            found = _lock_round_of(connection, leases.lease_of(connection, token)["task_id"])
            lease = leases.require_current(connection, token)
            earlier = _of_token(connection, token)
            if earlier is not None:
                return earlier
            task_id, annotator = lease["task_id"], lease["annotator"]
            check_state(found, UNFINISHED)
            state = state_of(connection, task_id, annotator)
            if state.revision != revision:
                raise StaleRevision(state.revision, revision)
            row = {
                "task_id": task_id,
                "annotator": annotator,
                "token": token,
                "revision": revision,
                "state": "submitted" if lease["fixes"] is None else "accepted",
                "masks": len(state.masks),
                "fixes": lease["fixes"],
            }
            if lease["fixes"] is None:
                _supersede(connection, task_id, annotator)
            connection.execute(insert(SUBMISSIONS).values(submitted_at=now(), **row))
            leases.end(connection, token, "submitted", free=False)
            leases.set_assignment(connection, task_id, annotator, state="submitted")
            return _require(_of_token(connection, token))

    def get(self, submission_id: int) -> Submission:
        """Read a submission.

        Raises:
            NotFound: There is no such submission.
        """
        with self._database.read() as connection:
            return submission_of(connection, submission_id)

    def read(self, *, round_id: str | None = None, task_id: int | None = None) -> list[Submission]:
        """Read submissions, oldest first; of one round or task, or all. Those sent back or withdrawn are included."""
        query = select(SUBMISSIONS).join(TASKS, TASKS.c.task_id == SUBMISSIONS.c.task_id)
        if round_id is not None:
            query = query.where(TASKS.c.round_id == round_id)
        if task_id is not None:
            query = query.where(TASKS.c.task_id == task_id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(SUBMISSIONS.c.submission_id)).mappings().all()
        return [submission_from(row) for row in rows]

    def read_waiting(self, *, round_id: str | None = None) -> list[Submission]:
        """Read the submissions that a reviewer may accept, fix or send back, oldest first; of one round, or all.

        Those of a round that is closed or cancelled wait no more, nor do those whose place a fix took, nor those that
        their annotators have opened again.
        """
        query = (
            select(SUBMISSIONS)
            .join(TASKS, TASKS.c.task_id == SUBMISSIONS.c.task_id)
            .join(ROUNDS, ROUNDS.c.round_id == TASKS.c.round_id)
            .where(ROUNDS.c.state.in_(UNFINISHED), SUBMISSIONS.c.state.in_(COUNTED), ~lending.is_reopened())
            .order_by(SUBMISSIONS.c.submission_id)
        )
        query = query if round_id is None else query.where(ROUNDS.c.round_id == round_id)
        with self._database.read() as connection:
            counted = [submission_from(row) for row in connection.execute(query).mappings()]
        fixed = replaced_by_fixes(counted)
        return [each for each in counted if each.state == "submitted" and each.submission_id not in fixed]

    def accept(self, submission_id: int, *, actor: str) -> None:
        """Mark a submission as reviewed and good. Repeating this does no harm.

        Raises:
            NotFound: There is no such submission.
            Conflict: Its annotator has opened it again.
            ValueError: It was sent back, withdrawn or fixed, or the round is no longer open.
        """
        with self._database.write() as connection:
            found = lock_for_review(connection, submission_id)
            if found.state == "accepted":
                return
            lending.check_not_reopened(connection, found)
            _set(connection, submission_id, "accepted")
            audit.record(connection, actor, "accept submission", f"submission {submission_id}")

    def send_back(self, submission_id: int, reason: str, *, actor: str) -> None:
        """Send a submission back: its annotator is given the task first, with the reason, and goes on from there.

        Raises:
            NotFound: There is no such submission.
            Conflict: Its annotator has opened it again.
            ValueError: It was sent back, withdrawn or fixed already, is itself a fix, or the round is no longer open.
        """
        with self._database.write() as connection:
            found = lock_for_review(connection, submission_id)
            if found.fixes is not None:
                raise InvalidInput(f"submission {submission_id} is a fix by {found.annotator}; fix it instead")
            lending.check_not_reopened(connection, found)
            _set(connection, submission_id, "sent_back")
            mine = and_(SLOTS.c.task_id == found.task_id, SLOTS.c.annotator == found.annotator)
            leases.end_on_slots(connection, mine, "sent_back")  # a fix in progress
            reserved = {"done": False, "token": None}
            connection.execute(update(SLOTS).where(mine).values(expires_at=seconds_from_now(RESERVED_S), **reserved))
            leases.set_assignment(connection, found.task_id, found.annotator, state="sent_back", reason=reason)
            audit.record(connection, actor, "send back", f"submission {submission_id}", {"reason": reason})

    def withdraw(self, round_id: str, annotator: str, *, actor: str, reason: str = "") -> list[Submission]:
        """Take an annotator's submissions of a round back, so that closing leaves them out; return them.

        Their tasks are free for others. Fixes of an annotator's submissions go with them. Without a reviewer's fix, the
        submission that it took the place of counts again.

        Raises:
            NotFound: There is no such round.
            ValueError: The round is closed or being closed: withdraw the masks from the dataset instead.
        """
        with self._database.write() as connection:
            locked_round(connection, round_id, (*UNFINISHED, RoundState.CANCELLED))  # which may be reopened
            query = (
                select(SUBMISSIONS)
                .join(TASKS, TASKS.c.task_id == SUBMISSIONS.c.task_id)
                .where(TASKS.c.round_id == round_id, SUBMISSIONS.c.state.in_(COUNTED))
                .order_by(SUBMISSIONS.c.submission_id)
            )
            counted = [submission_from(row) for row in connection.execute(query).mappings()]
            found = with_their_fixes(counted, {annotator})
            for each in found:
                _set(connection, each.submission_id, "withdrawn")
                mine = and_(SLOTS.c.task_id == each.task_id, SLOTS.c.annotator == annotator)
                leases.end_on_slots(connection, mine, "withdrawn")  # a fix in progress
                freed = {"done": False, "token": None, "expires_at": None, "annotator": None}
                connection.execute(update(SLOTS).where(mine).values(**freed))
            details = {"annotator": annotator, "submissions": len(found), "reason": reason}
            audit.record(connection, actor, "withdraw submissions", round_id, details)
        return found

    def add_verdict(
        self,
        submission_id: int,
        *,
        reviewer: str,
        question: str,
        answer: str,
        mask: str = "",
        note: str = "",
    ) -> Verdict:
        """Store a reviewer's answer to a question about a submission; the newest answer of a reviewer counts.

        Repeating the newest answer, as after a lost reply, gives the verdict that is there.

        Raises:
            NotFound: There is no such submission.
            Conflict: Its annotator has opened it again.
            ValueError: Question, answer or note is malformed, or the submission has no such mask.
        """
        if question not in QUESTIONS or answer not in ANSWERS:
            raise InvalidInput(
                f"verdict {question!r}: {answer!r}; expected {' or '.join(QUESTIONS)}: {', '.join(ANSWERS)}"
            )
        if len(note) > _MAX_NOTE or "\0" in note:
            raise InvalidInput(f"note of {len(note)} characters; expected at most {_MAX_NOTE}")
        if (question == "mask_good") != bool(mask):
            raise InvalidInput(
                f"verdict {question!r}: mask_good names a mask, nothing_missing is about the whole image"
            )
        with self._database.write() as connection:
            found = submission_of(connection, submission_id)
            if found.state in COUNTED:
                lending.check_not_reopened(connection, found)
            found = submission_of(connection, submission_id, lock=True)
            if mask:
                state = state_of(connection, found.task_id, found.annotator, revision=found.revision)
                if mask not in {each.mask for each in state.masks}:
                    raise InvalidInput(f"submission {submission_id} has no mask {mask!r}")
            row = {"submission_id": submission_id, "mask": mask, "reviewer": reviewer, "question": question}
            query = select(VERDICTS).filter_by(**row).order_by(VERDICTS.c.verdict_id.desc()).limit(1)
            newest = connection.execute(query).mappings().one_or_none()
            if newest is not None and (newest["answer"], newest["note"]) == (answer, note):
                return Verdict(**newest)
            stored = insert(VERDICTS).values(created_at=now(), answer=answer, note=note, **row).returning(VERDICTS)
            return Verdict(**connection.execute(stored).mappings().one())

    def verdicts(self, *, round_id: str | None = None, submission_id: int | None = None) -> Sequence[Verdict]:
        """Read verdicts, oldest first; of one round or submission, or all."""
        query = (
            select(VERDICTS)
            .join(SUBMISSIONS, SUBMISSIONS.c.submission_id == VERDICTS.c.submission_id)
            .join(TASKS, TASKS.c.task_id == SUBMISSIONS.c.task_id)
        )
        if round_id is not None:
            query = query.where(TASKS.c.round_id == round_id)
        if submission_id is not None:
            query = query.where(VERDICTS.c.submission_id == submission_id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(VERDICTS.c.verdict_id)).mappings().all()
        return [Verdict(**row) for row in rows]

    def skips(self, round_id: str) -> dict[str, int]:
        """Count the tasks of a round that each annotator skipped."""
        query = (
            select(ASSIGNMENTS.c.annotator)
            .join(TASKS, TASKS.c.task_id == ASSIGNMENTS.c.task_id)
            .where(TASKS.c.round_id == round_id, ASSIGNMENTS.c.state == "skipped")
        )
        counts: dict[str, int] = {}
        with self._database.read() as connection:
            for name in connection.execute(query).scalars():
                counts[name] = counts.get(name, 0) + 1
        return counts


def _lock_round_of(connection: Connection, task_id: int) -> Round:
    """Keep the round of a task from being closed until the transaction ends, and return it.

    Transactions lock a round first, then slots, submissions and lines, so that none waits for one that waits for it.
    """
    round_id = connection.execute(select(TASKS.c.round_id).where(TASKS.c.task_id == task_id)).scalar_one()
    return locked_round(connection, round_id, RoundState, shared=True)


def _set(connection: Connection, submission_id: int, state: str) -> None:
    connection.execute(update(SUBMISSIONS).where(SUBMISSIONS.c.submission_id == submission_id).values(state=state))


def lock_for_review(connection: Connection, submission_id: int) -> Submission:
    """Lock a submission with its round and its slot, and return it: it counts, and its round is open.

    Raises:
        NotFound: There is no such submission.
        ValueError: The submission was sent back, withdrawn or fixed, or the round is no longer open.
    """
    found_round = _lock_round_of(connection, submission_of(connection, submission_id).task_id)
    lending.slot_of(connection, submission_of(connection, submission_id))
    found = submission_of(connection, submission_id, lock=True)
    if found.state not in COUNTED:
        raise InvalidInput(f"submission {found.submission_id} is {found.state}; expected {' or '.join(COUNTED)}")
    query = select(SUBMISSIONS).where(SUBMISSIONS.c.fixes == found.submission_id, SUBMISSIONS.c.state.in_(COUNTED))
    fix = connection.execute(query.where(SUBMISSIONS.c.task_id == found.task_id)).mappings().first()
    if fix is not None:
        raise InvalidInput(
            f"{fix['annotator']} fixed submission {found.submission_id}; review submission {fix['submission_id']}"
        )
    check_state(found_round, UNFINISHED)
    return found


def _supersede(connection: Connection, task_id: int, annotator: str) -> None:
    """Withdraw the submission that an annotator's new one takes the place of, if there is one."""
    own = and_(SUBMISSIONS.c.task_id == task_id, SUBMISSIONS.c.annotator == annotator, SUBMISSIONS.c.fixes.is_(None))
    earlier = select(SUBMISSIONS.c.submission_id).where(own, SUBMISSIONS.c.state == "submitted")
    for number in connection.execute(earlier).scalars().all():
        _set(connection, number, "withdrawn")
        audit.record(connection, annotator, "submit again", f"submission {number}")


def replaced_by_fixes(found: Iterable[Submission]) -> dict[int, Submission]:
    """Map the ids of submissions to the counted fixes that took their places."""
    return {each.fixes: each for each in found if each.fixes is not None and each.state in COUNTED}


def with_their_fixes(counted: Sequence[Submission], annotators: Collection[str]) -> list[Submission]:
    """List the submissions of annotators, and the fixes of them; a fix is younger than what it fixes."""
    taken: dict[int, Submission] = {}
    for each in counted:
        if each.annotator in annotators or each.fixes in taken:
            taken[each.submission_id] = each
    return list(taken.values())


def submission_of(connection: Connection, submission_id: int, *, lock: bool = False) -> Submission:
    """Read a submission, and lock it until the transaction ends if asked to.

    Raises:
        NotFound: There is no such submission.
    """
    query = select(SUBMISSIONS).where(SUBMISSIONS.c.submission_id == submission_id)
    query = query.with_for_update() if lock else query
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"submission {submission_id}: there is no such submission")
    return submission_from(row)


def _of_token(connection: Connection, token: str) -> Submission | None:
    row = connection.execute(select(SUBMISSIONS).where(SUBMISSIONS.c.token == token)).mappings().one_or_none()
    return None if row is None else submission_from(row)


def submission_from(row: Any) -> Submission:
    """Make a submission of its row."""
    return Submission(**{name: row[name] for name in Submission.__dataclass_fields__})


def _require(submission: Submission | None) -> Submission:
    assert submission is not None
    return submission
