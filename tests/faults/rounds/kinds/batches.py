"""Batches of operations that come twice, late, out of order, changed or from somebody else, and leases that end midway.

Whatever comes, an operation is stored once, and on the line that it was made on; what lacks its predecessors waits.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from storage.workspace.checking import InvalidOperation
from storage.workspace.lines import OutOfOrder
from storage.workspace.records import Operation, RoundSpec
from tests.faults import truth
from tests.faults.rounds.clients import Page, claim, made
from tests.faults.rounds.kinds.walks import Walk, walks
from tests.faults.rounds.stages import Case, Template
from tests.faults.rounds.worlds import task_of

DISTURBED = "batches disturbed"
SCENES = 12
"""Disturbances of one walk."""


def batches(templates: Iterable[Template]) -> list[Case]:
    """Walks through the base world."""
    return walks(DISTURBED, take_part, [each for each in templates if each.name == "close"], steady_clock=True)


def take_part(walk: Walk) -> None:
    """Each scene has a task of its own, in a further round."""
    images = [truth.image_id(number) for number in (0, 1, 3, 4, 6, 7, 9, 10)]
    tasks = tuple(task_of(each, overlap=2) for each in images)
    walk.workspace.rounds.open(RoundSpec(stage="assisted_manual", name="batches", tasks=tasks))
    for _ in range(SCENES):
        page = claim(walk.workspace, walk.dice.choice(("ann", "bob")), walk.promises)
        if page is None:
            return
        name = walk.dice.choice(list(SCENES_BY_NAME))
        SCENES_BY_NAME[name](walk, page)
        walk.faults[f"{DISTURBED}: {name}"] += 1
        if walk.is_current(page) and walk.dice.random() < 0.8:
            page.submit(walk.workspace)


def batch_of(walk: Walk, page: Page) -> list[Operation]:
    """One to four operations, at least one of which changes a mask."""
    names = [walk.dice.randrange(1000, 9999) for _ in range(walk.dice.randint(1, 3))]
    batch = [page.make("add", made(f"m{number}", number)) for number in names]
    return [*batch, page.make("note", {"text": "seen"})]


def send(walk: Walk, page: Page, batch: Sequence[Operation], new: Sequence[Operation], what: str) -> None:
    """Sends a batch of which just these are new."""
    result = page.send(walk.workspace, batch)
    if set(result.stored) != {each.op_id for each in new}:
        walk.false_alarms.append(f"{what}: {len(result.stored)} were stored, expected {len(new)}")


def refused(walk: Walk, call: Callable[[], object], kind: type[Exception], what: str) -> None:
    """Does what must be refused."""
    try:
        call()
    except kind:
        return
    walk.missed.append(what)


def come_twice(walk: Walk, page: Page) -> None:
    batch = batch_of(walk, page)
    send(walk, page, batch, batch, "sent")
    for _ in range(walk.dice.randint(1, 3)):
        send(walk, page, batch, [], "sent again")


def come_late(walk: Walk, page: Page) -> None:
    """An old batch once more, after newer ones."""
    some = [batch_of(walk, page) for _ in range(3)]
    for batch in some:
        send(walk, page, batch, batch, "sent")
    for batch in walk.dice.sample(some, 2):
        send(walk, page, batch, [], "replayed")


def overlap(walk: Walk, page: Page) -> None:
    """A batch that begins with what is there already."""
    first, second = batch_of(walk, page), batch_of(walk, page)
    send(walk, page, first, first, "sent")
    send(walk, page, [*first, *second], second, "overlapping")


def swap(walk: Walk, page: Page) -> None:
    """The second batch comes before the first."""
    first, second = batch_of(walk, page), batch_of(walk, page)
    refused(walk, lambda: page.send(walk.workspace, second), OutOfOrder, "a batch came before its predecessor")
    send(walk, page, first, first, "in order")
    send(walk, page, second, second, "in order")


def shuffle(walk: Walk, page: Page) -> None:
    """The operations of a batch come in another order; none of them may be stored."""
    batch = [*batch_of(walk, page), *batch_of(walk, page)]
    refused(walk, lambda: page.send(walk.workspace, batch[::-1]), OutOfOrder, "a batch in reverse")
    send(walk, page, batch, batch, "in order")


def change(walk: Walk, page: Page) -> None:
    """An id comes again with other content."""
    batch = batch_of(walk, page)
    send(walk, page, batch, batch, "sent")
    other = [replace(batch[0], payload=made("other", walk.dice.randrange(1000, 9999)))]
    refused(walk, lambda: page.send(walk.workspace, other), InvalidOperation, "an id with other content")


def come_from_another(walk: Walk, page: Page) -> None:
    """Somebody else sends an operation that is stored already."""
    batch = batch_of(walk, page)
    send(walk, page, batch, batch, "sent")
    other = claim(walk.workspace, "bob" if page.annotator == "ann" else "ann", walk.promises)
    if other is not None:
        refused(walk, lambda: other.send(walk.workspace, batch), InvalidOperation, "somebody else's operation")


def lose_the_lease(walk: Walk, page: Page) -> None:
    """The lease ends midway; the rest becomes a branch, in whatever order it comes, and is merged in the end."""
    first, second, third = (batch_of(walk, page) for _ in range(3))
    send(walk, page, first, first, "sent")
    walk.workspace.leases.release(page.token, actor="lea")
    if walk.dice.random() < 0.5:
        claim(walk.workspace, "bob" if page.annotator == "ann" else "ann", walk.promises)
    again = claim(walk.workspace, page.annotator, walk.promises)
    if again is not None and again.task_id == page.task_id and walk.dice.random() < 0.7:
        newer = [*batch_of(walk, again), *batch_of(walk, again)]
        send(walk, again, newer, newer, "sent under the new lease")
    if walk.dice.random() < 0.5:
        send(walk, page, second, second, "late")
        send(walk, page, third, third, "late")
    else:
        refused(walk, lambda: page.send(walk.workspace, third), OutOfOrder, "a late batch before its predecessor")
        send(walk, page, [*second, *third], [*second, *third], "late")
    if again is not None and again.task_id == page.task_id:
        for branch in walk.workspace.operations.branches(page.task_id, annotator=page.annotator):
            walk.workspace.operations.merge(branch.branch, again.token, actor=page.annotator)
            again.revision = walk.workspace.operations.merge(branch.branch, again.token, actor="lea").revision
        again.renew()
        again.submit(walk.workspace)


SCENES_BY_NAME: dict[str, Callable[[Walk, Page], None]] = {
    "twice": come_twice,
    "late": come_late,
    "overlapping": overlap,
    "swapped": swap,
    "shuffled": shuffle,
    "changed": change,
    "from another": come_from_another,
    "lease lost": lose_the_lease,
}
