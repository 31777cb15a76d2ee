"""Prefilled masks of a round's images that models make when the round is opened: the detector's, or the generator's.

Which images stay empty for comparison, and masks that the dataset holds already, are in `stages.rounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from engine.automatic.config import GenerateConfig
from engine.detector.weights import Detector, check_fits
from engine.model.weights import Model
from stages.rounds.choose import ChosenImage
from stages.rounds.prefill_sources import PrefillSource
from stages.semi_automatic.prefill import Prefill, PrefillConfig, prefill_automatically, prefill_image
from stages.stored_pixels import read_stored_pixels
from storage.dataset import Dataset
from storage.workspace.records import GivenMask


def masks_of_detector(model: Model, detector: Detector, config: PrefillConfig | None = None) -> PrefillSource:
    """Make the source that prefills each image with masks of the detector's boxes.

    Raises:
        ValueError: The detector reads the embeddings of another image encoder than the model's.
    """
    check_fits(detector, model)
    return _source(partial(prefill_image, model, detector, config=config))


def masks_of_generator(
    model: Model, generate: GenerateConfig | None = None, config: PrefillConfig | None = None
) -> PrefillSource:
    """Make the source that prefills each image with masks of the automatic generator."""
    return _source(partial(prefill_automatically, model, generate=generate, config=config))


def _source(prefill: Callable[[np.ndarray], Prefill]) -> PrefillSource:
    def source(dataset: Dataset, images: Sequence[ChosenImage]) -> dict[int, tuple[GivenMask, ...]]:
        return {image.image_id: _given(prefill(read_stored_pixels(dataset, image.image_id))) for image in images}

    return source


def _given(filled: Prefill) -> tuple[GivenMask, ...]:
    """Turn prefilled masks into the masks that a task begins with, the most trusted first."""
    return tuple(
        GivenMask(
            mask=f"p{number}",
            rle=mask.rle,
            model_id=filled.model_id,
            predicted_iou=mask.predicted_iou,
            stability_score=mask.stability_score,
        )
        for number, mask in enumerate(filled.masks)
    )
