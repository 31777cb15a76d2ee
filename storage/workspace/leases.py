"""Leases: which annotator may work on which task until when, by the clock of the database server.

One statement gives out a slot, so that no slot is ever held by two annotators. A lease that has run out still counts
for its annotator until somebody else claims the slot.
"""

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Update, and_, case, exists, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from storage.errors import InvalidInput, NotFound
from storage.workspace import audit
from storage.workspace.columns import now, seconds_from_now
from storage.workspace.counts import count_held
from storage.workspace.database import Database
from storage.workspace.records import Lease, RoundState, Task
from storage.workspace.schema import ASSIGNMENTS, LEASES, ROUNDS, SLOTS, TASKS
from storage.workspace.tasks import task_from
from storage.workspace.users import check_may_work

MAX_REASON = 500
"""Maximum number of characters of a reason for skipping."""


class StaleLease(InvalidInput):
    """Error of an act that needs a lease which has ended: submitting, skipping, handing back, extending."""


class Leases:
    """Methods for the leases of a workspace.

    Args:
        database: The database.
        lease_s: Seconds that a lease lasts after the claim, the last write or the last heartbeat.
        max_held: Most tasks that one annotator holds at a time.
    """

    def __init__(self, database: Database, *, lease_s: float, max_held: int) -> None:
        self._database = database
        self.lease_s = lease_s
        self.max_held = max_held

    def claim(self, annotator: str, count: int = 1, *, round_id: str | None = None) -> list[Lease]:
        """Give an annotator up to `count` tasks more, by priority; fewer if the annotator holds `max_held`.

        Nobody gets a task that they skipped or submitted, or hold already. An empty list means that no task is left
        for this annotator now, or that the annotator is paused.

        Raises:
            NotFound: There is no such user.
            ValueError: The user is disabled.
        """
        leases: list[Lease] = []
        for _ in range(count):
            lease = self._claim_one(annotator, round_id)
            if lease is None:
                break
            leases.append(lease)
        return leases

    def unanswered(self, count: int) -> list[tuple[Task, str]]:
        """Read the first tasks of the queue that still want an answer, held or not, each with its round's model name.

        The order is that in which `claim` gives tasks out. The name is empty for the server's default model.
        """
        query = (
            select(TASKS, ROUNDS.c.settings)
            .join(ROUNDS, ROUNDS.c.round_id == TASKS.c.round_id)
            .where(ROUNDS.c.state == RoundState.OPEN)
            .where(exists().where(SLOTS.c.task_id == TASKS.c.task_id, ~SLOTS.c.done))
            .order_by(ROUNDS.c.priority.desc(), TASKS.c.priority.desc(), ROUNDS.c.created_at, TASKS.c.position)
        )
        with self._database.read() as connection:
            rows = connection.execute(query.limit(count)).mappings().all()
        return [(task_from(row), str(row["settings"].get("model") or "")) for row in rows]

    def held(self, annotator: str) -> list[Lease]:
        """Read the leases that an annotator can go on with, oldest first, as after reloading a page.

        One that ran out goes on if nobody took the task meanwhile.
        """
        query = _lease_query().where(LEASES.c.annotator == annotator, LEASES.c.ended_at.is_(None))
        with self._database.read() as connection:
            return [_lease(row) for row in connection.execute(query.order_by(LEASES.c.granted_at)).mappings()]

    def count_held(self) -> dict[str, int]:
        """Count the tasks that each person holds now, by name; those of rounds that ended are left out."""
        with self._database.read() as connection:
            return count_held(connection)

    def get(self, token: str) -> Lease:
        """Read a lease that has not ended.

        Raises:
            NotFound: There is no such lease.
            StaleLease: The lease has ended.
        """
        with self._database.read() as connection:
            return read_lease(connection, token)

    def owner(self, token: str) -> str:
        """Return the name of the annotator whom a lease was given to, also after the lease has ended.

        Raises:
            NotFound: There is no such lease.
        """
        with self._database.read() as connection:
            return str(lease_of(connection, token)["annotator"])

    def heartbeat(self, token: str) -> Lease:
        """Extend a lease, and return it.

        Raises:
            NotFound: There is no such lease.
            StaleLease: The lease has ended.
        """
        with self._database.write() as connection:
            require_current(connection, token)
            extend(connection, token, self.lease_s)
        return self.get(token)

    def hand_back(self, token: str) -> None:
        """End a lease, so that others may claim the task; what the annotator did stays stored.

        Raises:
            NotFound: There is no such lease.
            StaleLease: The lease has ended.
        """
        with self._database.write() as connection:
            require_current(connection, token)
            end(connection, token, "handed_back", free=True)

    def skip(self, token: str, reason: str) -> None:
        """End a lease and never give the task to this annotator again.

        Raises:
            NotFound: There is no such lease.
            StaleLease: The lease has ended.
            ValueError: The reason is empty or too long, or the lease is that of a fix or of a reopened submission.
        """
        if not reason.strip() or len(reason) > MAX_REASON or "\0" in reason:
            raise InvalidInput(f"reason for skipping: expected 1 to {MAX_REASON} characters, got {len(reason)}")
        with self._database.write() as connection:
            row = require_current(connection, token)
            if row["fixes"] is not None:
                raise InvalidInput("a reviewer who does not want to fix a submission hands it back; got a skip")
            if connection.execute(select(SLOTS.c.done).where(SLOTS.c.token == token)).scalar_one():
                raise InvalidInput("what was submitted before is handed back, which leaves it as it was; got a skip")
            end(connection, token, "skipped", free=True)
            set_assignment(connection, row["task_id"], row["annotator"], state="skipped", reason=reason)

    def release(self, token: str, *, actor: str) -> None:
        """End somebody else's lease as a lead; later writes of the annotator become a branch.

        Raises:
            NotFound: There is no such lease.
            StaleLease: The lease has ended.
        """
        with self._database.write() as connection:
            row = require_current(connection, token)
            end(connection, token, "released", free=True)
            audit.record(connection, actor, "release lease", f"task {row['task_id']}", {"annotator": row["annotator"]})

    def _claim_one(self, annotator: str, round_id: str | None) -> Lease | None:
        token = secrets.token_urlsafe(24)
        try:
            with self._database.write() as connection:
                if not check_may_work(connection, annotator) or self._holds_enough(connection, annotator):
                    return None
                for statement in _claims(connection, annotator, token, self.lease_s, round_id):
                    taken = connection.execute(statement).one_or_none()
                    if taken is not None:
                        log_lease(connection, token, annotator, taken.task_id, taken.slot)
                        set_assignment(connection, taken.task_id, annotator, state="working")
                        break
                else:
                    return None
        except IntegrityError:  # the same annotator claimed another slot of the same task at the same moment
            return self._claim_one(annotator, round_id)
        return self.get(token)

    def _holds_enough(self, connection: Connection, annotator: str) -> bool:
        # Tasks of a round that was closed or cancelled meanwhile are no work any more.
        query = select(SLOTS.c.task_id).join(ROUNDS, ROUNDS.c.round_id == SLOTS.c.round_id)
        query = query.where(SLOTS.c.annotator == annotator, ~SLOTS.c.done)
        query = query.where(ROUNDS.c.state.in_((RoundState.OPEN, RoundState.PAUSED)))
        held = query.where(SLOTS.c.token.is_not(None), SLOTS.c.expires_at > now())
        return len(connection.execute(held).all()) >= self.max_held


def _claims(
    connection: Connection, annotator: str, token: str, lease_s: float, round_id: str | None
) -> Iterator[Update]:
    """Yield statements that each try to take a slot: one sent back, then one begun, then one of each open round."""
    query = select(ROUNDS.c.round_id).where(ROUNDS.c.state == RoundState.OPEN)
    if round_id is not None:
        query = query.where(ROUNDS.c.round_id == round_id)
    rounds = connection.execute(query.order_by(ROUNDS.c.priority.desc(), ROUNDS.c.created_at)).scalars().all()
    begun = and_(SLOTS.c.annotator == annotator, SLOTS.c.round_id.in_(rounds))
    yield _claim(annotator, token, lease_s, and_(begun, SLOTS.c.token.is_(None)))  # sent back by a reviewer
    yield _claim(annotator, token, lease_s, begun)
    for each in rounds:
        yield _claim(annotator, token, lease_s, SLOTS.c.round_id == each)


def _claim(annotator: str, token: str, lease_s: float, where: ColumnElement[bool]) -> Update:
    """Build the statement that takes the first free slot.

    All that another claim can change at the same time stands in the row that the statement locks. SQLite runs one
    writer at a time and needs no lock.
    """
    mine, work = SLOTS.alias("mine"), ASSIGNMENTS
    free = or_(
        SLOTS.c.expires_at.is_(None),
        SLOTS.c.expires_at < now(),
        and_(SLOTS.c.annotator == annotator, SLOTS.c.token.is_(None)),  # reserved: sent back by a reviewer
    )
    held = exists().where(mine.c.task_id == SLOTS.c.task_id, mine.c.annotator == annotator, mine.c.slot != SLOTS.c.slot)
    finished = exists().where(
        work.c.task_id == SLOTS.c.task_id, work.c.annotator == annotator, work.c.state.in_(("skipped", "submitted"))
    )
    chosen = (
        select(SLOTS.c.task_id, SLOTS.c.slot)
        .join(ROUNDS, ROUNDS.c.round_id == SLOTS.c.round_id)
        .where(where, ROUNDS.c.state == RoundState.OPEN, ~SLOTS.c.done, free, ~held, ~finished)
        .order_by(SLOTS.c.rank, SLOTS.c.position, SLOTS.c.task_id, SLOTS.c.slot)
        .limit(1)
        .with_for_update(of=SLOTS, skip_locked=True)
        .cte("chosen")
    )
    return (
        update(SLOTS)
        .where(SLOTS.c.task_id == chosen.c.task_id, SLOTS.c.slot == chosen.c.slot)
        .values(annotator=annotator, token=token, expires_at=seconds_from_now(lease_s))
        .returning(SLOTS.c.task_id, SLOTS.c.slot)
    )


def log_lease(
    connection: Connection, token: str, annotator: str, task_id: int, slot: int, *, fixes: int | None = None
) -> None:
    """Record a lease: the earlier lease of the slot ends, the new one begins, and the annotator has a line."""
    connection.execute(
        update(LEASES)
        .where(LEASES.c.task_id == task_id, LEASES.c.slot == slot, LEASES.c.ended_at.is_(None))
        .values(ended_at=now(), outcome="expired")
    )
    row = {"token": token, "task_id": task_id, "slot": slot, "annotator": annotator, "outcome": "", "fixes": fixes}
    connection.execute(insert(LEASES).values(granted_at=now(), **row))
    kind = sqlite if connection.dialect.name == "sqlite" else postgresql
    assignment = {"task_id": task_id, "annotator": annotator, "state": "working", "revision": 0, "reason": ""}
    connection.execute(
        kind.insert(ASSIGNMENTS)
        .values(created_at=now(), **assignment)
        .on_conflict_do_nothing(index_elements=["task_id", "annotator"])
    )


def lease_of(connection: Connection, token: str) -> Mapping[str, Any]:
    """Read the log of a lease, ended or not.

    Raises:
        NotFound: There is no such lease: the token is forged or belongs to another workspace.
    """
    row = connection.execute(select(LEASES).where(LEASES.c.token == token)).mappings().one_or_none()
    if row is None:
        raise NotFound("the lease token is unknown to this workspace; claim a task to get one")
    return dict(row)


def read_lease(connection: Connection, token: str) -> Lease:
    """Read a lease that has not ended, with its task.

    Raises:
        NotFound: There is no such lease.
        StaleLease: The lease has ended.
    """
    lease_of(connection, token)
    row = connection.execute(_lease_query().where(LEASES.c.token == token)).mappings().one_or_none()
    if row is None:
        raise StaleLease("the lease has ended; claim the task again")
    return _lease(row)


def lock_slot(connection: Connection, row: Mapping[str, Any]) -> bool:
    """Lock the slot of a lease until the transaction ends, and tell whether it still belongs to the lease."""
    query = select(SLOTS.c.token).where(SLOTS.c.task_id == row["task_id"], SLOTS.c.slot == row["slot"])
    return bool(connection.execute(query.with_for_update()).scalar_one() == row["token"])


def require_current(connection: Connection, token: str) -> Mapping[str, Any]:
    """Read and lock a lease that has not ended.

    Raises:
        NotFound: There is no such lease.
        StaleLease: The lease has ended.
    """
    row = lease_of(connection, token)
    if not lock_slot(connection, row):
        ended = lease_of(connection, token)
        raise StaleLease(
            f"the lease of task {row['task_id']} has ended ({ended['outcome'] or 'expired'}); claim the task again"
        )
    return row


def extend(connection: Connection, token: str, lease_s: float) -> None:
    """Set the end of a lease to `lease_s` seconds from now."""
    connection.execute(update(SLOTS).where(SLOTS.c.token == token).values(expires_at=seconds_from_now(lease_s)))


def end(connection: Connection, token: str, outcome: str, *, free: bool) -> None:
    """End a lease, and free its slot or mark it as done. A slot that is done stays done: the lease was a fix."""
    values: dict[str, Any] = {"token": None, "expires_at": None}
    values |= {"annotator": case((SLOTS.c.done, SLOTS.c.annotator), else_=None)} if free else {"done": True}
    connection.execute(update(SLOTS).where(SLOTS.c.token == token).values(**values))
    connection.execute(update(LEASES).where(LEASES.c.token == token).values(ended_at=now(), outcome=outcome))


def end_on_slots(connection: Connection, slots: ColumnElement[bool], outcome: str) -> None:
    """End the leases of some slots, and lock these slots until the transaction ends."""
    tokens = connection.execute(select(SLOTS.c.token).where(slots).with_for_update()).scalars().all()
    ending = update(LEASES).where(LEASES.c.token.in_(tokens), LEASES.c.ended_at.is_(None))
    connection.execute(ending.values(ended_at=now(), outcome=outcome))


def set_assignment(connection: Connection, task_id: int, annotator: str, **values: Any) -> None:
    """Change the state of an annotator's work on a task."""
    mine = and_(ASSIGNMENTS.c.task_id == task_id, ASSIGNMENTS.c.annotator == annotator)
    connection.execute(update(ASSIGNMENTS).where(mine).values(**values))


def _lease_query() -> Select[Any]:
    """Select current leases with their tasks and the annotators' revisions."""
    return (
        select(
            TASKS,
            *(LEASES.c.token, LEASES.c.annotator, LEASES.c.granted_at, LEASES.c.fixes),
            *(SLOTS.c.expires_at, SLOTS.c.done, ASSIGNMENTS.c.revision, ASSIGNMENTS.c.reason),
        )
        .select_from(LEASES)
        .join(SLOTS, SLOTS.c.token == LEASES.c.token)
        .join(TASKS, TASKS.c.task_id == LEASES.c.task_id)
        .join(
            ASSIGNMENTS,
            and_(ASSIGNMENTS.c.task_id == LEASES.c.task_id, ASSIGNMENTS.c.annotator == LEASES.c.annotator),
        )
    )


def _lease(row: Mapping[Any, Any]) -> Lease:
    return Lease(
        token=row["token"],
        task=task_from(row),
        annotator=row["annotator"],
        granted_at=row["granted_at"],
        expires_at=row["expires_at"],
        revision=row["revision"],
        reason=row["reason"],
        fixes=row["fixes"],
        is_reopened=row["done"] and row["fixes"] is None,
    )
