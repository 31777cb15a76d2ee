"""What the dataset holds of the objects that a round began with, after all that other rounds made of them.

Two rounds may begin with the same mask. When the second one is closed, the dataset has the mask that both began with,
or what the first one made of it. A prefilled mask is known by its id in the dataset; one that is not in the dataset, as
a detector made it, by its pixels.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from stages.rounds.answers import Answer, choose_submissions, read_answers
from storage import rle
from storage.dataset import Dataset
from storage.protocol.inputs import MaskKey
from storage.tables.samples import MASK_COLUMNS, read_masks
from storage.workspace.fold import TaskMask
from storage.workspace.records import GivenMask, Origin, RoundState
from storage.workspace.workspace import Workspace

Name = tuple[int, str]
"""Image id, and the id of a prefilled mask in the dataset or its pixels."""


@dataclass(frozen=True, kw_only=True)
class StandingMask:
    """Mask that the dataset holds."""

    key: MaskKey
    round_id: str
    """Round that made it; empty for none."""
    pixels: str
    """Pixels of the mask, as COCO's compressed string; empty where no answer is compared by pixels."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Masks that the dataset holds of the images of a round, those of the round itself left out."""

    masks: Mapping[int, Sequence[StandingMask]]
    """Masks by image id."""
    made: Mapping[Name, Collection[tuple[str, str]]]
    """What other closed rounds made of a prefilled mask: pairs of the round and the pixels."""

    def copies_of(self, image_id: int, given: GivenMask) -> set[MaskKey]:
        """Find the masks that a prefilled mask is: the one that it was prefilled from, or else those of its pixels."""
        standing = self.masks.get(image_id, ())
        if given.source:
            return {each.key for each in standing if str(each.key) == given.source}
        pixels = rle.to_coco(given.rle)
        return {each.key for each in standing if each.pixels == pixels}

    def made_of(self, image_id: int, given: GivenMask) -> set[MaskKey]:
        """Find the masks that other rounds made of a prefilled mask, and others of these in turn."""
        found: set[MaskKey] = set()
        waiting = [(image_id, given.source or rle.to_coco(given.rle))]
        seen = set(waiting)
        while waiting:
            for round_id, pixels in self.made.get(waiting.pop(), ()):
                there = [
                    each for each in self.masks.get(image_id, ()) if (each.round_id, each.pixels) == (round_id, pixels)
                ]
                found |= {each.key for each in there}
                if (image_id, pixels) not in seen:
                    seen.add((image_id, pixels))
                    waiting.append((image_id, pixels))
        return found

    def replaced_by(self, answer: Answer) -> set[MaskKey]:
        """List the masks that an answer takes the place of.

        A prefilled mask that was changed, merged, split or rejected makes way, and so does what other rounds made of
        one that was not rejected: the answer says anew how its object looks.
        """
        image_id = answer.task.image_id
        replaced = {MaskKey.parse(source) for source in answer.replaced}
        rejected = {mask.mask for mask in answer.final.rejected}
        for given in _changed(answer):
            replaced |= self.copies_of(image_id, given)
            if given.mask not in rejected:
                replaced |= self.made_of(image_id, given)
        return replaced

    def place_of(self, answer: Answer, mask: TaskMask) -> MaskKey | None:
        """Find the mask that already stands for a prefilled one that was left as it was; None for none."""
        given = _given(answer, mask)
        copies = self.copies_of(answer.task.image_id, given) if given else set()
        return min(copies) if copies else None

    def is_superseded(self, answer: Answer, mask: TaskMask) -> bool:
        """Tell whether a prefilled mask that was left as it was is not to be stored, although no copy of it stands.

        Somebody else has withdrawn it, or a closed round made something of it that still stands. What the answer itself
        replaces does not count, such as a mask that another round merged of this one and of another that it changed.
        """
        given = _given(answer, mask)
        if given is None:
            return False
        made = self.made_of(answer.task.image_id, given)
        return bool(made - self.replaced_by(answer)) or bool(given.source and not made)


def read_standing(dataset: Dataset, workspace: Workspace, round_id: str, answers: Sequence[Answer]) -> Standing:
    """Read what the dataset holds of the images of some answers, and what other closed rounds made of it.

    Only answers that began with masks count. Pixels are read only where they are needed.
    """
    began = [answer for answer in answers if answer.given]
    image_ids = {answer.task.image_id for answer in began}
    if not image_ids:
        return Standing(masks={}, made={})
    made = _read_made(workspace, round_id, image_ids)
    compared = {answer.task.image_id for answer in began if not all(given.source for given in answer.given)}
    compared |= {image_id for image_id, _ in made}

    # Masks of other rounds and of no round
    ids = ", ".join(map(str, sorted(image_ids)))
    rows = dataset.masks(f"image_id IN ({ids})", columns=MASK_COLUMNS).read_all().to_pylist()
    rows = [row for row in rows if row["round_id"] != round_id]
    pixels = {
        (mask.image_id, mask.mask_id): rle.to_coco(mask.rle)
        for mask in read_masks(dataset.store, [row for row in rows if row["image_id"] in compared])
    }
    masks: dict[int, list[StandingMask]] = {}
    for row in rows:
        key = MaskKey(image_id=row["image_id"], mask_id=row["mask_id"])
        own = pixels.get((key.image_id, key.mask_id), "")
        masks.setdefault(key.image_id, []).append(StandingMask(key=key, round_id=row["round_id"] or "", pixels=own))
    return Standing(masks=masks, made=made)


def _read_made(workspace: Workspace, round_id: str, image_ids: Collection[int]) -> Mapping[Name, set[tuple[str, str]]]:
    """Read what closed rounds that share images with a round made of the masks that these began with."""
    made: dict[Name, set[tuple[str, str]]] = defaultdict(set)
    for other in workspace.rounds.sharing(round_id, (RoundState.CLOSED,)):
        chosen = [each for each in choose_submissions(workspace, other) if each.kept]
        for answer in read_answers(workspace, [each for each in chosen if each.task.image_id in image_ids]):
            given = {each.mask: each for each in answer.given}
            for mask in answer.final.masks:
                if mask.origin is not Origin.PREFILL_EDITED:
                    continue
                for parent in (given[name] for name in mask.parents if name in given):
                    for name in {parent.source, rle.to_coco(parent.rle)} - {""}:
                        made[answer.task.image_id, name].add((other, rle.to_coco(mask.rle)))
    return made


def _changed(answer: Answer) -> list[GivenMask]:
    """List the prefilled masks that an answer did not leave as they were."""
    left = {mask.mask for mask in answer.final.masks if mask.origin is Origin.PREFILL_ACCEPTED}
    return [given for given in answer.given if given.mask not in left]


def _given(answer: Answer, mask: TaskMask) -> GivenMask | None:
    """Return the prefilled mask that a mask is; None for one that a client merely calls so."""
    return next((given for given in answer.given if given.mask == mask.mask), None)
