"""Fixes: a reviewer changes the masks of a submission, and the result takes the submission's place.

A fix is a line of the reviewer's own on the task. It begins with an operation that holds the masks of the submission,
each with the name of who made it; from there on it is a line like any other. The slot stays done and the annotator's
meanwhile, so that a fix that is given up leaves the submission as it was.
"""

import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from storage.errors import Conflict, InvalidInput
from storage.workspace import audit, leases, lending, submissions
from storage.workspace.database import Database
from storage.workspace.fold import fix_payload
from storage.workspace.lines import Line, state_of
from storage.workspace.records import Kind, Lease, Operation, Submission
from storage.workspace.schema import OPERATIONS, SLOTS

_BEGUN = uuid.UUID("0e5c1b7e-1f0e-5f0c-8d7c-3a2f9d3f6b52")
"""Namespace of the ids of the operations that begin fixes."""


class Fixes:
    """Methods for the fixes of a workspace.

    Args:
        database: The database.
        lease_s: Seconds that the lease of a fix lasts after its beginning, the last write or the last heartbeat.
    """

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s

    def begin(self, submission_id: int, *, reviewer: str) -> Lease:
        """Give a reviewer the lease to fix a submission. A reviewer who began before goes on from there.

        Operations, heartbeat, hand-back and submitting work as with any lease; submitting puts the fix in the place of
        the submission, as an accepted one.

        Raises:
            NotFound: There is no such submission.
            Conflict: Somebody else is fixing the submission now, or its annotator has opened it again.
            ValueError: The submission is the reviewer's own, no longer counts, or was fixed already; the reviewer
                works on the same image as an annotator; or the round is no longer open.
        """
        token = secrets.token_urlsafe(24)
        with self._database.write() as connection:
            found = submissions.lock_for_review(connection, submission_id)
            lending.check_not_reopened(connection, found)
            slot = lending.slot_of(connection, found)
            _check_reviewer(connection, found, reviewer)
            held = lending.held_by(connection, slot)
            if held is not None and held["annotator"] != reviewer:
                raise Conflict(f"submission {submission_id} is being fixed by {held['annotator']}; take another one")
            if held is None:
                self._lease(connection, found, slot, reviewer, token)
                _begin_line(connection, found, reviewer, token)
                audit.record(connection, reviewer, "begin fix", f"submission {submission_id}")
            else:
                token = held["token"]
                leases.extend(connection, token, self._lease_s)
            return leases.read_lease(connection, token)

    def _lease(
        self, connection: Connection, found: Submission, slot: Mapping[str, Any], reviewer: str, token: str
    ) -> None:
        """Lend a slot that is done to a reviewer; it stays done and its annotator's."""
        lending.lend(connection, slot, token, self._lease_s)
        leases.log_lease(connection, token, reviewer, found.task_id, slot["slot"], fixes=found.submission_id)
        # The task is not offered to a reviewer who has seen an annotator's masks of it.
        leases.set_assignment(connection, found.task_id, reviewer, state="submitted")


def _check_reviewer(connection: Connection, found: Submission, reviewer: str) -> None:
    """Check that a reviewer has made no view of the image.

    Raises:
        ValueError: The submission or another view of the image is the reviewer's.
    """
    if found.annotator == reviewer:
        raise InvalidInput(f"submission {found.submission_id} is your own; another reviewer may fix it")
    own = select(SLOTS.c.slot).where(SLOTS.c.task_id == found.task_id, SLOTS.c.annotator == reviewer)
    if connection.execute(own).first() is not None:
        raise InvalidInput(f"you work on the image of submission {found.submission_id} yourself; leave it to another")


def _begin_line(connection: Connection, found: Submission, reviewer: str, token: str) -> None:
    """Store the operation that begins a fix, unless the reviewer's line fixes the submission already."""
    before = state_of(connection, found.task_id, reviewer)
    if before.fixes == found.submission_id:
        return
    state = state_of(connection, found.task_id, found.annotator, revision=found.revision)
    line = Line(connection, found.task_id, reviewer, writable=True)
    operation = Operation(
        op_id=str(uuid.uuid5(_BEGUN, token)),
        session=f"fix-{found.submission_id}-{token[:8]}",
        sequence=0,
        base_revision=line.revision,
        kind=Kind.FIX,
        payload=fix_payload(found.submission_id, found.annotator, state, fixed_by=reviewer),
        client_time=datetime.now(UTC),
    )
    connection.execute(insert(OPERATIONS), [line.place(operation, token)])
    line.save()
