"""Rounds: open them, extend, pause, cancel, close them, and count what is done."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, func, insert, select, update

from storage.errors import InvalidInput, NotFound
from storage.workspace import audit
from storage.workspace.columns import now
from storage.workspace.database import Database
from storage.workspace.masks import given_from_json, given_to_json
from storage.workspace.records import GivenMask, Round, RoundProgress, RoundSpec, RoundState, Task, TaskSpec
from storage.workspace.schema import ASSIGNMENTS, BRANCHES, GIVEN_MASKS, ROUNDS, SLOTS, TASKS

_SYSTEM = "command line"
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
        if spec.stage not in ("assisted_manual", "semi_automatic"):
            raise InvalidInput(f"stage {spec.stage!r}: expected assisted_manual or semi_automatic")
        if not spec.tasks:
            raise InvalidInput("the round has no images; name at least one")
        _check_tasks(spec.tasks)
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
        with self._database.write() as connection:
            connection.execute(insert(ROUNDS).values(created_at=now(), **row))
            _insert_tasks(connection, round_id, spec.tasks, first=0)
            audit.record(connection, actor, "open round", round_id, {"tasks": len(spec.tasks)})
        return self.get(round_id)

    def extend(self, round_id: str, tasks: Sequence[TaskSpec], *, actor: str = _SYSTEM) -> int:
        """Add images to a round that is open or paused, and return how many were new; images it has are left alone.

        Raises:
            NotFound: There is no such round.
            ValueError: The round is closed or cancelled, or a task is malformed.
        """
        _check_tasks(tasks)
        with self._database.write() as connection:
            locked_round(connection, round_id, _UNFINISHED)
            query = select(TASKS.c.image_id, TASKS.c.position).where(TASKS.c.round_id == round_id)
            there = {row.image_id: row.position for row in connection.execute(query)}
            fresh = [task for task in tasks if task.image_id not in there]
            _insert_tasks(connection, round_id, fresh, first=max(there.values()) + 1)
            audit.record(connection, actor, "extend round", round_id, {"tasks": len(fresh)})
        return len(fresh)

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

    def begin_closing(self, round_id: str, *, actor: str = _SYSTEM) -> Round:
        """Freeze a round, so that its submissions no longer change, and return it. Repeating this does no harm.

        Raises:
            NotFound: There is no such round.
            ValueError: The round is cancelled.
        """
        states = (*_UNFINISHED, RoundState.CLOSING, RoundState.CLOSED)
        with self._database.write() as connection:
            if locked_round(connection, round_id, states).state in _UNFINISHED:
                _update(connection, round_id, state=RoundState.CLOSING)
                audit.record(connection, actor, "begin closing round", round_id)
        return self.get(round_id)

    def set_plan(self, round_id: str, plan_id: str) -> str:
        """Name the plan that takes the round's masks, unless it has one, and return the plan that it has.

        Raises:
            NotFound: There is no such round.
            ValueError: The round is not being closed.
        """
        with self._database.write() as connection:
            found = locked_round(connection, round_id, (RoundState.CLOSING, RoundState.CLOSED))
            if not found.plan_id:
                _update(connection, round_id, plan_id=plan_id)
            return found.plan_id or plan_id

    def end_closing(self, round_id: str, *, actor: str = _SYSTEM) -> Round:
        """Mark a round as closed, once its masks are in the dataset. Repeating this does no harm.

        Raises:
            NotFound: There is no such round.
            ValueError: The round is not being closed.
        """
        with self._database.write() as connection:
            found = locked_round(connection, round_id, (RoundState.CLOSING, RoundState.CLOSED))
            if found.state is RoundState.CLOSING:
                _update(connection, round_id, state=RoundState.CLOSED, closed_at=now())
                audit.record(connection, actor, "close round", round_id, {"plan": found.plan_id})
        return self.get(round_id)

    def get(self, round_id: str) -> Round:
        """Read a round.

        Raises:
            NotFound: There is no such round.
        """
        with self._database.read() as connection:
            return _round_of(connection, round_id)

    def read_all(self) -> list[Round]:
        """Read all rounds, oldest first."""
        query = select(ROUNDS).order_by(ROUNDS.c.created_at, ROUNDS.c.round_id)
        with self._database.read() as connection:
            return [_round(row) for row in connection.execute(query).mappings()]

    def progress(self, round_id: str) -> RoundProgress:
        """Count the tasks and slots of a round.

        Raises:
            NotFound: There is no such round.
        """
        free = and_(~SLOTS.c.done, (SLOTS.c.token.is_(None)) | (SLOTS.c.expires_at < now()))
        of_round = TASKS.c.round_id == round_id
        slots = select(
            func.count(SLOTS.c.task_id.distinct()).label("tasks"),
            func.count().label("slots"),
            func.count().filter(SLOTS.c.done).label("done"),
            func.count().filter(free).label("free"),
        ).join_from(TASKS, SLOTS, TASKS.c.task_id == SLOTS.c.task_id)
        skips = select(func.count()).select_from(ASSIGNMENTS).join(TASKS, TASKS.c.task_id == ASSIGNMENTS.c.task_id)
        branches = select(func.count()).select_from(BRANCHES).join(TASKS, TASKS.c.task_id == BRANCHES.c.task_id)
        with self._database.read() as connection:
            _round_of(connection, round_id)
            counts = connection.execute(slots.where(of_round)).one()
            return RoundProgress(
                round_id=round_id,
                tasks=counts.tasks,
                slots=counts.slots,
                done=counts.done,
                leased=counts.slots - counts.done - counts.free,
                free=counts.free,
                skips=connection.execute(skips.where(of_round, ASSIGNMENTS.c.state == "skipped")).scalar_one(),
                open_branches=connection.execute(branches.where(of_round, BRANCHES.c.state == "open")).scalar_one(),
            )

    def tasks(self, round_id: str) -> list[Task]:
        """Read the tasks of a round, in the order of its images.

        Raises:
            NotFound: There is no such round.
        """
        query = select(TASKS).where(TASKS.c.round_id == round_id).order_by(TASKS.c.position)
        with self._database.read() as connection:
            _round_of(connection, round_id)
            return [task_from(row) for row in connection.execute(query).mappings()]

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


def locked_round(connection: Connection, round_id: str, states: Iterable[RoundState], *, shared: bool = False) -> Round:
    """Read a round and keep its state from changing until the transaction ends.

    Args:
        connection: The transaction.
        round_id: The round.
        states: States that the round may be in.
        shared: Whether others may hold the same lock at the same time; without, one transaction waits for the other.

    Raises:
        NotFound: There is no such round.
        ValueError: The round is in none of the given states.
    """
    query = select(ROUNDS).where(ROUNDS.c.round_id == round_id).with_for_update(read=shared)
    row = connection.execute(query).mappings().one_or_none()
    found = _found(row, round_id)
    check_state(found, states)
    return found


def check_state(found: Round, states: Iterable[RoundState]) -> None:
    """Check the state of a round.

    Raises:
        InvalidInput: The round is in none of the given states.
    """
    if found.state not in states:
        raise InvalidInput(f"round {found.round_id} is {found.state}; expected {' or '.join(states)}")


def read_given(connection: Connection, task_id: int, purpose: str) -> tuple[GivenMask, ...]:
    """Read the prefilled masks or the gold masks of a task, in their order."""
    query = (
        select(GIVEN_MASKS.c.mask, GIVEN_MASKS.c.payload)
        .where(GIVEN_MASKS.c.task_id == task_id, GIVEN_MASKS.c.purpose == purpose)
        .order_by(GIVEN_MASKS.c.position)
    )
    return tuple(given_from_json(row.mask, row.payload) for row in connection.execute(query))


def task_from(row: Mapping[Any, Any]) -> Task:
    """Make a task of its row."""
    return Task(**{name: row[name] for name in Task.__dataclass_fields__})


def _check_tasks(tasks: Sequence[TaskSpec]) -> None:
    if len({task.image_id for task in tasks}) != len(tasks):
        raise InvalidInput("the round names an image twice; give an overlap to show an image to several annotators")
    for task in tasks:
        if task.overlap < 1:
            raise InvalidInput(f"image {task.image_id}: overlap {task.overlap}, expected at least 1")
        for given in (*task.prefill, *task.gold):
            if (given.rle.height, given.rle.width) != (task.height, task.width):
                raise InvalidInput(
                    f"image {task.image_id}: mask {given.mask} is {given.rle.height} x {given.rle.width} pixels, "
                    f"the image is {task.height} x {task.width}"
                )


def _insert_tasks(connection: Connection, round_id: str, tasks: Sequence[TaskSpec], *, first: int) -> None:
    if not tasks:
        return
    rows = [
        {
            "round_id": round_id,
            "image_id": task.image_id,
            "height": task.height,
            "width": task.width,
            "priority": task.priority,
            "position": first + number,
            "gold": bool(task.gold),
        }
        for number, task in enumerate(tasks)
    ]
    connection.execute(insert(TASKS), rows)
    query = select(TASKS.c.image_id, TASKS.c.task_id).where(TASKS.c.round_id == round_id)
    ids = {row.image_id: row.task_id for row in connection.execute(query)}
    slots = [
        {
            "task_id": ids[task.image_id],
            "slot": slot,
            "done": False,
            "round_id": round_id,
            "rank": -task.priority,
            "position": first + number,
        }
        for number, task in enumerate(tasks)
        for slot in range(task.overlap)
    ]
    connection.execute(insert(SLOTS), slots)
    given = [
        {
            "task_id": ids[task.image_id],
            "purpose": purpose,
            "mask": mask.mask,
            "position": number,
            "payload": given_to_json(mask),
        }
        for task in tasks
        for purpose, masks in (("prefill", task.prefill), ("gold", task.gold))
        for number, mask in enumerate(masks)
    ]
    if given:
        connection.execute(insert(GIVEN_MASKS), given)


def _round_of(connection: Connection, round_id: str) -> Round:
    query = select(ROUNDS).where(ROUNDS.c.round_id == round_id)
    return _found(connection.execute(query).mappings().one_or_none(), round_id)


def _found(row: Mapping[Any, Any] | None, round_id: str) -> Round:
    if row is None:
        raise NotFound(f"round {round_id!r}: there is no such round; `gigamask round status` shows all")
    return _round(row)


def _round(row: Mapping[Any, Any]) -> Round:
    return Round(**{**row, "state": RoundState(row["state"])})


def _update(connection: Connection, round_id: str, **values: Any) -> None:
    connection.execute(update(ROUNDS).where(ROUNDS.c.round_id == round_id).values(**values))
