"""Photographs of a loop: a pool that is annotated and trained on, and two parts that never are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.labelled import LabelledImage
from flows.loop.config import LoopSettings
from stages.ingest.config import IngestConfig
from stages.ingest.ingest import ingest_photos
from stages.rounds.choose import hold_out_one_in
from storage.dataset import Dataset
from storage.objects.atomic import replace_file
from storage.rle import Rle


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of the photographs, drawn at random."""

    pool: tuple[LabelledImage, ...]
    """Photographs that annotators work on and that models train on, one in some held back."""
    gate: tuple[LabelledImage, ...]
    """Photographs that the promotion gate measures on."""
    evaluation: tuple[LabelledImage, ...]
    """Photographs that every model is measured on."""


@dataclass(frozen=True, kw_only=True)
class PhotoSet:
    """A dataset of labelled photographs, with what annotators have in mind on each."""

    dataset: Dataset
    truth: Mapping[int, Sequence[Rle]]
    """Ground truth by image id."""

    @property
    def image_ids(self) -> list[int]:
        """Ids of the images, ascending."""
        return sorted(self.truth)


def split_photos(images: Sequence[LabelledImage], seed: int, settings: LoopSettings) -> Parts:
    """Draw the parts.

    Raises:
        ValueError: There are too few photographs for two in each part.
    """
    usable = [image for image in images if image.num_masks]
    order = np.random.default_rng([seed, 0]).permutation(len(usable))
    evaluation, gate = (
        max(2, round(len(usable) * fraction)) for fraction in (settings.evaluation_fraction, settings.gate_fraction)
    )
    drawn = [usable[number] for number in order]
    pool = drawn[evaluation + gate :]
    if len(pool) < 2:
        raise ValueError(
            f"got {len(usable)} photographs with masks, expected enough for {evaluation} to measure on, {gate} for the "
            "gate and 2 to annotate; give a larger folder"
        )
    return Parts(
        evaluation=tuple(drawn[:evaluation]), gate=tuple(drawn[evaluation : evaluation + gate]), pool=tuple(pool)
    )


def make_photo_set(images: Sequence[LabelledImage], folder: Path) -> PhotoSet:
    """Ingest photographs into a dataset, and find the ground truth of each of its images.

    A photograph is left out if it was turned upright or is a copy, since its masks would not fit.
    """
    photos = folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    by_name = {f"{image.domain}--{image.stem}{Path(image.origin).suffix}": image for image in images}
    for name, image in by_name.items():
        if not (photos / name).exists():  # a photo written anew would be planned anew
            replace_file(photos / name, lambda file, image=image: file.write(image.read_bytes()))  # type: ignore[misc]
    dataset = Dataset.open_or_create(folder / "dataset")
    ingest_photos([photos], dataset, IngestConfig(shortest_side_px=None))
    dataset.fold()
    truth = {}
    for row in dataset.query("SELECT image_id, source, height, width FROM images").to_pylist():
        image = by_name[Path(row["source"]).name]
        if (image.height, image.width) == (row["height"], row["width"]):
            truth[row["image_id"]] = max(image.masks_by_annotator.values(), key=len)
    return PhotoSet(dataset=dataset, truth=truth)


def divide_into_rounds(image_ids: Sequence[int], rounds: int, seed: int) -> tuple[list[list[int]], int]:
    """Divide the images of the pool into rounds that each have an image to train on and one to hold back.

    Returns:
        The images of each round, and the number of images of which one is held back: 5, or less in a small pool.

    Raises:
        ValueError: The pool is too small.
    """
    every = hold_out_one_in(image_ids, least=rounds)
    if every is None:
        raise ValueError(
            f"got {len(image_ids)} photographs for {rounds} rounds, expected that each round has one to train on and "
            "one to hold back; give a larger folder or fewer --rounds"
        )
    held_out = [each for each in image_ids if each % every == 0]
    trained = [each for each in image_ids if each % every]
    rng = np.random.default_rng([seed, 1])
    shuffled = [*rng.permutation(held_out).tolist(), *rng.permutation(trained).tolist()]
    return [sorted(shuffled[number::rounds]) for number in range(rounds)], every
