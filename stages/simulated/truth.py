"""Ground truth of simulated annotators: photos with SA-1B JSON in a folder, found in the dataset by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.labelled import LabelledImage, load_folder
from storage import rle
from storage.dataset import Dataset
from storage.records import image_id_of
from storage.rle import Rle

Views = Sequence[Sequence[Rle]]
"""Ground truth of one image, as each of its people saw it: one list of masks for each of them."""


def read_truth(folder: Path, dataset: Dataset) -> dict[int, Views]:
    """Read the ground truth of those images of a dataset whose photos lie in a folder, by image id.

    Ingest may have scaled a photo down; its masks are scaled alike.

    Raises:
        ValueError: The folder has no ground truth, none of the dataset's images, or masks of another shape.
    """
    rows = dataset.query("SELECT image_id, height, width FROM images").to_pylist()
    sizes = {row["image_id"]: (row["height"], row["width"]) for row in rows}
    found: dict[int, Views] = {}
    for labelled in load_folder(folder):
        image_id = image_id_of(hashlib.sha256(labelled.read_bytes()).hexdigest())
        if image_id in sizes:
            found[image_id] = _views(labelled, sizes[image_id])
    if not found:
        raise ValueError(
            f"{folder}: got ground truth of none of the {len(sizes)} images of {dataset.uri}; expected the photos that "
            "were ingested, each with its SA-1B JSON beside it"
        )
    return found


def _views(labelled: LabelledImage, image_hw: tuple[int, int]) -> Views:
    height, width = image_hw
    if abs(labelled.height * width - labelled.width * height) > max(labelled.height, labelled.width):
        raise ValueError(
            f"{labelled.origin}: got masks of {labelled.width}x{labelled.height} for an image that is stored as "
            f"{width}x{height}; expected the same shape (a photo that its camera turned is stored upright)"
        )
    return [_fitted(masks, image_hw) for masks in labelled.masks_by_annotator.values()] or [()]


def _fitted(masks: Sequence[Rle], image_hw: tuple[int, int]) -> Sequence[Rle]:
    """Scale masks to the stored image; masks of which no pixel is left are dropped, as nobody could click them."""
    if all((mask.height, mask.width) == image_hw for mask in masks):
        return [mask for mask in masks if rle.area(mask)]
    size = image_hw[::-1]
    scaled = [cv2.resize(rle.decode(mask).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for mask in masks]
    return [rle.encode(mask_HW.astype(np.bool_)) for mask_HW in scaled if mask_HW.any()]


def as_seen_by(number: int, truth: Mapping[int, Views], image_id: int) -> Sequence[Rle] | None:
    """Return what simulated annotator `number` has in mind: the masks of one of the people who saw the image."""
    views = truth.get(image_id)
    return views[number % len(views)] if views else None
