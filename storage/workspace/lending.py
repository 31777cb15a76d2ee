"""Lent slots: submitted work is changed under a lease, by a reviewer who fixes it or by its own annotator.

A lent slot stays done, and its annotator's.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, select, update

from storage.errors import Conflict
from storage.workspace import leases
from storage.workspace.columns import now, seconds_from_now
from storage.workspace.records import Submission
from storage.workspace.schema import LEASES, SLOTS, SUBMISSIONS


def token_of(connection: Connection, submission_id: int) -> str:
    """Return the token of the lease that a submission was made with."""
    query = select(SUBMISSIONS.c.token).where(SUBMISSIONS.c.submission_id == submission_id)
    return str(connection.execute(query).scalar_one())


def slot_of(connection: Connection, found: Submission) -> Mapping[str, Any]:
    """Read the slot whose work a submission is, and lock it until the transaction ends."""
    lease = leases.lease_of(connection, token_of(connection, found.submission_id))
    query = select(SLOTS).where(SLOTS.c.task_id == lease["task_id"], SLOTS.c.slot == lease["slot"])
    return dict(connection.execute(query.with_for_update()).mappings().one())


def held_by(connection: Connection, slot: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Read the lease under which somebody changes a slot's work now; None without one."""
    current = connection.execute(select(now())).scalar_one()
    if slot["token"] is None or slot["expires_at"] < current:
        return None
    return leases.lease_of(connection, slot["token"])


def lend(connection: Connection, slot: Mapping[str, Any], token: str, lease_s: float) -> None:
    """Put a slot that is done under a lease; it stays done, and its annotator's."""
    mine = and_(SLOTS.c.task_id == slot["task_id"], SLOTS.c.slot == slot["slot"])
    connection.execute(update(SLOTS).where(mine).values(token=token, expires_at=seconds_from_now(lease_s)))


def check_not_reopened(connection: Connection, found: Submission) -> None:
    """Check that no annotator goes on with a submission that is about to be judged; a lease that ran out ends.

    Raises:
        Conflict: The annotator has opened it again.
    """
    slot = slot_of(connection, found)
    if slot["token"] is None:
        return
    lease = leases.lease_of(connection, slot["token"])
    if lease["annotator"] != found.annotator:
        return
    if held_by(connection, slot) is not None:
        raise Conflict(f"{found.annotator} has opened submission {found.submission_id} again; take another one")
    leases.end(connection, slot["token"], "expired", free=True)


def is_reopened() -> ColumnElement[bool]:
    """Build the condition that the annotator of a submission has opened it again."""
    query = exists().where(SLOTS.c.task_id == SUBMISSIONS.c.task_id, SLOTS.c.expires_at > now())
    query = query.where(SLOTS.c.done, LEASES.c.token == SLOTS.c.token)
    return query.where(LEASES.c.annotator == SUBMISSIONS.c.annotator)
