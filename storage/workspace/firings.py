"""Firings: what schedules and triggers of the engine started, each once, by the clock of the database server.

A job, such as retraining, is fired under a key: a tick of its schedule, or a number of masks that was reached. Taking a
key is one statement, so that of many schedulers one starts the work. Who takes it holds a lease. Work whose lease ends
too early was killed, and may be taken again under the same key. At most one firing of a job runs at a time.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import and_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from storage.workspace.columns import now, seconds_from_now
from storage.workspace.database import Database
from storage.workspace.schema import FIRINGS

LEASE_S = 60.0
"""Seconds that the lease of a firing lasts after it was taken or extended."""
RETRY_S = 600.0
"""Seconds after which work that failed may be taken again."""
MAX_ATTEMPTS = 10
"""Number of times that the work of one key is begun, if its process is killed or it fails."""


class FiringState(StrEnum):
    """State of a firing."""

    RUNNING = "running"
    """Work under way, as long as its lease lasts."""
    DONE = "done"
    FAILED = "failed"
    """Work that ended with an error."""
    LOST = "lost"
    """Work whose lease ran out: its process was killed."""


@dataclass(frozen=True, kw_only=True)
class Firing:
    """One start of a job."""

    job: str
    key: str
    """Name of the tick or of the threshold, unique within the job."""
    state: FiringState
    attempts: int
    """Number of times that the work was begun."""
    owner: str
    """Name of the process that began it last, for people."""
    token: str
    """Token of the lease."""
    taken_at: datetime
    """Time at which the work was begun last, UTC."""
    expires_at: datetime
    """End of the lease, UTC."""
    ended_at: datetime | None
    """Time of the end, UTC; None while the work is under way."""
    result: Mapping[str, Any]
    """Result of the work, or its error, as JSON values; empty before the end."""


class Firings:
    """Methods for the firings of a workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, job: str, key: str, owner: str, *, lease_s: float = LEASE_S, retry_s: float = RETRY_S) -> str | None:
        """Begin the work of a key, and return the token of its lease; None if others do it, did it, or it is given up.

        None means that the key is done, that it failed less than `retry_s` ago or `MAX_ATTEMPTS` times, or that work
        of the same job is under way.
        """
        token = secrets.token_hex(16)
        begun = {"state": FiringState.RUNNING, "token": token, "owner": owner}
        try:
            with self._database.write() as connection:
                lost = and_(FIRINGS.c.state == FiringState.RUNNING, FIRINGS.c.expires_at < now())
                connection.execute(update(FIRINGS).where(FIRINGS.c.job == job, lost).values(state=FiringState.LOST))
                kind = sqlite if connection.dialect.name == "sqlite" else postgresql
                fresh = kind.insert(FIRINGS).values(
                    **begun,
                    job=job,
                    key=key,
                    attempts=1,
                    taken_at=now(),
                    expires_at=seconds_from_now(lease_s),
                    result={},
                )
                again = fresh.on_conflict_do_update(
                    index_elements=["job", "key"],
                    set_={
                        **begun,
                        "attempts": FIRINGS.c.attempts + 1,
                        "taken_at": now(),
                        "expires_at": seconds_from_now(lease_s),
                        "ended_at": None,
                        "result": {},
                    },
                    where=_may_begin_again(retry_s),
                ).returning(FIRINGS.c.token)
                return connection.execute(again).scalar_one_or_none()
        except IntegrityError:  # the index allows one running firing of a job
            return None

    def can_take(self, job: str, key: str, *, retry_s: float = RETRY_S) -> bool:
        """Tell whether `take` would begin the work of a key now."""
        at_work = and_(FIRINGS.c.job == job, FIRINGS.c.state == FiringState.RUNNING, ~_gone())
        if self._read(at_work):
            return False
        mine = and_(FIRINGS.c.job == job, FIRINGS.c.key == key)
        return not self._read(mine) or bool(self._read(and_(mine, _may_begin_again(retry_s))))

    def extend(self, token: str, *, lease_s: float = LEASE_S) -> bool:
        """Extend a lease; return False where the work was taken by another process, or has ended."""
        mine = and_(FIRINGS.c.token == token, FIRINGS.c.state == FiringState.RUNNING)
        with self._database.write() as connection:
            changed = connection.execute(update(FIRINGS).where(mine).values(expires_at=seconds_from_now(lease_s)))
            return changed.rowcount == 1

    def end(self, token: str, result: Mapping[str, Any], *, failed: bool = False) -> bool:
        """Record the result of the work; return False where the work was taken by another process."""
        state = FiringState.FAILED if failed else FiringState.DONE
        mine = and_(FIRINGS.c.token == token, FIRINGS.c.state.in_((FiringState.RUNNING, FiringState.LOST)))
        with self._database.write() as connection:
            done = update(FIRINGS).where(mine).values(state=state, ended_at=now(), result=dict(result))
            return connection.execute(done).rowcount == 1

    def release(self, token: str) -> None:
        """Give up work that was stopped on purpose: others may take it at once, and this attempt does not count."""
        mine = and_(FIRINGS.c.token == token, FIRINGS.c.state == FiringState.RUNNING)
        with self._database.write() as connection:
            connection.execute(
                update(FIRINGS).where(mine).values(state=FiringState.LOST, attempts=FIRINGS.c.attempts - 1)
            )

    def find(self, job: str, key: str) -> Firing | None:
        """Read one firing; None where nobody took the key."""
        found = self._read(and_(FIRINGS.c.job == job, FIRINGS.c.key == key))
        return found[0] if found else None

    def read_all(self, job: str | None = None) -> list[Firing]:
        """Read all firings, or those of one job, in the order in which they were taken."""
        return self._read(FIRINGS.c.job == job if job is not None else FIRINGS.c.job.is_not(None))

    def lost(self) -> list[Firing]:
        """Read the firings whose process was killed and that may be taken again."""
        return self._read(and_(_gone(), FIRINGS.c.attempts < MAX_ATTEMPTS))

    def given_up(self, job: str) -> list[Firing]:
        """Read the firings of a job that failed, or whose process was killed, so often that none begins them again."""
        is_over = or_(FIRINGS.c.state == FiringState.FAILED, _gone())
        return self._read(and_(FIRINGS.c.job == job, is_over, FIRINGS.c.attempts >= MAX_ATTEMPTS))

    def _read(self, where: Any) -> list[Firing]:
        query = select(FIRINGS).where(where).order_by(FIRINGS.c.taken_at, FIRINGS.c.key)
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [Firing(**{**row, "state": FiringState(row["state"])}) for row in rows]


def _may_begin_again(retry_s: float) -> Any:
    """Make the condition for firings that were killed, or that failed a while ago, and not too often."""
    failed = and_(FIRINGS.c.state == FiringState.FAILED, FIRINGS.c.ended_at < seconds_from_now(-retry_s))
    return and_(or_(_gone(), failed), FIRINGS.c.attempts < MAX_ATTEMPTS)


def _gone() -> Any:
    """Make the condition for firings whose process was killed."""
    expired = and_(FIRINGS.c.state == FiringState.RUNNING, FIRINGS.c.expires_at < now())
    return or_(FIRINGS.c.state == FiringState.LOST, expired)
