"""Tasks of a round as rows: one task an image, a slot for each annotator who is to see it, the masks it begins with."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select

from storage import rle
from storage.errors import Conflict, InvalidInput
from storage.workspace.masks import given_from_json, given_to_json
from storage.workspace.records import GivenMask, RoundState, Task, TaskSpec
from storage.workspace.schema import GIVEN_MASKS, ROUNDS, SLOTS, TASKS

_CHOOSING = 0x67696762  # any number of our own: the key of PostgreSQL's advisory lock


class ImagesTaken(Conflict):
    """Refusal of images that another round asks about."""


def read_given(connection: Connection, task_id: int, purpose: str) -> tuple[GivenMask, ...]:
    """Read the prefilled masks or the gold masks of a task, in their order."""
    query = (
        select(GIVEN_MASKS.c.mask, GIVEN_MASKS.c.payload)
        .where(GIVEN_MASKS.c.task_id == task_id, GIVEN_MASKS.c.purpose == purpose)
        .order_by(GIVEN_MASKS.c.position)
    )
    return tuple(given_from_json(row.mask, row.payload) for row in connection.execute(query))


def rounds_by_prefill(
    connection: Connection, image_ids: Collection[int], round_ids: Collection[str]
) -> dict[tuple[int, str], list[str]]:
    """Find which of some rounds begin with a mask; a mask has its id in the dataset and its pixels as names.

    Returns:
        Ids of rounds by the id of the image and a name of the mask, where there are some.
    """
    query = (
        select(TASKS.c.round_id, TASKS.c.image_id, GIVEN_MASKS.c.mask, GIVEN_MASKS.c.payload)
        .join(GIVEN_MASKS, GIVEN_MASKS.c.task_id == TASKS.c.task_id)
        .where(TASKS.c.round_id.in_(round_ids), TASKS.c.image_id.in_(image_ids), GIVEN_MASKS.c.purpose == "prefill")
    )
    found: dict[tuple[int, str], list[str]] = {}
    for row in connection.execute(query):
        given = given_from_json(row.mask, row.payload)
        for name in {given.source, rle.to_coco(given.rle)} - {""}:
            found.setdefault((row.image_id, name), []).append(row.round_id)
    return found


def task_from(row: Mapping[Any, Any]) -> Task:
    """Make a task of its row."""
    return Task(**{name: row[name] for name in Task.__dataclass_fields__})


def check_tasks(tasks: Sequence[TaskSpec]) -> None:
    """Check tasks before any is stored.

    Raises:
        InvalidInput: An image is there twice, an overlap is below 1, or a mask is of another size than its image.
    """
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


def asked_about(connection: Connection) -> set[int]:
    """List the images of all rounds that are not cancelled."""
    query = select(TASKS.c.image_id).join(ROUNDS, ROUNDS.c.round_id == TASKS.c.round_id)
    return set(connection.execute(query.where(ROUNDS.c.state != RoundState.CANCELLED)).scalars())


def choose_alone(connection: Connection) -> None:
    """Let no other transaction take images alone until this one ends; SQLite runs one writer at a time anyhow."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_CHOOSING)))


def check_free(connection: Connection, tasks: Sequence[TaskSpec]) -> None:
    """Check that no other round asks about the images of tasks; gold images are shown in many rounds.

    Raises:
        ImagesTaken: A round that is not cancelled asks about an image.
    """
    wanted = {task.image_id for task in tasks if not task.gold}
    taken = wanted & asked_about(connection)
    if taken:
        raise ImagesTaken(
            f"{len(taken)} of {len(wanted)} chosen images were taken by a round that was opened meanwhile, the first "
            f"is {min(taken)}; choose again"
        )


def insert_tasks(connection: Connection, round_id: str, tasks: Sequence[TaskSpec], *, first: int) -> None:
    """Store the tasks of a round with their slots and the masks that they begin with.

    Args:
        connection: The transaction.
        round_id: The round.
        tasks: The tasks, checked, of images that the round does not have.
        first: Position of the first of them among the round's images.
    """
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
