"""Reopenings: an annotator goes on with a picture that they submitted, until a reviewer judges it or the round closes.

The slot stays done and the submission counts meanwhile, so that work that is given up, or not submitted before the
round closes, leaves everything as it was. The next submission takes the earlier one's place, which stays stored.
"""

import secrets
from collections.abc import Sequence

from sqlalchemy import exists, select

from storage.errors import Conflict, InvalidInput, NotFound
from storage.workspace import audit, leases, lending, submissions
from storage.workspace.database import Database
from storage.workspace.records import COUNTED, Lease, Submission
from storage.workspace.schema import ROUNDS, SUBMISSIONS, TASKS, VERDICTS
from storage.workspace.users import check_may_work


class Reopenings:
    """Methods for pictures that their annotators open again.

    Args:
        database: The database.
        lease_s: Seconds that the lease lasts after its beginning, the last write or the last heartbeat.
    """

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s

    def offered(self, annotator: str, *, newest: int) -> Sequence[Submission]:
        """List an annotator's submissions that can be opened again, the newest first."""
        fix = SUBMISSIONS.alias("fix")
        query = (
            select(SUBMISSIONS)
            .join(TASKS, TASKS.c.task_id == SUBMISSIONS.c.task_id)
            .join(ROUNDS, ROUNDS.c.round_id == TASKS.c.round_id)
            .where(SUBMISSIONS.c.annotator == annotator, SUBMISSIONS.c.state == "submitted")
            .where(SUBMISSIONS.c.fixes.is_(None), ROUNDS.c.state.in_(submissions.UNFINISHED))
            .where(~exists().where(VERDICTS.c.submission_id == SUBMISSIONS.c.submission_id))
            .where(
                ~exists().where(fix.c.fixes == SUBMISSIONS.c.submission_id, fix.c.state.in_(COUNTED)),
            )
            .order_by(SUBMISSIONS.c.submission_id.desc())
            .limit(newest)
        )
        with self._database.read() as connection:
            return [submissions.submission_from(row) for row in connection.execute(query).mappings()]

    def begin(self, task_id: int, *, annotator: str) -> Lease:
        """Give an annotator the lease of a task that they submitted. Who holds it already goes on from there.

        Operations, heartbeat, hand-back and submitting work as with any lease; the next submission takes the place of
        the earlier one, handing back leaves that as it was.

        Raises:
            NotFound: The annotator has no submission of the task that counts.
            Conflict: A reviewer is fixing the submission now.
            ValueError: A reviewer has judged the submission, the round is no longer open, or the user is disabled.
        """
        token = secrets.token_urlsafe(24)
        with self._database.write() as connection:
            check_may_work(connection, annotator)
            newest = (
                select(SUBMISSIONS.c.submission_id)
                .where(SUBMISSIONS.c.task_id == task_id, SUBMISSIONS.c.annotator == annotator)
                .where(SUBMISSIONS.c.fixes.is_(None), SUBMISSIONS.c.state.in_(COUNTED))
                .order_by(SUBMISSIONS.c.submission_id.desc())
                .limit(1)
            )
            number = connection.execute(newest).scalar_one_or_none()
            if number is None:
                raise NotFound(f"task {task_id}: {annotator} has submitted nothing of it that counts; claim the task")
            found = submissions.lock_for_review(connection, number)
            judged = select(VERDICTS.c.verdict_id).where(VERDICTS.c.submission_id == number).limit(1)
            if found.state != "submitted" or connection.execute(judged).first() is not None:
                raise InvalidInput(f"a reviewer has judged submission {number}; ask for it to be sent back")

            # The slot is lent, as for a fix: it stays done, and the annotator's
            slot = lending.slot_of(connection, found)
            held = lending.held_by(connection, slot)
            if held is not None and held["annotator"] != annotator:
                raise Conflict(f"{held['annotator']} is fixing submission {number}; wait for the result")
            if held is None:
                lending.lend(connection, slot, token, self._lease_s)
                leases.log_lease(connection, token, annotator, task_id, slot["slot"])
                audit.record(connection, annotator, "reopen submission", f"submission {number}")
            else:
                token = held["token"]
                leases.extend(connection, token, self._lease_s)
            return leases.read_lease(connection, token)
