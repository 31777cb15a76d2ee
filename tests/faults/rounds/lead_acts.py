"""What leads do to a round: open, extend, cancel, reopen and close it, and take the work of an annotator back."""

import uuid
from collections.abc import Callable, Iterable
from typing import Any

from stages.rounds.close import close_round
from stages.rounds.open import RoundRequest, choose_for, make_tasks, open_round, request_of
from stages.rounds.withdraw import withdraw_work
from storage.workspace.records import ClientRequest, RoundSpec, RoundState
from tests.faults import truth
from tests.faults.checks.findings import DOUBLED, Finding
from tests.faults.rounds.checks.workspace_rows import COUNTED, Tables, lost
from tests.faults.rounds.clients import made
from tests.faults.rounds.promises import Promises
from tests.faults.rounds.worlds import Opened, World, claimed, prefill_of, task_of


def close(opened: Opened, promises: Promises) -> None:
    close_round(opened.dataset, opened.workspace, opened.world.round_id, discard_unfinished=True)


def close_all(opened: Opened, promises: Promises) -> None:
    """Every round that has answers, however it stands."""
    for each in opened.workspace.rounds.read_all():
        if each.state is not RoundState.CLOSING and not opened.workspace.rounds.unfinished(each.round_id).answers:
            continue
        if each.state is RoundState.CANCELLED:
            opened.workspace.rounds.reopen(each.round_id)
        close_round(opened.dataset, opened.workspace, each.round_id, discard_unfinished=True)


def withdraw(opened: Opened, promises: Promises) -> None:
    withdraw_work(opened.dataset, opened.workspace, opened.world.round_id, "ann", "asked for")


def cancel(opened: Opened, promises: Promises) -> None:
    opened.workspace.rounds.cancel(opened.world.round_id)


def reopen(opened: Opened, promises: Promises) -> None:
    opened.workspace.rounds.reopen(opened.world.round_id)


def open_another(opened: Opened, promises: Promises) -> None:
    query = "SELECT image_id FROM images ORDER BY image_id"
    asked = ClientRequest(request_id=str(uuid.UUID(int=1)), content={"name": "opened"})
    request = RoundRequest(stage="semi_automatic", images=4, query=query, name="opened", overlap=2)
    images = choose_for(opened.dataset, opened.workspace, request)
    prefilled = {each.image_id: prefill_of(opened.dataset, each.image_id) for each in images}
    tasks = make_tasks(opened.dataset, request, images, prefilled)
    open_round(opened.workspace, request, tasks, client_request=asked)


def extend(opened: Opened, promises: Promises) -> None:
    ids = ", ".join(str(each) for each in further_images())
    query = f"SELECT image_id FROM images WHERE image_id IN ({ids}) ORDER BY image_id"
    found = opened.workspace.rounds.get(opened.world.round_id)
    request = request_of(found, query=query)
    tasks = make_tasks(opened.dataset, request, choose_for(opened.dataset, opened.workspace, request))
    asked = ClientRequest(request_id=str(uuid.UUID(int=2)), content={"query": query})
    opened.workspace.rounds.extend(opened.world.round_id, tasks, request=asked)


def further_images() -> list[int]:
    """Images that the base round does not ask about."""
    return [truth.image_id(number) for number in (9, 10)]


def after_close(opened: Opened, promises: Promises) -> dict[str, Any]:
    close(opened, promises)
    return {}


def with_another_round(opened: Opened, promises: Promises) -> dict[str, Any]:
    """A second round, in which bob changes and rejects the prefilled masks that ann changed in the first."""
    first, second = (truth.image_id(number) for number in (0, 1))
    tasks = tuple(task_of(each, prefill=prefill_of(opened.dataset, each)) for each in (first, second))
    other = opened.workspace.rounds.open(RoundSpec(stage="semi_automatic", name="other", tasks=tasks, priority=1))
    for number in (501, 502):
        page = claimed(opened.workspace, "bob", promises)
        edits = [page.make("change", made("p1", number)), page.make("reject", {"mask": "p2"})]
        page.send(opened.workspace, edits)
        page.submit(opened.workspace)
    return {"other": other.round_id}


def close_the_other(opened: Opened, promises: Promises) -> None:
    close_round(opened.dataset, opened.workspace, opened.world.facts["other"], discard_unfinished=True)


def after_cancel(opened: Opened, promises: Promises) -> dict[str, Any]:
    cancel(opened, promises)
    return {}


def is_in(state: str) -> Callable[[World, Tables], Iterable[Finding]]:
    """The round is in a state."""

    def effect(world: World, tables: Tables) -> Iterable[Finding]:
        (found,) = (row["state"] for row in tables.rounds if row["round_id"] == world.round_id)
        return [] if found == state else [lost("round", f"is {found}, expected {state}")]

    return effect


def is_taken_back(world: World, tables: Tables) -> Iterable[Finding]:
    """No submission of ann counts."""
    left = [row for row in tables.submissions if row["annotator"] == "ann" and row["state"] in COUNTED]
    return [lost("withdrawal", f"{len(left)} submissions still count")] if left else []


def is_opened(world: World, tables: Tables) -> Iterable[Finding]:
    """One round was opened, however often it was asked for, and is whole."""
    rounds = [row["round_id"] for row in tables.rounds if row["name"] == "opened"]
    if not rounds:
        yield lost("round", "was not opened")
    if len(rounds) > 1:
        yield Finding(kind=DOUBLED, thing="round", what=f"was opened {len(rounds)} times by one request")
    for round_id in rounds:
        yield from whole(tables, round_id, tasks=4, slots=8, given=12)


def is_extended(world: World, tables: Tables) -> Iterable[Finding]:
    """The round has each further image once."""
    images = sorted(row["image_id"] for row in tables.tasks if row["round_id"] == world.round_id)
    expected = sorted({*images, *further_images()})
    if images != expected:
        yield lost("task", f"the round has the images {images}, expected {expected}")
    yield from whole(tables, world.round_id, tasks=8, slots=9, given=7)


def whole(tables: Tables, round_id: str, *, tasks: int, slots: int, given: int) -> list[Finding]:
    """A round has so many tasks, slots and given masks."""
    ids = {row["task_id"] for row in tables.tasks if row["round_id"] == round_id}
    counts = (
        len(ids),
        sum(row["task_id"] in ids for row in tables.slots),
        sum(row["task_id"] in ids for row in tables.given),
    )
    return [] if counts == (tasks, slots, given) else [lost("task", f"{round_id} has {counts} tasks, slots, masks")]
