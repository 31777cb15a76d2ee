"""The masks that the images of a semi-automatic round begin with, from the source that the round's request names."""

import logging
from collections.abc import Sequence

from stages.rounds.choose import ChosenImage
from stages.rounds.open import RoundRequest
from stages.rounds.prefill_sources import PrefillSource, images_to_prefill, masks_of_dataset
from storage.dataset import Dataset
from storage.workspace.records import GivenMask

DETECTOR, GENERATOR = "detector", "generator"
"""Names of the sources that are no SQL condition on `masks`."""
_DETECTOR, _FITTING = "seed-detector", "seed"
"""Detector that ships, and the model that it was made for. It fits all models that have the same image encoder."""
logger = logging.getLogger(__name__)


def prefill_round(
    dataset: Dataset, request: RoundRequest, images: Sequence[ChosenImage]
) -> dict[int, tuple[GivenMask, ...]]:
    """Make or find the masks that images begin with, by image id; a fraction of the images stays empty, for comparison.

    The model that makes them is the request's, or the promoted one where the request names none; for the detector, the
    seed where the promoted one has another image encoder.

    Raises:
        ValueError: The request's SQL condition is wrong, or no detector fits the request's model.
    """
    chosen = images_to_prefill(images, empty_fraction=request.empty_fraction, seed=request.seed)
    return dict(_source(dataset, request)(dataset, chosen))


def _source(dataset: Dataset, request: RoundRequest) -> PrefillSource:
    if request.prefill not in (DETECTOR, GENERATOR):
        return masks_of_dataset(request.prefill)
    # Loading torch takes seconds, which a condition on masks need not wait for
    from engine.detector.card import encoder_id
    from engine.detector.weights import load_detector
    from engine.model.weights import load_model
    from stages.promoted import PROMOTED, find_in_dataset
    from stages.semi_automatic.prefill_sources import masks_of_detector, masks_of_generator

    model = load_model(find_in_dataset(dataset, request.model or PROMOTED))
    if request.prefill == GENERATOR:
        return masks_of_generator(model)
    fitting = load_model(_FITTING)
    if not request.model and encoder_id(model.sam) != encoder_id(fitting.sam):
        logger.warning(
            "%s is promoted and has another image encoder than %s; %s prefills the images in its place",
            model.model_id,
            _DETECTOR,
            fitting.model_id,
        )
        model = fitting
    return masks_of_detector(model, load_detector(_DETECTOR, fitting))
