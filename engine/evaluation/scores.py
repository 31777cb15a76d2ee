"""Computation of metrics from the scores of single masks: means with bootstrap intervals, and calibration.

A metric is a mean over masks, for all masks, by domain or by mask size. The masks of each annotator count on their own,
so that images with many masks weigh more. The 95 % interval of a metric comes from drawing whole images with
replacement, because masks of one image are not independent. Shape letters: N masks, I images, B bootstrap draws, M
candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

CLICK_CAP = 20
"""Largest number of clicks that the metrics `noc85` and `noc90` count for a mask. A mask that does not reach the IoU by
then counts as 20 clicks and as a failure."""
BOOTSTRAP_DRAWS = 1000
MIN_IMAGES_OF_INTERVAL = 10
"""Smallest number of images from which the experiments report an interval."""
SIZE_BINS = (("under 1 %", 0.0, 0.01), ("1 to 10 %", 0.01, 0.1), ("over 10 %", 0.1, 1.01))
"""Bins of mask size: name, smallest area (inclusive) and largest area (exclusive), as fractions of the image."""
CALIBRATION_BINS = 10


class OfImage(Protocol):
    """A score that belongs to one image."""

    @property
    def image(self) -> str:
        """Name of the image, the same for every segmenter."""


class OfSize(Protocol):
    """A score of a mask whose size is known."""

    @property
    def area_fraction(self) -> float:
        """Area of the mask as a fraction of the image."""


@dataclass(frozen=True, kw_only=True)
class MaskScore:
    """Scores of a segmenter on one mask of the ground truth."""

    domain: str
    image: str
    annotator: int
    area_fraction: float
    """Area of the mask as a fraction of the image."""
    predicted_iou_M: tuple[float, ...]
    """Predicted IoU of each candidate for the first click; NaN if the segmenter predicts none."""
    iou_M: tuple[float, ...]
    """True IoU of each candidate for the first click."""
    iou_after: tuple[float, ...]
    """IoU of the shown mask after each click, from the first click to the last."""
    boundary_iou: float
    """Boundary IoU (`engine.evaluation.boundaries`) of the mask shown after the first click."""
    iou_box: float | None
    """IoU of the mask predicted from this mask's own box as the only prompt; None when boxes were not measured."""
    iou_box_refined: float | None
    """IoU after the predicted mask was prompted with the box once more; None when boxes were not measured."""

    def clicks_to(self, iou: float) -> int | None:
        """Count the clicks until the shown mask reached the IoU `iou`; return None if no click was enough."""
        return next((number for number, reached in enumerate(self.iou_after, start=1) if reached >= iou), None)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over masks, with its 95 % interval over images."""

    value: float
    interval: tuple[float, float] | None
    """Low and high end of the 95 % bootstrap interval over images; None with fewer than two images."""


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Candidate masks whose predicted IoU falls into one bin, a tenth of the range from 0 to 1."""

    low: float
    high: float
    candidates: int
    mean_predicted_iou: float
    mean_true_iou: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Comparison of predicted IoU with true IoU, over all candidates of all first clicks."""

    candidates: int
    mean_predicted_iou: float
    mean_true_iou: float
    expected_error: float
    """Absolute difference between the mean predicted and the mean true IoU of a bin, averaged over the bins by their
    numbers of candidates."""
    correlation: float | None
    """Pearson correlation of predicted and true IoU; None where one of them has a single value."""
    bins: tuple[CalibrationBin, ...]
    """Bins of predicted IoU that hold at least one candidate, from low to high."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All metrics of a set of masks."""

    images: int
    masks: int
    figures: Mapping[str, Estimate]
    """Estimates by the name of the metric: `miou_1_chosen`, `miou_1_best3`, `boundary_iou`, `miou_<clicks>`,
    `miou_box`, `miou_box_refined`, `noc85`, `noc90`. Metrics that were not measured are absent."""
    failures: Mapping[str, int]
    """Numbers of masks that did not reach the IoU in 20 clicks, by `noc85` and `noc90`; each such mask counts as 20
    clicks."""


def summarise(scores: Sequence[MaskScore], figure_names: Sequence[str], seed: int) -> Summary:
    """Compute the metrics named in `figure_names` from the scores of at least one mask."""
    return Summary(
        images=len({score.image for score in scores}),
        masks=len(scores),
        figures={name: mean_over_masks(scores, figure_values(scores, name), seed) for name in figure_names},
        failures={
            name: sum(score.clicks_to(_goal(name)) is None for score in scores)
            for name in figure_names
            if name.startswith("noc")
        },
    )


def summarise_by(
    scores: Sequence[MaskScore], group_of: Callable[[MaskScore], str], figure_names: Sequence[str], seed: int
) -> dict[str, Summary]:
    """Compute the metrics named in `figure_names` for each group of masks.

    The function `group_of` names the group of a mask. The groups come in the order in which `scores` first has them.
    """
    groups: dict[str, list[MaskScore]] = {}
    for score in scores:
        groups.setdefault(group_of(score), []).append(score)
    return {name: summarise(group, figure_names, seed) for name, group in groups.items()}


def size_of(score: OfSize) -> str:
    """Return the name of the bin in `SIZE_BINS` that a mask falls into."""
    return next(name for name, low, high in SIZE_BINS if low <= score.area_fraction < high)


def figure_values(scores: Sequence[MaskScore], name: str) -> np.ndarray:
    """Return the value of the metric `name` for each mask, float64 [N].

    Raises:
        ValueError: No metric has this name, or the metric was not measured.
    """
    try:
        if name == "miou_1_chosen":
            values: list[float | None] = [score.iou_after[0] for score in scores]
        elif name == "miou_1_best3":
            values = [max(score.iou_M) for score in scores]
        elif name == "boundary_iou":
            values = [score.boundary_iou for score in scores]
        elif name in ("miou_box", "miou_box_refined"):
            values = [score.iou_box if name == "miou_box" else score.iou_box_refined for score in scores]
        elif name in ("noc85", "noc90"):
            values = [score.clicks_to(_goal(name)) or CLICK_CAP for score in scores]
        else:
            values = [score.iou_after[int(name.removeprefix("miou_")) - 1] for score in scores]
    except (IndexError, ValueError) as error:
        raise ValueError(f"got figure {name!r}, expected one that this evaluation measured") from error
    if None in values:
        raise ValueError(f"got figure {name!r}, expected one that this evaluation measured")
    return np.array(values, dtype=np.float64)


def _goal(noc_name: str) -> float:
    return int(noc_name.removeprefix("noc")) / 100


def mean_over_masks(scores: Sequence[OfImage], values_N: np.ndarray, seed: int) -> Estimate:
    """Compute the mean of `values_N` over masks, with a 95 % percentile bootstrap interval over images.

    The same seed gives the same interval. With fewer than two images there is no interval.
    """
    _, image_N = np.unique([score.image for score in scores], return_inverse=True)
    sum_I, count_I = np.bincount(image_N, weights=values_N), np.bincount(image_N)
    if len(count_I) < 2:
        return Estimate(value=float(values_N.mean()), interval=None)
    times_drawn_BI = bootstrap_draws(len(count_I), seed)
    mean_B = (times_drawn_BI @ sum_I) / (times_drawn_BI @ count_I)
    return Estimate(value=float(values_N.mean()), interval=middle_95(mean_B))


def mean_over_groups(groups: Sequence[tuple[Sequence[OfImage], np.ndarray]], seed: int) -> Estimate:
    """Compute the mean of the means of several groups, such as datasets, with a 95 % bootstrap interval over images.

    Each group counts once, whatever its number of masks. A bootstrap draw takes images of each group with replacement;
    the groups stay the same, so that the interval says nothing about other groups. There is no interval where a group
    has fewer than 10 images.

    Args:
        groups: Scores of each group, and one value for each score, float64 [N].
        seed: seed of the draws.
    """
    value = float(np.mean([values_N.mean() for _, values_N in groups]))
    means_GB = []
    for number, (members, values_N) in enumerate(groups):
        _, image_N = np.unique([score.image for score in members], return_inverse=True)
        sum_I, count_I = np.bincount(image_N, weights=values_N), np.bincount(image_N)
        if len(count_I) < MIN_IMAGES_OF_INTERVAL:
            return Estimate(value=value, interval=None)
        times_drawn_BI = bootstrap_draws(len(count_I), seed + number)
        means_GB.append((times_drawn_BI @ sum_I) / (times_drawn_BI @ count_I))
    return Estimate(value=value, interval=middle_95(np.mean(means_GB, axis=0)))


def without_small_intervals(figures: Mapping[str, Estimate], num_images: int) -> dict[str, Estimate]:
    """Remove the intervals of metrics that were measured on fewer than 10 images."""
    if num_images >= MIN_IMAGES_OF_INTERVAL:
        return dict(figures)
    return {name: replace(figure, interval=None) for name, figure in figures.items()}


def difference_of_means(
    before: Sequence[OfImage],
    before_N: np.ndarray,
    after: Sequence[OfImage],
    after_M: np.ndarray,
    seed: int,
) -> Estimate | None:
    """Subtract the mean of `before_N` from the mean of `after_M`, with a bootstrap interval over images.

    The values belong to the masks that `before` and `after` list. The images are the same, but the masks may differ,
    because each generator makes masks of its own. The bootstrap therefore draws images, and each draw takes the same
    images for `before` and `after`. A draw that leaves either of them without a mask is not counted. The result is None
    where `before` or `after` is empty.
    """
    if not len(before_N) or not len(after_M):
        return None
    value = float(after_M.mean() - before_N.mean())
    _, image_K = np.unique([score.image for score in (*before, *after)], return_inverse=True)
    num_images = int(image_K.max()) + 1
    if num_images < 2:
        return Estimate(value=value, interval=None)
    times_drawn_BI = bootstrap_draws(num_images, seed)
    sums, counts = [], []
    for image_N, values_N in ((image_K[: len(before)], before_N), (image_K[len(before) :], after_M)):
        sums.append(times_drawn_BI @ np.bincount(image_N, weights=values_N, minlength=num_images))
        counts.append(times_drawn_BI @ np.bincount(image_N, minlength=num_images))
    usable_B = (counts[0] > 0) & (counts[1] > 0)
    difference_B = sums[1][usable_B] / counts[1][usable_B] - sums[0][usable_B] / counts[0][usable_B]
    return Estimate(value=value, interval=middle_95(difference_B))


def bootstrap_draws(num_images: int, seed: int) -> np.ndarray:
    """Draw images with replacement, and count how often each bootstrap draw takes each image; int [B, I]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=BOOTSTRAP_DRAWS)


def middle_95(values_B: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 % and the 97.5 % quantile of the values of bootstrap draws, the ends of the 95 % interval."""
    low, high = np.percentile(values_B, [2.5, 97.5])
    return float(low), float(high)


def paired_difference(before: Sequence[MaskScore], after: Sequence[MaskScore], name: str, seed: int) -> Estimate:
    """Subtract the metric `name` of one segmenter (`before`) from that of another (`after`), on the same masks.

    Raises:
        ValueError: The two segmenters were not measured on the same masks.
    """
    same = [(score.image, score.annotator, score.area_fraction) for score in before]
    if same != [(score.image, score.annotator, score.area_fraction) for score in after]:
        raise ValueError("got evaluations of different masks, expected the same folder, settings and seed for both")
    return mean_over_masks(before, figure_values(after, name) - figure_values(before, name), seed)


def calibrate(scores: Sequence[MaskScore]) -> Calibration | None:
    """Compare the predicted with the true IoU of all candidates; return None if the segmenter predicts no IoU."""
    predicted = np.array([value for score in scores for value in score.predicted_iou_M], dtype=np.float64)
    true = np.array([value for score in scores for value in score.iou_M], dtype=np.float64)
    if not len(predicted) or np.isnan(predicted).any():
        return None
    bin_of = np.clip((predicted * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    bins = tuple(
        CalibrationBin(
            low=number / CALIBRATION_BINS,
            high=(number + 1) / CALIBRATION_BINS,
            candidates=int((bin_of == number).sum()),
            mean_predicted_iou=float(predicted[bin_of == number].mean()),
            mean_true_iou=float(true[bin_of == number].mean()),
        )
        for number in np.unique(bin_of).tolist()
    )
    varies = predicted.std() > 0 and true.std() > 0
    return Calibration(
        candidates=len(predicted),
        mean_predicted_iou=float(predicted.mean()),
        mean_true_iou=float(true.mean()),
        expected_error=sum(b.candidates * abs(b.mean_predicted_iou - b.mean_true_iou) for b in bins) / len(predicted),
        correlation=float(np.corrcoef(predicted, true)[0, 1]) if varies else None,
        bins=bins,
    )


def summary_json(summary: Summary, figure_names: Sequence[str]) -> dict[str, Any]:
    """Make the JSON form of a summary: each metric and its `<name>_interval`, null where not measured."""
    content: dict[str, Any] = {"images": summary.images, "masks": summary.masks}
    for name in figure_names:
        content |= figure_json(name, summary.figures.get(name))
        if name.startswith("noc"):
            content[f"{name}_failures"] = summary.failures.get(name)
    return content


def figure_json(name: str, figure: Estimate | None) -> dict[str, Any]:
    """Make the two JSON fields of a metric: the value under `name`, and the interval under `<name>_interval`.

    A field is null where the metric has no such value or interval.
    """
    interval = figure.interval if figure else None
    return {
        name: round(figure.value, 5) if figure else None,
        f"{name}_interval": [round(edge, 5) for edge in interval] if interval else None,
    }
