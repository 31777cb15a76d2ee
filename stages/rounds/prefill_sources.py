"""Where the masks come from that a round's images begin with, and which images stay empty for comparison.

A source is any function from images to their masks. `masks_of_dataset` takes masks that the dataset holds, such as
those of the fully automatic stage.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stages.rounds.choose import ChosenImage
from storage.dataset import Dataset
from storage.errors import InvalidInput
from storage.tables.samples import MASK_COLUMNS, read_masks
from storage.workspace.records import GivenMask

PrefillSource = Callable[[Dataset, Sequence[ChosenImage]], Mapping[int, tuple[GivenMask, ...]]]
"""Function that makes the prefilled masks of images, by image id; images without masks may be missing."""

_IMAGES_AT_ONCE = 256
"""Images that one SQL condition names."""


def masks_of_dataset(condition: str) -> PrefillSource:
    """Make the source that takes the masks of the dataset for which an SQL condition on `masks` holds.

    A mask that the annotator keeps stays as it is; one that is edited or rejected is withdrawn when the round closes.
    The source raises ValueError for a condition that is wrong.
    """

    def source(dataset: Dataset, images: Sequence[ChosenImage]) -> dict[int, tuple[GivenMask, ...]]:
        given: dict[int, list[GivenMask]] = {}
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            ids = ", ".join(str(image.image_id) for image in images[start : start + _IMAGES_AT_ONCE])
            rows = dataset.masks(f"({condition}\n) AND image_id IN ({ids})", columns=MASK_COLUMNS).read_all()
            for mask in read_masks(dataset.store, rows.to_pylist()):
                given.setdefault(mask.image_id, []).append(
                    GivenMask(
                        mask=f"p{mask.mask_id}",
                        rle=mask.rle,
                        model_id=mask.provenance.model_id,
                        predicted_iou=_none_for_nan(mask.predicted_iou),
                        stability_score=_none_for_nan(mask.stability_score),
                        source=f"{mask.image_id}/{mask.mask_id}",
                    )
                )
        return {image_id: tuple(masks) for image_id, masks in given.items()}

    return source


def check_condition(dataset: Dataset, condition: str) -> None:
    """Check an SQL condition on `masks` against the dataset, without reading a mask.

    Raises:
        ValueError: The condition is wrong.
    """
    dataset.masks(f"({condition}\n) AND false", columns=("mask_id",)).read_all()


def images_to_prefill(images: Sequence[ChosenImage], *, empty_fraction: float, seed: int) -> list[ChosenImage]:
    """Choose the images that are prefilled; a random fraction stays empty, for comparison.

    Raises:
        ValueError: The fraction is not in [0, 1).
    """
    if not 0 <= empty_fraction < 1:
        raise InvalidInput(f"empty fraction {empty_fraction}: expected a number from 0, below 1")
    empty = round(len(images) * empty_fraction)
    order = np.random.default_rng([seed, 1]).permutation(len(images))
    return [images[index] for index in sorted(order[empty:])]


def _none_for_nan(value: float) -> float | None:
    return None if value != value else value
