"""The order of images by what a model makes of them: which ones are most worth a person's time.

Three kinds of images keep the places that a random order gives them: held-out images, so that what judges new models
is a fair sample; a random fifth of the others, so that what the ranking brings can be seen beside it; and all beyond
the candidates, which no model has looked at.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence

import numpy as np

from engine.model.weights import Model
from engine.selection.config import Ranking
from engine.selection.rank import ImageFeatures, describe_image, rank_images
from stages.rounds.choose import Order, random_order
from stages.stored_pixels import read_stored_pixels
from storage.dataset import Dataset

logger = logging.getLogger(__name__)

RANDOM_FRACTION = 0.2
"""Fraction of the images that train whose places stay random."""
CANDIDATES_PER_IMAGE = 8
"""Number of images that the model looks at for each image wanted."""
MIN_CANDIDATES = 64
"""Least number of images that the model looks at, where there are so many."""
MAX_KNOWN = 256
"""Largest number of images that people were asked about that the model looks at, to keep away from them."""
NOISE = 0.5
"""Size of the noise of the first round's ranking; it falls with the number of rounds before."""
LINE_EVERY_S = 10.0
"""Time between two lines about the progress, in seconds."""


def worth_order(
    ranking: Ranking,
    model: Model,
    *,
    count: int | None,
    seed: int,
    held_out_every: int,
    asked_about: Collection[int],
    rounds_before: int,
) -> Order:
    """Make the order of images by a model's ranking.

    Args:
        ranking: What counts.
        model: Model that looks at the images.
        count: Number of images wanted; None for all, then the model looks at every image.
        seed: Seed of the random order, of what stays random in it, and of the noise.
        held_out_every: Number of images of which trainings hold one out.
        asked_about: Images that other rounds ask about.
        rounds_before: Number of rounds before this one.
    """

    def order(dataset: Dataset) -> list[int]:
        shuffled = [image_id for image_id in random_order(seed)(dataset) if image_id not in asked_about]
        looked_at = len(shuffled) if count is None else max(MIN_CANDIDATES, CANDIDATES_PER_IMAGE * count)
        places = [
            place
            for place, image_id in enumerate(shuffled[:looked_at])
            if image_id % held_out_every and not stays_random(image_id, seed)
        ]
        candidates = [shuffled[place] for place in places]
        if not candidates:
            return shuffled
        known = random_order(seed)(dataset)
        known = [image_id for image_id in known if image_id in asked_about][:MAX_KNOWN]
        features = _look_at(dataset, model, [*candidates, *known])
        ranked = rank_images(
            ranking,
            features[: len(candidates)],
            np.array([each.embedding_C for each in features[len(candidates) :]], dtype=np.float32),
            np.random.default_rng([seed, 3, rounds_before]),
            noise=NOISE / (1 + rounds_before),
        )
        for place, number in zip(places, ranked, strict=True):
            shuffled[place] = candidates[number]
        return shuffled

    return order


def stays_random(image_id: int, seed: int) -> bool:
    """Whether an image that trains belongs to the random fifth of a round's seed."""
    return bool(np.random.default_rng([seed, 4, image_id]).random() < RANDOM_FRACTION)


def _look_at(dataset: Dataset, model: Model, image_ids: Sequence[int]) -> list[ImageFeatures]:
    features, told_at = [], time.monotonic()
    for number, image_id in enumerate(image_ids, start=1):
        features.append(describe_image(model, read_stored_pixels(dataset, image_id)))
        if time.monotonic() - told_at > LINE_EVERY_S:
            logger.info("looked at %d of %d images to choose from", number, len(image_ids))
            told_at = time.monotonic()
    return features
