"""Numbers of a round: its tasks and slots by what became of them, and the masks that it began with."""

from sqlalchemy import Connection, and_, case, distinct, func, select, union

from storage.workspace.columns import now
from storage.workspace.records import RoundProgress, RoundState
from storage.workspace.schema import ASSIGNMENTS, BRANCHES, GIVEN_MASKS, LEASES, ROUNDS, SLOTS, TASKS, USERS

_FREE = and_(~SLOTS.c.done, (SLOTS.c.token.is_(None)) | (SLOTS.c.expires_at < now()))


def count_progress(connection: Connection, round_id: str) -> RoundProgress:
    """Count the tasks and slots of a round."""
    of_round = TASKS.c.round_id == round_id

    # Slots, in one pass
    slots = select(
        func.count(SLOTS.c.task_id.distinct()).label("tasks"),
        func.count().label("slots"),
        func.count().filter(SLOTS.c.done).label("done"),
        func.count().filter(_FREE).label("free"),
    ).join_from(TASKS, SLOTS, TASKS.c.task_id == SLOTS.c.task_id)
    counts = connection.execute(slots.where(of_round)).one()

    # Skips and late work
    skips = select(func.count()).select_from(ASSIGNMENTS).join(TASKS, TASKS.c.task_id == ASSIGNMENTS.c.task_id)
    branches = select(func.count()).select_from(BRANCHES).join(TASKS, TASKS.c.task_id == BRANCHES.c.task_id)
    return RoundProgress(
        round_id=round_id,
        tasks=counts.tasks,
        slots=counts.slots,
        done=counts.done,
        leased=counts.slots - counts.done - counts.free,
        free=counts.free,
        claimable=_count_claimable(connection, round_id) if counts.free else 0,
        skips=connection.execute(skips.where(of_round, ASSIGNMENTS.c.state == "skipped")).scalar_one(),
        open_branches=connection.execute(branches.where(of_round, BRANCHES.c.state == "open")).scalar_one(),
    )


def _count_claimable(connection: Connection, round_id: str) -> int:
    """Count the free slots that somebody with an account can take: of each task, one for each who is not done with it.

    Where there is no account yet, all are: whoever comes can take them.
    """
    users = connection.execute(select(func.count()).select_from(USERS).where(~USERS.c.disabled)).scalar_one()

    # People who answered, skipped or hold a task
    finished = ASSIGNMENTS.c.state.in_(("skipped", "submitted"))
    holding = and_(SLOTS.c.annotator.is_not(None), ~_FREE)
    busy = union(
        select(ASSIGNMENTS.c.task_id, ASSIGNMENTS.c.annotator)
        .join(TASKS, TASKS.c.task_id == ASSIGNMENTS.c.task_id)
        .where(TASKS.c.round_id == round_id, finished),
        select(SLOTS.c.task_id, SLOTS.c.annotator).where(SLOTS.c.round_id == round_id, holding),
    ).subquery()
    busy_by_task = (
        select(busy.c.task_id, func.count().label("people"))
        .join(USERS, USERS.c.name == busy.c.annotator)
        .where(~USERS.c.disabled)
        .group_by(busy.c.task_id)
        .subquery()
    )

    # Free slots of each task, at most one for each of the others
    free = (
        select(SLOTS.c.task_id, func.count().label("slots"))
        .where(SLOTS.c.round_id == round_id, _FREE)
        .group_by(SLOTS.c.task_id)
        .subquery()
    )
    others = users - func.coalesce(busy_by_task.c.people, 0)
    takers = case((others < free.c.slots, others), else_=free.c.slots) if users else free.c.slots
    query = select(func.coalesce(func.sum(takers), 0)).select_from(free)
    query = query.outerjoin(busy_by_task, busy_by_task.c.task_id == free.c.task_id)
    return int(connection.execute(query).scalar_one())


def count_prefilled(connection: Connection, round_id: str) -> tuple[int, int]:
    """Count the images of a round that begin with masks, and these masks."""
    query = select(func.count(distinct(GIVEN_MASKS.c.task_id)), func.count()).join_from(
        TASKS, GIVEN_MASKS, TASKS.c.task_id == GIVEN_MASKS.c.task_id
    )
    of_round = query.where(TASKS.c.round_id == round_id, GIVEN_MASKS.c.purpose == "prefill")
    images, masks = connection.execute(of_round).one()
    return images, masks


def count_held(connection: Connection) -> dict[str, int]:
    """Count the tasks of open and paused rounds that each person holds now, by name; who holds none is left out."""
    query = (
        select(LEASES.c.annotator, func.count().label("held"))
        .join(SLOTS, SLOTS.c.token == LEASES.c.token)
        .join(ROUNDS, ROUNDS.c.round_id == SLOTS.c.round_id)
        .where(ROUNDS.c.state.in_((RoundState.OPEN, RoundState.PAUSED)))
        .where(LEASES.c.ended_at.is_(None), SLOTS.c.expires_at > now())
        .group_by(LEASES.c.annotator)
    )
    return {row.annotator: row.held for row in connection.execute(query)}
