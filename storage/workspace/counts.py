"""Numbers of a round: its tasks and slots by what became of them, and the masks that it began with."""

from sqlalchemy import Connection, and_, distinct, func, select

from storage.workspace.columns import now
from storage.workspace.records import RoundProgress
from storage.workspace.schema import ASSIGNMENTS, BRANCHES, GIVEN_MASKS, SLOTS, TASKS


def count_progress(connection: Connection, round_id: str) -> RoundProgress:
    """Count the tasks and slots of a round."""
    of_round = TASKS.c.round_id == round_id

    # Slots, in one pass
    free = and_(~SLOTS.c.done, (SLOTS.c.token.is_(None)) | (SLOTS.c.expires_at < now()))
    slots = select(
        func.count(SLOTS.c.task_id.distinct()).label("tasks"),
        func.count().label("slots"),
        func.count().filter(SLOTS.c.done).label("done"),
        func.count().filter(free).label("free"),
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
        skips=connection.execute(skips.where(of_round, ASSIGNMENTS.c.state == "skipped")).scalar_one(),
        open_branches=connection.execute(branches.where(of_round, BRANCHES.c.state == "open")).scalar_one(),
    )


def count_prefilled(connection: Connection, round_id: str) -> tuple[int, int]:
    """Count the images of a round that begin with masks, and these masks."""
    query = select(func.count(distinct(GIVEN_MASKS.c.task_id)), func.count()).join_from(
        TASKS, GIVEN_MASKS, TASKS.c.task_id == GIVEN_MASKS.c.task_id
    )
    of_round = query.where(TASKS.c.round_id == round_id, GIVEN_MASKS.c.purpose == "prefill")
    images, masks = connection.execute(of_round).one()
    return images, masks
