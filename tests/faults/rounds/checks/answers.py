"""What a round's submissions state: the masks that closing must put into the dataset, and those that it withdraws.

Of several submissions of an image one is kept, the first that was accepted, or else the first; of a gold task none. A
prefilled mask of the dataset that is left as it was stays there and is not stored again; any other is withdrawn.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tests.faults.rounds.checks.refold import ACCEPTED, EDITED, Drawn, document
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


def withdrawn_of(found: Row) -> list[str]:
    """Annotators whose work was withdrawn from a closed round."""
    return [each["annotator"] for each in document(found["settings"]).get("withdrawals", [])]


def answers_of(tables: Tables, round_id: str, without: Collection[str] = ()) -> Answers:
    """What the submissions of a round state, by their operations; those of some annotators are left out."""
    (found,) = (row for row in tables.rounds if row["round_id"] == round_id)
    masks: Counter[Mask] = Counter()
    replaced: set[tuple[int, int]] = set()
    rows: Counter[tuple[int, str, str]] = Counter()
    for task in (row for row in tables.tasks if row["round_id"] == round_id):
        image_id = task["image_id"]
        for submission, kept in submissions_of(tables, task, without):
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


def submissions_of(tables: Tables, task: Row, without: Collection[str] = ()) -> list[tuple[Row, bool]]:
    """Submissions of a task that count, after their fixes, and whether their masks go into the dataset."""
    some, out = list[Row](), set[int]()
    for row in tables.submissions:
        if row["task_id"] == task["task_id"] and row["state"] in COUNTED:
            gone = row["annotator"] in without or row["fixes"] in out
            out |= {row["submission_id"]} if gone else set()
            some += [] if gone else [row]
    fixes = {row["fixes"]: row for row in some if row["fixes"]}
    pairs = [(row["submission_id"], fixed(row, fixes)) for row in some if not row["fixes"]]
    pairs.sort(key=lambda pair: (pair[1]["state"] != "accepted", pair[0]))
    return [(row, not task["gold"] and number == 0) for number, (_, row) in enumerate(pairs)]


def fixed(row: Row, fixes: Mapping[int, Row]) -> Row:
    """The submission that took the place of one, in the end; or that one."""
    while row["submission_id"] in fixes:
        row = fixes[row["submission_id"]]
    return row


class Story:
    """What rounds left in the dataset that were closed one after the other; one may still be under way.

    An edit takes the place of what earlier rounds made of the same prefilled mask. A prefilled mask that was left as it
    was, and that earlier rounds replaced, is stored again only if the same answer superseded what they made of it.
    """

    def __init__(self, tables: Tables, states: Collection[str]) -> None:
        self.tables = tables
        self.masks: dict[str, Counter[Mask]] = {}
        self.superseded: set[Mask] = set()
        self._made: dict[tuple[int, str], set[Mask]] = defaultdict(set)
        self._gone: set[tuple[int, str]] = set()
        rounds = [row for row in tables.rounds if row["state"] in states]
        for found in sorted(rounds, key=lambda row: (row["state"] != "closed", str(row["closed_at"]))):
            self.masks[found["round_id"]] = answers_of(tables, found["round_id"]).masks
            for task in (row for row in tables.tasks if row["round_id"] == found["round_id"]):
                for submission, kept in submissions_of(tables, task):
                    if kept:
                        self._tell(found, task, submission)

    def _tell(self, found: Row, task: Row, submission: Row) -> None:
        """One answer whose masks count."""
        image_id, given = task["image_id"], self.tables.prefill(task["task_id"])
        state = self.tables.refold(task["task_id"], submission["annotator"], submission["revision"])
        left = {name: each for name, each in state.masks.items() if each.origin == ACCEPTED}

        def mask_of(each: Drawn) -> Mask:
            maker = each.author or submission["annotator"]
            return image_id, each.pixels, maker, found["round_id"], found["stage"], each.model_id

        # What the answer edited makes way; what it left comes back where nothing else of it stands any more
        edited = [each for name, each in given.items() if name not in left and name not in state.rejected]
        out = {mask for each in edited for mask in self._of(image_id, each)}
        back = []
        for each in left.values():
            others = self._of(image_id, each)
            if (image_id, each.source) in self._gone and others and not others - out:
                back.append(mask_of(each))
        for mask in out:
            self.masks[mask[3]][mask] -= 1
        self.superseded |= out
        self.masks[found["round_id"]].update(back)

        # For the rounds after it
        for each in state.masks.values():
            if each.origin == EDITED:
                for name in each.parents:
                    self._made[image_id, given[name].source].add(mask_of(each))
                    self._made[image_id, given[name].pixels].add(mask_of(each))
        self._gone |= {(image_id, each.source) for name, each in given.items() if name not in left}

    def _of(self, image_id: int, each: Drawn) -> set[Mask]:
        """What earlier rounds made of a prefilled mask, and of that in turn, and that still stands."""
        found: set[Mask] = set()
        waiting = [each.source or each.pixels]
        while waiting:
            new = self._made[image_id, waiting.pop()] - found
            found |= new
            waiting += [mask[1] for mask in new]
        return {mask for mask in found if self.masks[mask[3]][mask] > 0}
