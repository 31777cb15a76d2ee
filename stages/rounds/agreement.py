"""Agreement of two sets of masks on one image, and means over images or masks with an interval.

Agreement says how alike two annotators work. It is not accuracy: both may be wrong alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import linear_sum_assignment

from storage import rle
from storage.rle import Rle
from storage.workspace.records import SHOW_NOTES

MATCH_IOU = 0.5
"""IoU from which two masks are the same object."""
_RESAMPLES = 2000
_COVERAGE = 0.95


@dataclass(frozen=True, kw_only=True)
class Match:
    """Comparison of two sets of masks of one image."""

    first: int
    """Number of masks of the first set."""
    second: int
    """Number of masks of the second set."""
    ious: tuple[float, ...]
    """IoU of each pair of masks that belong together, at least MATCH_IOU."""
    pairs: tuple[tuple[int, int], ...]
    """Places of the two masks of each pair in their sets."""

    @property
    def found_fraction(self) -> float:
        """Fraction of the masks of both sets that have a partner, in [0, 1]; 1 for two empty sets."""
        total = self.first + self.second
        return 2 * len(self.ious) / total if total else 1.0


@dataclass(frozen=True, kw_only=True)
class Partners:
    """How one mask of an answer is found again in the other answers about the same image."""

    agreed_fraction: float | None
    """Fraction of the other answers in which the mask has a partner, in [0, 1]; None without other answers."""
    agreed_iou: float | None
    """Mean IoU with the partners; None without any."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean over images or over masks, with the interval that a bootstrap over the images gives."""

    __pydantic_config__ = SHOW_NOTES

    mean: float
    """Mean, over images or over masks."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    images: int
    """Number of images."""


def match(first: Sequence[Rle], second: Sequence[Rle]) -> Match:
    """Pair the masks of two sets one to one, so that the sum of their IoU is largest."""
    if not first or not second:
        return Match(first=len(first), second=len(second), ious=(), pairs=())
    ious_AB = rle.iou_matrix(first, second)
    rows, columns = linear_sum_assignment(np.where(ious_AB >= MATCH_IOU, ious_AB, 0.0), maximize=True)
    pairs = tuple((int(a), int(b)) for a, b in zip(rows, columns, strict=True) if ious_AB[a, b] >= MATCH_IOU)
    ious = tuple(float(ious_AB[pair]) for pair in pairs)
    return Match(first=len(first), second=len(second), ious=ious, pairs=pairs)


def find_partners(answers: Sequence[Sequence[Rle]]) -> list[list[Partners]]:
    """Find the partners of each mask of each answer about one image."""
    ious: list[list[list[float]]] = [[[] for _ in masks] for masks in answers]
    for first, second in combinations(range(len(answers)), 2):
        matched = match(answers[first], answers[second])
        for (a, b), iou in zip(matched.pairs, matched.ious, strict=True):
            ious[first][a].append(iou)
            ious[second][b].append(iou)
    others = len(answers) - 1
    return [
        [
            Partners(
                agreed_fraction=len(some) / others if others else None,
                agreed_iou=float(np.mean(some)) if some else None,
            )
            for some in masks
        ]
        for masks in ious
    ]


def estimate(by_image: Sequence[Sequence[float]], *, seed: int = 0) -> Estimate | None:
    """Average values over images, each image with its own mean, and bootstrap over images; None without values."""
    means = np.array([np.mean(values) for values in by_image if len(values)])
    if not means.size:
        return None
    drawn = np.random.default_rng(seed).integers(means.size, size=(_RESAMPLES, means.size))
    low, high = np.quantile(means[drawn].mean(axis=1), [(1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2])
    return Estimate(mean=float(means.mean()), low=float(low), high=float(high), images=int(means.size))


def estimate_pooled(by_image: Sequence[Sequence[float]], *, seed: int = 0) -> Estimate | None:
    """Average values over all masks, and bootstrap over images, whose masks belong together; None without values."""
    sums = np.array([np.sum(values) for values in by_image if len(values)])
    sizes = np.array([len(values) for values in by_image if len(values)])
    if not sums.size:
        return None
    drawn = np.random.default_rng(seed).integers(sums.size, size=(_RESAMPLES, sums.size))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2])
    return Estimate(mean=float(sums.sum() / sizes.sum()), low=float(low), high=float(high), images=int(sums.size))
