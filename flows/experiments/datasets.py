"""Labelled images of several datasets, each a folder or a COCO instances JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.labelled import LabelledImage
from flows.evaluation.compare import open_source


@dataclass(frozen=True, kw_only=True)
class Datasets:
    """Labelled images of all datasets together; an image's `domain` names its dataset."""

    images: Sequence[LabelledImage]
    unlabelled: int
    """Number of images without labels, which are in no list."""


def open_datasets(places: Sequence[Path], folder: Path | None = None) -> Datasets:
    """List the labelled images of every dataset.

    A folder whose images lie one level below is one dataset for each folder there; any other folder, and a COCO file,
    is one dataset.

    Args:
        places: Folders of labelled images or of benchmarks, or COCO or LVIS instances JSONs.
        folder: Folder of the images of the COCO JSONs; None for that of each file.

    Raises:
        ValueError: A place has no labelled image, its labels cannot be used, or two places have a dataset of one name.
    """
    images: list[LabelledImage] = []
    unlabelled = 0
    home: dict[str, Path] = {}
    for place in places:
        source = open_source(place, folder)
        here = source.images()
        for name in dict.fromkeys(image.domain for image in here):
            if name in home:
                raise ValueError(
                    f"got two datasets named {name}, in {home[name]} and {place}; expected each name once: rename one"
                )
            home[name] = place
        images += here
        unlabelled += source.count_unlabelled()
    return Datasets(images=images, unlabelled=unlabelled)
