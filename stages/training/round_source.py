"""The masks of closed rounds as training data: corrected masks count by their correction, rejected ones warn.

annotations + masks + withdrawn masks of a snapshot -> targets by image -> windows

A mask that a person made counts 1. A prefilled mask counts 1 - IoU(before, after) + 0.2, whether it was edited or
accepted as it was, because a model learns little from what it can do already. A prefilled mask that was rejected is a
target of the IoU head alone. Both need the mask as it was before: masks of the dataset have it; of masks that a
detector made for the round alone, edited ones count 1 and rejected ones are left out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator

from engine.images import decode
from engine.labelled import LabelledImage
from engine.training.photos import DECODED_PHOTOS, WINDOWS_TRIED, cut_photo
from engine.training.sources import Cut, WindowConfig
from stages.training.snapshot_source import SplitSide
from storage import rle
from storage.dataset import Dataset
from storage.protocol.commits import list_commits, newest_generations
from storage.rle import Rle
from storage.tables.contents import read_masks as read_masks_of_shard
from storage.tables.samples import IMAGE_COLUMNS, MASK_COLUMNS, read_image, read_masks
from storage.tables.sql import one_of
from storage.tables.withdrawals import withdrawn_masks

UNCORRECTED_WEIGHT = 0.2
"""Weight of a prefilled mask that a person accepted as it was."""
SAME_OBJECT_IOU = 0.5
"""IoU with a mask of the image from which on a replaced mask counts as edited, and below which as rejected."""
IMAGES_AT_ONCE = 500
"""Number of images whose rows one query reads."""
DOMAIN = "rounds"
"""Name of the domain of held-out images."""


@dataclass(frozen=True, kw_only=True)
class RoundImage:
    """One image of closed rounds, with what people said about its masks."""

    image_id: int
    masks: tuple[Rle, ...]
    """Ground truth first, then rejected masks."""
    weights: tuple[float, ...]
    """Weight of each mask; 0 for a rejected one."""
    rejected: tuple[bool, ...]


def rounds_in(dataset: Dataset, snapshot: str) -> list[str]:
    """List the rounds whose masks a snapshot holds, in the order in which they were submitted.

    Raises:
        NotFound: There is no such snapshot.
    """
    sql = "SELECT round_id FROM annotations WHERE in_masks AND NOT gold GROUP BY round_id ORDER BY min(submitted_at)"
    return [row["round_id"] for row in dataset.query(sql, snapshot).to_pylist()]


def count_round_images(
    dataset: Dataset, snapshot: str, rounds: Collection[str], *, held_out_every: int
) -> tuple[int, int]:
    """Count the images with masks of some rounds: those to train on, and those held out."""
    ids = _kept(dataset, snapshot, rounds)
    held_out = sum(image_id % held_out_every == 0 for image_id in ids)
    return len(ids) - held_out, held_out


def count_round_masks(dataset: Dataset, snapshot: str, rounds: Collection[str], *, held_out_every: int) -> int:
    """Count the masks of some rounds that a training sees."""
    kept = _kept(dataset, snapshot, rounds)
    return sum(len(masks) for image_id, masks in kept.items() if image_id % held_out_every)


class RoundSource:
    """Source of training windows: images of closed rounds on one side of a split, all equally often."""

    def __init__(self, dataset: Dataset, snapshot: str, rounds: Sequence[str], side: SplitSide) -> None:
        self._made_of = (dataset, snapshot, tuple(rounds), side)
        self._rows = _image_rows(dataset, snapshot, [i for i in _kept(dataset, snapshot, rounds) if i in side])
        found = read_round_images(dataset, snapshot, rounds, list(self._rows), with_rejected=not side.held_out)
        self._images = [sort_by_content(image) for image in found]
        trained = [weight for image in self._images for weight in image.weights if weight]
        self._scale = 1 / float(np.mean(trained)) if trained else 1.0  # so that the mean weight is 1
        self._decoded = lru_cache(maxsize=DECODED_PHOTOS)(self._decode)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the dataset's address; the other process opens the dataset again."""
        dataset, snapshot, rounds, side = self._made_of
        return _reopened, (dataset.uri, snapshot, rounds, side)

    def prepare(self, step: int) -> None:
        """Do nothing: the images need no preparation."""

    def cut(self, rng: Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
        """Cut a window out of a random image, with some of the image's masks.

        Raises:
            RuntimeError: No mask is of a size to train on in the windows that were tried.
        """
        return self._cut(rng, window, prompts)

    def cut_all(self, rng: Generator, step: int, window: WindowConfig) -> Cut:
        """Cut a window out of a random image, with every mask of a size to train on except rejected ones.

        Raises:
            RuntimeError: No mask is of a size to train on in the windows that were tried.
        """
        return self._cut(rng, window, None)

    def _cut(self, rng: Generator, window: WindowConfig, prompts: int | None) -> Cut:
        for _ in range(WINDOWS_TRIED):
            number = int(rng.integers(len(self._images)))
            image, (pixels_HW3, masks_NHW) = self._images[number], self._decoded(number)
            weights_N = np.array(image.weights, np.float32) * np.float32(self._scale)
            rejected_N = np.array(image.rejected, np.bool_)
            if prompts is None:
                masks_NHW, weights_N = masks_NHW[~rejected_N], weights_N[~rejected_N]
                rejected_N = rejected_N[~rejected_N]
            cut = cut_photo(pixels_HW3, masks_NHW, rng, window, prompts, weights_N=weights_N, rejected_N=rejected_N)
            if cut is not None:
                return cut
        raise RuntimeError(
            f"{WINDOWS_TRIED} windows of {window.side_px} px showed no mask of {window.min_mask_px} px and at most "
            f"{window.max_mask_fraction:.0%} of the window; the masks of rounds {self._made_of[2]} do not suit it"
        )

    def _decode(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        image = self._images[number]
        _, data = read_image(self._made_of[0].store, self._rows[image.image_id])
        return decode(data), np.stack([rle.decode(mask) for mask in image.masks]).astype(np.uint8)


def held_out_images(dataset: Dataset, snapshot: str, *, held_out_every: int) -> list[LabelledImage]:
    """List the images of rounds that no training sees, with the masks that people made, as an evaluation set.

    Raises:
        NotFound: There is no such snapshot.
    """
    side = SplitSide(held_out_every=held_out_every, held_out=True)
    rounds = rounds_in(dataset, snapshot)
    rows = _image_rows(dataset, snapshot, [i for i in _kept(dataset, snapshot, rounds) if i in side])
    labelled = []
    for image in read_round_images(dataset, snapshot, rounds, list(rows), with_rejected=False):
        row = rows[image.image_id]
        labelled.append(
            LabelledImage(
                domain=DOMAIN,
                stem=str(row["key"]),
                origin=f"{dataset.uri}: image {row['key']}",
                read_bytes=lambda row=row: read_image(dataset.store, row)[1],  # type: ignore[misc]
                image_id=image.image_id,
                height=row["height"],
                width=row["width"],
                masks_by_annotator={0: image.masks},
            )
        )
    return labelled


def read_round_images(
    dataset: Dataset, snapshot: str, rounds: Collection[str], image_ids: Sequence[int], *, with_rejected: bool
) -> list[RoundImage]:
    """Read the masks of images of closed rounds, with their weights.

    Args:
        dataset: The dataset of the rounds.
        snapshot: Id of the snapshot.
        rounds: Ids of the rounds whose masks are read.
        image_ids: Ids of the images.
        with_rejected: Whether to include rejected masks.
    """
    kept = _kept(dataset, snapshot, rounds)
    before = _masks_before(dataset, rounds, set(image_ids))
    images = []
    for start in range(0, len(image_ids), IMAGES_AT_ONCE):
        some = image_ids[start : start + IMAGES_AT_ONCE]
        where = f"image_id IN ({', '.join(map(str, some))})"
        rows = dataset.masks(where, columns=MASK_COLUMNS, snapshot=snapshot).read_all().to_pylist()
        wanted = [row for row in rows if row["mask_id"] in kept[row["image_id"]]]
        masks: dict[int, list[tuple[int, Rle]]] = {}
        for mask in read_masks(dataset.store, sorted(wanted, key=lambda row: (row["image_id"], row["mask_id"]))):
            masks.setdefault(mask.image_id, []).append((mask.mask_id, mask.rle))
        for image_id in some:
            if image_id in masks:
                replaced = before.get(image_id, [])
                images.append(_weigh(image_id, masks[image_id], kept[image_id], replaced, with_rejected=with_rejected))
    return images


def _weigh(
    image_id: int,
    masks: Sequence[tuple[int, Rle]],
    origins: dict[int, str],
    replaced: Sequence[Rle],
    *,
    with_rejected: bool,
) -> RoundImage:
    """Weigh the masks of one image by how much they were corrected."""
    drawn = [rle.decode(mask) for _, mask in masks]
    overlaps = [[_iou(rle.decode(old), mask_HW) for mask_HW in drawn] for old in replaced]
    weights = []
    for number, (mask_id, _) in enumerate(masks):
        nearest = max((each[number] for each in overlaps), default=0.0)
        if origins[mask_id] == "prefill_accepted":
            nearest = 1.0
        is_known = origins[mask_id] != "made" and nearest >= SAME_OBJECT_IOU
        weights.append(1 - nearest + UNCORRECTED_WEIGHT if is_known else 1.0)
    rejected = [
        old for old, each in zip(replaced, overlaps, strict=True) if with_rejected and max(each) < SAME_OBJECT_IOU
    ]
    return RoundImage(
        image_id=image_id,
        masks=(*(mask for _, mask in masks), *rejected),
        weights=(*weights, *(0.0 for _ in rejected)),
        rejected=(*(False for _ in masks), *(True for _ in rejected)),
    )


def sort_by_content(image: RoundImage) -> RoundImage:
    """Sort the masks of an image by their pixels: ids follow from the round's, which is another one in each run."""
    order = sorted(
        range(len(image.masks)), key=lambda number: (image.rejected[number], image.masks[number].counts.tobytes())
    )
    return RoundImage(
        image_id=image.image_id,
        masks=tuple(image.masks[number] for number in order),
        weights=tuple(image.weights[number] for number in order),
        rejected=tuple(image.rejected[number] for number in order),
    )


def _kept(dataset: Dataset, snapshot: str, rounds: Collection[str]) -> dict[int, dict[int, str]]:
    """Map each image to its masks that people made or kept in some rounds: mask id to origin."""
    kept: dict[int, dict[int, str]] = {}
    if not rounds:
        return kept
    sql = (
        "SELECT image_id, mask_id, origin FROM annotations WHERE in_masks AND NOT gold AND round_id IN "
        f"{one_of(sorted(rounds))} ORDER BY image_id, mask_id"
    )
    erased = dataset.erasures().images
    for row in dataset.query(sql, snapshot).to_pylist():
        if row["image_id"] not in erased:
            kept.setdefault(row["image_id"], {})[row["mask_id"]] = row["origin"]
    return kept


def _image_rows(dataset: Dataset, snapshot: str, image_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Query the rows of images, by image id, in the order of the ids."""
    found: dict[int, dict[str, Any]] = {}
    for start in range(0, len(image_ids), IMAGES_AT_ONCE):
        ids = ", ".join(map(str, image_ids[start : start + IMAGES_AT_ONCE]))
        sql = f"SELECT {', '.join(IMAGE_COLUMNS)} FROM images WHERE image_id IN ({ids}) ORDER BY image_id"
        found |= {row["image_id"]: row for row in dataset.query(sql, snapshot).to_pylist()}
    return found


def _masks_before(dataset: Dataset, rounds: Collection[str], image_ids: Collection[int]) -> dict[int, list[Rle]]:
    """Read the masks that annotators of some rounds replaced or rejected, by image id; lost ones are left out."""
    rows = withdrawn_masks(dataset.store, None).to_pylist()
    wanted: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for row in rows:
        if row["image_id"] in image_ids and str(row["reason"]).rpartition(" ")[2] in rounds:
            wanted.setdefault((row["plan"], row["shard"]), set()).add((row["image_id"], row["mask_id"]))
    found: dict[int, list[Rle]] = {}
    homes = sorted({plan for plan, _ in wanted if plan})  # empty where the rows of a withdrawal are lost
    newest = newest_generations(address for home in homes for address in list_commits(dataset.store, home))
    for address in newest:
        pairs = wanted.get((address.plan_id, address.shard), set())
        if not pairs:
            continue
        for image, masks in read_masks_of_shard(dataset.store, dataset.commit_of(address)):
            for mask in masks:
                if (image.image_id, mask.mask_id) in pairs:
                    found.setdefault(image.image_id, []).append(mask.rle)
    return found


def _reopened(uri: str, snapshot: str, rounds: tuple[str, ...], side: SplitSide) -> RoundSource:
    return RoundSource(Dataset.open(uri), snapshot, rounds, side)


def _iou(a_HW: np.ndarray, b_HW: np.ndarray) -> float:
    union = int((a_HW | b_HW).sum())
    return int((a_HW & b_HW).sum()) / union if union else 1.0
