"""What the dataset holds of the objects that a round began with, after all that other rounds made of them.

Two rounds may begin with the same mask. When the second one is closed, the dataset has the mask that both began with,
or what the first one made of it. A prefilled mask is known by its id in the dataset; one that is not in the dataset, as
a detector made it, by its pixels.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from stages.rounds.answers import Answer, ChosenSubmission, choose_submissions, read_answers
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
    sources: Mapping[int, Collection[str]]
    """Masks of the dataset that an image's task began with, by image id."""

    def with_masks(self, further: Mapping[int, Sequence[StandingMask]]) -> "Standing":
        """Return the same with further masks, by image id."""
        image_ids = {*self.masks, *further}
        masks = {each: [*self.masks.get(each, ()), *further.get(each, ())] for each in image_ids}
        return replace(self, masks=masks)

    def copies_of(self, image_id: int, given: GivenMask) -> set[MaskKey]:
        """Find the masks that a prefilled mask is: the one that it was prefilled from, or else those of its pixels.

        A mask that came back when a withdrawal took its substitute away has another id, and the same pixels. Other
        masks that the image's task began with are not meant.
        """
        standing = self.masks.get(image_id, ())
        itself = {each.key for each in standing if str(each.key) == given.source}
        pixels, others = rle.to_coco(given.rle), self.sources.get(image_id, ())
        return itself or {each.key for each in standing if each.pixels == pixels and str(each.key) not in others}

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


def read_standing(
    dataset: Dataset, workspace: Workspace, round_id: str, answers: Sequence[Answer], *, with_own: bool = False
) -> Standing:
    """Read what the dataset holds of the images of some answers, and what other closed rounds made of it.

    Only answers that began with masks count. Pixels are read only where they are needed. With `with_own`, what the
    round itself made is followed, too.
    """
    began = [answer for answer in answers if answer.given]
    image_ids = {answer.task.image_id for answer in began}
    if not image_ids:
        return Standing(masks={}, made={}, sources={})
    sources = {answer.task.image_id: {each.source for each in answer.given if each.source} for answer in began}

    # Masks of other rounds and of no round
    ids = ", ".join(map(str, sorted(image_ids)))
    rows = dataset.masks(f"image_id IN ({ids})", columns=MASK_COLUMNS).read_all().to_pylist()
    rows = [row for row in rows if row["round_id"] != round_id]
    there = {f"{row['image_id']}/{row['mask_id']}" for row in rows}

    # What other rounds made of masks that were changed, or that the dataset no longer has
    others = workspace.rounds.sharing(round_id, (RoundState.CLOSED,))
    rounds_of = workspace.rounds.by_prefill(image_ids, [*others, round_id] if with_own else others)
    first = {
        (answer.task.image_id, given.source or rle.to_coco(given.rle))
        for answer in began
        for given in {*_changed(answer), *(each for each in answer.given if each.source not in there)}
    }
    made = _read_made(workspace, rounds_of, rounds_of if with_own else first, own_round=round_id)

    # Pixels where they are compared
    compared = {
        answer.task.image_id for answer in began if with_own or not all(given.source in there for given in answer.given)
    } | {image_id for image_id, _ in made}
    pixels = {
        (mask.image_id, mask.mask_id): rle.to_coco(mask.rle)
        for mask in read_masks(dataset.store, [row for row in rows if row["image_id"] in compared])
    }
    masks: dict[int, list[StandingMask]] = {}
    for row in rows:
        key = MaskKey(image_id=row["image_id"], mask_id=row["mask_id"])
        own = pixels.get((key.image_id, key.mask_id), "")
        masks.setdefault(key.image_id, []).append(StandingMask(key=key, round_id=row["round_id"] or "", pixels=own))
    return Standing(masks=masks, made=made, sources=sources)


def _read_made(
    workspace: Workspace, rounds_of: Mapping[Name, Collection[str]], first: Collection[Name], *, own_round: str
) -> Mapping[Name, set[tuple[str, str]]]:
    """Read what rounds made of some masks that images began with, and of what they made of these in turn.

    Of the own round every submission counts, of others those that were kept.
    """
    made: dict[Name, set[tuple[str, str]]] = defaultdict(set)
    chosen: dict[str, list[ChosenSubmission]] = {}
    seen: set[tuple[str, int]] = set()
    waiting = list(first)
    while waiting:
        image_id, name = waiting.pop()
        for other in rounds_of.get((image_id, name), ()):
            if (other, image_id) in seen:
                continue
            seen.add((other, image_id))
            if other not in chosen:
                chosen[other] = choose_submissions(workspace, other)
            some = [each for each in chosen[other] if each.task.image_id == image_id]
            for answer in read_answers(workspace, [each for each in some if each.kept or other == own_round]):
                for names, pixels in _edits(answer):
                    for each in names:
                        made[image_id, each].add((other, pixels))
                    waiting.append((image_id, pixels))
    return made


def _edits(answer: Answer) -> Iterator[tuple[set[str], str]]:
    """Yield the names of a prefilled mask, and the pixels of a mask that an answer made of it."""
    given = {each.mask: each for each in answer.given}
    for mask in answer.final.masks:
        if mask.origin is Origin.PREFILL_EDITED:
            for parent in (given[name] for name in mask.parents if name in given):
                yield {parent.source, rle.to_coco(parent.rle)} - {""}, rle.to_coco(mask.rle)


def _changed(answer: Answer) -> list[GivenMask]:
    """List the prefilled masks that an answer did not leave as they were."""
    left = {mask.mask for mask in answer.final.masks if mask.origin is Origin.PREFILL_ACCEPTED}
    return [given for given in answer.given if given.mask not in left]


def _given(answer: Answer, mask: TaskMask) -> GivenMask | None:
    """Return the prefilled mask that a mask is; None for one that a client merely calls so."""
    return next((given for given in answer.given if given.mask == mask.mask), None)
