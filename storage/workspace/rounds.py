"""Rounds: open them, extend, pause, cancel, close them, and count what is done."""

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.errors import InvalidInput, NotFound
from storage.workspace import audit, withdrawals
from storage.workspace.columns import now
from storage.workspace.counts import count_prefilled, count_progress
from storage.workspace.database import Database
from storage.workspace.records import (
    ClientRequest,
    GivenMask,
    Round,
    RoundProgress,
    RoundSpec,
    RoundState,
    Task,
    TaskSpec,
)
from storage.workspace.requests import find_request, store_request
from storage.workspace.round_rows import locked_round, round_from, round_of
from storage.workspace.schema import ROUNDS, TASKS
from storage.workspace.sharing import check_alone, rounds_sharing
from storage.workspace.tasks import (
    asked_about,
    check_free,
    check_tasks,
    choose_alone,
    insert_tasks,
    read_given,
    rounds_by_prefill,
    task_from,
)
from storage.workspace.unfinished import UnfinishedWork, read_unfinished

_SYSTEM = "command line"
_OPEN, _EXTEND = "open round", "extend round"
_UNFINISHED = (RoundState.OPEN, RoundState.PAUSED)


class Rounds:
    """Methods for the rounds of a workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, spec: RoundSpec, *, actor: str = _SYSTEM) -> Round:
        """Open a round with its tasks and slots, in one transaction.

        Raises:
            ValueError: The round has no tasks, an image twice, an overlap below 1, or masks of another size.
        """
        return self.open_once(spec, None, actor=actor)[0]

    def open_once(
        self, spec: RoundSpec, request: ClientRequest | None, *, alone: bool = False, actor: str = _SYSTEM
    ) -> tuple[Round, bool]:
        """Open a round unless the same request opened one before; return the round, and whether it is new.

        With `alone`, no other round may ask about its images, whoever opens one at the same moment; gold images may be
        shown by several.

        Raises:
            RequestReused: Another request has the request's id.
            ImagesTaken: With `alone`, another round asks about an image.
            ValueError: The round has no tasks, an image twice, an overlap below 1, or masks of another size.
        """
        if spec.stage not in ("assisted_manual", "semi_automatic"):
            raise InvalidInput(f"stage {spec.stage!r}: expected assisted_manual or semi_automatic")
        if not spec.tasks:
            raise InvalidInput("the round has no images; name at least one")
        check_tasks(spec.tasks)
        round_id = f"round-{secrets.token_hex(6)}"
        row = {
            "round_id": round_id,
            "stage": spec.stage,
            "name": spec.name,
            "state": RoundState.OPEN,
            "guidelines": spec.guidelines,
            "priority": spec.priority,
            "settings": dict(spec.settings),
            "created_by": actor,
            "plan_id": "",
        }
        try:
            with self._database.write() as connection:
                if alone:
                    choose_alone(connection)
                earlier = find_request(connection, request, _OPEN)
                if earlier is not None:
                    return round_of(connection, earlier.round_id), False
                if alone:
                    check_free(connection, spec.tasks)
                connection.execute(insert(ROUNDS).values(created_at=now(), **row))
                store_request(connection, request, _OPEN, round_id, tasks=len(spec.tasks))
                insert_tasks(connection, round_id, spec.tasks, first=0)
                audit.record(connection, actor, _OPEN, round_id, {"tasks": len(spec.tasks)})
                return round_of(connection, round_id), True
        except IntegrityError:  # the same request came at the same moment, and was first
            found = self.opened_by(request)
            if found is None:
                raise
            return found, False

    def opened_by(self, request: ClientRequest | None) -> Round | None:
        """Find the round that a request opened before; None for a new request, or without a request.

        Raises:
            RequestReused: Another request has the request's id.
        """
        with self._database.read() as connection:
            row = find_request(connection, request, _OPEN)
            return None if row is None else round_of(connection, row.round_id)

    def extend(
        self,
        round_id: str,
        tasks: Sequence[TaskSpec],
        *,
        request: ClientRequest | None = None,
        alone: bool = False,
        actor: str = _SYSTEM,
    ) -> int:
        """Add images to a round that is open or paused, and return how many were new; images it has are left alone.

        A request that was answered before changes nothing, and gets the same number. `alone` is that of `open_once`.

        Raises:
            NotFound: There is no such round.
            ImagesTaken: With `alone`, another round asks about an image.
            RequestReused: Another request has the request's id.
            ValueError: The round is closed or cancelled, or a task is malformed.
        """
        check_tasks(tasks)
        try:
            with self._database.write() as connection:
                if alone:
                    choose_alone(connection)
                earlier = find_request(connection, request, _EXTEND, round_id)
                if earlier is not None:
                    return int(earlier.tasks)
                locked_round(connection, round_id, _UNFINISHED)
                query = select(TASKS.c.image_id, TASKS.c.position).where(TASKS.c.round_id == round_id)
                there = {row.image_id: row.position for row in connection.execute(query)}
                fresh = [task for task in tasks if task.image_id not in there]
                if alone:
                    check_free(connection, fresh)
                store_request(connection, request, _EXTEND, round_id, tasks=len(fresh))
                insert_tasks(connection, round_id, fresh, first=max(there.values()) + 1)
                audit.record(connection, actor, _EXTEND, round_id, {"tasks": len(fresh)})
                return len(fresh)
        except IntegrityError:  # the same request came at the same moment, and was first
            added = self.extended_by(round_id, request)
            if added is None:
                raise
            return added

    def extended_by(self, round_id: str, request: ClientRequest | None) -> int | None:
        """Find how many images a request added before; None for a new request, or without a request.

        Raises:
            RequestReused: Another request has the request's id.
        """
        with self._database.read() as connection:
            row = find_request(connection, request, _EXTEND, round_id)
            return None if row is None else int(row.tasks)

    def pause(self, round_id: str, *, actor: str = _SYSTEM) -> None:
        """Stop giving out tasks of a round; tasks that are held can be finished.

        Raises:
            NotFound: There is no such round.
            ValueError: The round is closed or cancelled.
        """
        self._set_state(round_id, RoundState.PAUSED, _UNFINISHED, "pause round", actor)

    def reopen(self, round_id: str, *, actor: str = _SYSTEM) -> None:
        """Give out tasks of a paused or cancelled round again.

        The masks of a closed round are in the dataset; open another round over the same images instead.

        Raises:
            NotFound: There is no such round.
            ValueError: The round is closed.
        """
        states = (*_UNFINISHED, RoundState.CANCELLED)
        self._set_state(round_id, RoundState.OPEN, states, "reopen round", actor)

    def cancel(self, round_id: str, *, actor: str = _SYSTEM) -> None:
        """End a round without taking its masks into the dataset; its operations stay, and `reopen` continues it.

        Raises:
            NotFound: There is no such round.
            ValueError: The round is closed, or is being closed.
        """
        self._set_state(round_id, RoundState.CANCELLED, (*_UNFINISHED, RoundState.CANCELLED), "cancel round", actor)

    def begin_closing(
        self, round_id: str, *, actor: str = _SYSTEM, check: Callable[[UnfinishedWork], None] = lambda work: None
    ) -> Round:
        """Freeze a round, so that its submissions no longer change, and return it. Repeating this does no harm.

        Args:
            round_id: The round.
            actor: Name of the user who closes the round, for the audit log.
            check: Function that is told what closing leaves out, before anything is changed; by raising, it refuses.

        Raises:
            NotFound: There is no such round.
            OtherIsClosing: A round that has images of this one is being closed, and has to be closed first.
            ValueError: The round is cancelled.
        """
        states = (*_UNFINISHED, RoundState.CLOSING, RoundState.CLOSED)
        with self._database.write() as connection:
            if round_of(connection, round_id).state in _UNFINISHED:
                check_alone(connection, round_id)
            if locked_round(connection, round_id, states).state in _UNFINISHED:
                check(read_unfinished(connection, round_id))
                _update(connection, round_id, state=RoundState.CLOSING)
                audit.record(connection, actor, "begin closing round", round_id)
        return self.get(round_id)

    def set_plan(self, round_id: str, store: Callable[[], str]) -> str:
        """Give a round the plan of its masks, unless it has one; return the id of the plan that it has then.

        Args:
            round_id: The round.
            store: Function that stores the plan and returns its id. It is called while nobody else can give the round
                a plan, so that no plan is stored in vain.

        Raises:
            NotFound: There is no such round.
            ValueError: The round is not being closed.
        """
        with self._database.write() as connection:
            found = locked_round(connection, round_id, (RoundState.CLOSING, RoundState.CLOSED))
            if found.plan_id:
                return found.plan_id
            plan_id = store()
            _update(connection, round_id, plan_id=plan_id)
            return plan_id

    def end_closing(self, round_id: str, *, actor: str = _SYSTEM) -> Round:
        """Mark a round as closed, once its masks are in the dataset. Repeating this does no harm.

        Raises:
            NotFound: There is no such round.
            ValueError: The round is not being closed.
        """
        with self._database.write() as connection:
            found = locked_round(connection, round_id, (RoundState.CLOSING, RoundState.CLOSED))
            if found.state is RoundState.CLOSING:
                _update(connection, round_id, state=RoundState.CLOSED, closed_at=found.closed_at or now())
                audit.record(connection, actor, "close round", round_id, {"plan": found.plan_id})
        return self.get(round_id)

    def begin_withdrawal(self, round_id: str, annotator: str, reason: str, *, actor: str = _SYSTEM) -> bool:
        """Have a closed round closed once more, without an annotator's work; return whether that is new.

        Raises:
            NotFound: There is no such round.
            OtherIsClosing: A round that has images of this one is being closed, and has to be closed first.
            ValueError: The round is not closed.
        """
        with self._database.write() as connection:
            is_new = withdrawals.begin(connection, round_id, annotator, reason)
            if is_new:
                details = {"annotator": annotator, "reason": reason}
                audit.record(connection, actor, "withdraw from closed round", round_id, details)
            return is_new

    def set_withdrawal_plan(self, round_id: str, annotator: str, store: Callable[[], str]) -> str:
        """Give a withdrawal from a closed round its plan, unless it has one; as `set_plan`."""
        with self._database.write() as connection:
            return withdrawals.set_plan(connection, round_id, annotator, store)

    def get(self, round_id: str) -> Round:
        """Read a round.

        Raises:
            NotFound: There is no such round.
        """
        with self._database.read() as connection:
            return round_of(connection, round_id)

    def read_all(self) -> list[Round]:
        """Read all rounds, oldest first."""
        query = select(ROUNDS).order_by(ROUNDS.c.created_at, ROUNDS.c.round_id)
        with self._database.read() as connection:
            return [round_from(row) for row in connection.execute(query).mappings()]

    def progress(self, round_id: str) -> RoundProgress:
        """Count the tasks and slots of a round.

        Raises:
            NotFound: There is no such round.
        """
        with self._database.read() as connection:
            round_of(connection, round_id)
            return count_progress(connection, round_id)

    def unfinished(self, round_id: str) -> UnfinishedWork:
        """Count what closing a round now would leave out.

        Raises:
            NotFound: There is no such round.
        """
        with self._database.read() as connection:
            round_of(connection, round_id)
            return read_unfinished(connection, round_id)

    def sharing(self, round_id: str, states: Collection[RoundState]) -> list[str]:
        """List the other rounds in some states that have an image of a round, in the order of their closing."""
        with self._database.read() as connection:
            return rounds_sharing(connection, round_id, states)

    def tasks(self, round_id: str) -> list[Task]:
        """Read the tasks of a round, in the order of its images.

        Raises:
            NotFound: There is no such round.
        """
        query = select(TASKS).where(TASKS.c.round_id == round_id).order_by(TASKS.c.position)
        with self._database.read() as connection:
            round_of(connection, round_id)
            return [task_from(row) for row in connection.execute(query).mappings()]

    def asked_about(self) -> set[int]:
        """List the images of all rounds that are not cancelled."""
        with self._database.read() as connection:
            return asked_about(connection)

    def task(self, task_id: int) -> Task:
        """Read a task.

        Raises:
            NotFound: There is no such task.
        """
        with self._database.read() as connection:
            row = connection.execute(select(TASKS).where(TASKS.c.task_id == task_id)).mappings().one_or_none()
        if row is None:
            raise NotFound(f"task {task_id}: there is no such task")
        return task_from(row)

    def prefill(self, task_id: int) -> tuple[GivenMask, ...]:
        """Read the masks that a task begins with, in their order."""
        with self._database.read() as connection:
            return read_given(connection, task_id, "prefill")

    def by_prefill(self, image_ids: Collection[int], round_ids: Collection[str]) -> dict[tuple[int, str], list[str]]:
        """Find which of some rounds begin with a mask, by the image and the mask's id in the dataset or its pixels."""
        with self._database.read() as connection:
            return rounds_by_prefill(connection, image_ids, round_ids)

    def count_prefilled(self, round_id: str) -> tuple[int, int]:
        """Count the images of a round that begin with masks, and these masks."""
        with self._database.read() as connection:
            return count_prefilled(connection, round_id)

    def gold(self, task_id: int) -> tuple[GivenMask, ...]:
        """Read the known good masks of a gold task; empty for any other task. Annotators never see them."""
        with self._database.read() as connection:
            return read_given(connection, task_id, "gold")

    def _set_state(
        self, round_id: str, state: RoundState, states: Iterable[RoundState], action: str, actor: str
    ) -> None:
        with self._database.write() as connection:
            locked_round(connection, round_id, states)
            ended = now() if state is RoundState.CANCELLED else None
            _update(connection, round_id, state=state, closed_at=ended)
            audit.record(connection, actor, action, round_id)


def _update(connection: Connection, round_id: str, **values: Any) -> None:
    connection.execute(update(ROUNDS).where(ROUNDS.c.round_id == round_id).values(**values))
