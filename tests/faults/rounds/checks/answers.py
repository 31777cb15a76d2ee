"""What a round's submissions state: the masks that closing must put into the dataset, and those that it withdraws.

Of several submissions of an image one is kept, the first that was accepted, or else the first; of a gold task none. A
prefilled mask of the dataset that is left as it was stays there and is not stored again; any other is withdrawn.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tests.faults.rounds.checks.refold import ACCEPTED
from tests.faults.rounds.checks.workspace_rows import COUNTED, Row, Tables

Mask = tuple[int, str, str, str, str, str]
"""Image id, digest of the pixels, annotator, round, stage and model of a mask."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a round states."""

    masks: Counter[Mask]
    replaced: frozenset[tuple[int, int]]
    """(image id, mask id) of the masks of the dataset that annotators replaced or rejected."""
    rows: Counter[tuple[int, str, str]]
    """Image id, annotator and origin of each row of the table `annotations`."""


def answers_of(tables: Tables, round_id: str) -> Answers:
    """What the submissions of a round state, by their operations."""
    (found,) = (row for row in tables.rounds if row["round_id"] == round_id)
    masks: Counter[Mask] = Counter()
    replaced: set[tuple[int, int]] = set()
    rows: Counter[tuple[int, str, str]] = Counter()
    for task in (row for row in tables.tasks if row["round_id"] == round_id):
        image_id = task["image_id"]
        for submission, kept in submissions_of(tables, task):
            state = tables.refold(task["task_id"], submission["annotator"], submission["revision"])
            for origin, some in ((None, state.masks), ("prefill_rejected", state.rejected)):
                makers = ((each.author or submission["annotator"], origin or each.origin) for each in some.values())
                rows.update((image_id, *each) for each in makers)
            if kept:
                stays = {each.source for each in state.masks.values() if each.origin == ACCEPTED and each.source}
                masks.update(
                    (
                        *(image_id, each.pixels, each.author or submission["annotator"]),
                        *(round_id, found["stage"], each.model_id),
                    )
                    for each in state.masks.values()
                    if each.origin != ACCEPTED or not each.source
                )
                given = {each.source for each in tables.prefill(task["task_id"]).values() if each.source}
                replaced |= {(image_id, int(source.rpartition("/")[2])) for source in given - stays}
    return Answers(masks=masks, replaced=frozenset(replaced), rows=rows)


def submissions_of(tables: Tables, task: Row) -> list[tuple[Row, bool]]:
    """Submissions of a task that count, after their fixes, and whether their masks go into the dataset."""
    some = [row for row in tables.submissions if row["task_id"] == task["task_id"] and row["state"] in COUNTED]
    fixes = {row["fixes"]: row for row in some if row["fixes"]}
    pairs = [(row["submission_id"], fixed(row, fixes)) for row in some if not row["fixes"]]
    pairs.sort(key=lambda pair: (pair[1]["state"] != "accepted", pair[0]))
    return [(row, not task["gold"] and number == 0) for number, (_, row) in enumerate(pairs)]


def fixed(row: Row, fixes: Mapping[int, Row]) -> Row:
    """The submission that took the place of one, in the end; or that one."""
    while row["submission_id"] in fixes:
        row = fixes[row["submission_id"]]
    return row
