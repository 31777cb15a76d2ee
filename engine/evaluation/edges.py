"""Measurement of edge maps against the boundaries that several people drew: the benchmark of BSDS500.

An edge map is cut at 99 thresholds, and each cut is thinned to lines of one pixel. Its pixels are matched one to one
with the boundary pixels of each person (`engine.kernels.match_boundaries`), up to .0075 of the image's diagonal away.
Precision is the fraction of the predicted pixels that are matched to some person's; recall is the fraction of all
persons' pixels that are matched. ODS is the best F-measure at one threshold for all images, OIS that at the best
threshold of each image, AP the area under the curve of precision over recall, and R50 the recall at precision .5. As in
the benchmark, ODS interpolates between thresholds, and AP counts a recall that no threshold reaches as precision 0. A
threshold without predicted pixels has precision 0 and stays a point of the curve; R50 may interpolate from it.

Ground truth is a whole partition: the masks of a person do not overlap and cover the image. Shape letters: H/W the
image, I images, T thresholds, B bootstrap draws; the last axis 4 counts matched truth, truth, matched predicted pixels,
predicted pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from engine.evaluation import scores
from engine.evaluation.clicked import LeftOut, choose_masks
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.edge_maps import EdgeDetector
from engine.evaluation.overlap import Chosen, measure_each
from engine.evaluation.scores import Estimate
from engine.kernels.match_boundaries import BoundaryMatcher
from engine.labelled import LabelledImage, read_pixels
from storage import rle
from storage.rle import Rle

FIGURES = ("ods", "ois", "ap", "r50")
"""Names of the metrics, in the order of the table."""
MAX_DISTANCE = 0.0075
"""Largest distance of two matched pixels, as a fraction of the image's diagonal."""
THRESHOLDS = 99
"""Number of thresholds of the benchmark, evenly spaced in (0, 1)."""
MIN_COVERED = 0.95
"""Smallest fraction of the image that a person's masks must cover."""


@dataclass(frozen=True, kw_only=True)
class EdgeEvaluation:
    """Metrics of an edge detector, and the counts that they are computed from."""

    dataset: str
    """Name of the dataset; those of several are joined."""
    name: str
    model_id: str
    figures: Mapping[str, Estimate]
    """Estimates by the names in `FIGURES`; people have ODS alone."""
    counts_IT4: np.ndarray
    """Counts of pixels of each image at each threshold, int64."""
    people: int
    """Number of partitions, one of each person and image."""
    left_out: LeftOut
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Make the document that `gigamask experiment edges --json` prints for one detector."""
        content: dict[str, Any] = {"dataset": self.dataset, "model": self.name, "model_id": self.model_id}
        content |= {"images": len(self.counts_IT4), "people": self.people}
        for name in FIGURES:
            content |= scores.figure_json(name, self.figures.get(name))
        precision_T, recall_T = precision_recall(self.counts_IT4.sum(axis=0))
        return content | {
            "precision": [round(value, 5) for value in precision_T.tolist()],
            "recall": [round(value, 5) for value in recall_T.tolist()],
            "thresholds": self.counts_IT4.shape[1],
            "max_distance": MAX_DISTANCE,
            "left_out": asdict(self.left_out),
            "seconds": round(self.seconds, 2),
        }


def evaluate_edges(
    detector: EdgeDetector,
    images: Sequence[LabelledImage],
    config: EvaluationConfig | None = None,
    *,
    thresholds: int = THRESHOLDS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> EdgeEvaluation:
    """Measure the edges of a detector on images that people divided into masks.

    Args:
        detector: detector to measure; several threads call it.
        config: settings that choose the images; None means the defaults. Every mask of a chosen image counts.
        thresholds: number of thresholds, evenly spaced in (0, 1); the benchmark has 99.
        on_progress: called with the number of images done and the number of images in all.

    Raises:
        ValueError: No image is left to measure, an image cannot be read, or masks of a person overlap or leave out more
            than 5 % of the image.
    """
    start_s = time.perf_counter()
    config = config or EvaluationConfig()
    chosen, left_out = _choose_images(images, config)
    boundaries_of = {id(image): people_boundaries(image) for image, _ in chosen}
    counts = measure_each(
        lambda pair: count_matches(detector.detect(read_pixels(pair[0])), boundaries_of[id(pair[0])], thresholds),
        chosen,
        on_progress,
    )
    counts_IT4 = np.array(list(counts))
    return EdgeEvaluation(
        dataset=_dataset(chosen),
        name=detector.name,
        model_id=detector.model_id,
        figures=summarise(counts_IT4, config.seed),
        counts_IT4=counts_IT4,
        people=sum(map(len, boundaries_of.values())),
        left_out=left_out,
        seconds=time.perf_counter() - start_s,
    )


def evaluate_people(
    images: Sequence[LabelledImage],
    config: EvaluationConfig | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> EdgeEvaluation:
    """Measure how well people agree: the boundary of each person against those of the others, by the same matching.

    The only metric is ODS, the F-measure of all people and images together: there is one threshold. Images that one
    person divided do not count.

    Raises:
        ValueError: No image was divided by two people, or people's masks do not divide an image.
    """
    start_s = time.perf_counter()
    config = config or EvaluationConfig()
    chosen, left_out = _choose_images(images, config)
    chosen = [(image, masks) for image, masks in chosen if len(image.masks_by_annotator) > 1]
    if not chosen:
        raise ValueError("got no image that two people divided into masks, expected one to compare people on")

    def against_others(pair: Chosen) -> np.ndarray:
        boundaries = people_boundaries(pair[0])
        counts = [
            count_matches(own_HW.astype(np.float32), [*boundaries[:number], *boundaries[number + 1 :]], thresholds=1)
            for number, own_HW in enumerate(boundaries)
        ]
        return np.sum(counts, axis=0)

    counts_IT4 = np.array(list(measure_each(against_others, chosen, on_progress)))
    return EdgeEvaluation(
        dataset=_dataset(chosen),
        name="people",
        model_id="people",
        figures={"ods": summarise(counts_IT4, config.seed)["ods"]},
        counts_IT4=counts_IT4,
        people=sum(len(image.masks_by_annotator) for image, _ in chosen),
        left_out=left_out,
        seconds=time.perf_counter() - start_s,
    )


def people_boundaries(image: LabelledImage) -> list[np.ndarray]:
    """Compute the boundary between the masks of each person: lines of one pixel, bool [H, W].

    Raises:
        ValueError: The masks of a person overlap, or leave out more than 5 % of the image.
    """
    return [
        _boundary(_partition(masks, f"{image.origin}: annotator {annotator}", (image.height, image.width)))
        for annotator, masks in image.masks_by_annotator.items()
    ]


def count_matches(edges_HW: np.ndarray, boundaries: Sequence[np.ndarray], thresholds: int) -> np.ndarray:
    """Count the matched pixels of one image at each threshold; int64 [T, 4].

    Args:
        edges_HW: edge map in [0, 1].
        boundaries: boundary of each person, bool [H, W].
        thresholds: number of thresholds, evenly spaced in (0, 1).
    """
    from skimage.morphology import thin  # engine's modules import with torch, numpy and OpenCV alone

    cuts_T = np.linspace(1 / (thresholds + 1), thresholds / (thresholds + 1), thresholds)
    max_distance_px = MAX_DISTANCE * float(np.hypot(*edges_HW.shape))
    matchers = [BoundaryMatcher(edges_HW >= cuts_T[0], truth_HW, max_distance_px) for truth_HW in boundaries]
    truth_px = sum(int(np.count_nonzero(truth_HW)) for truth_HW in boundaries)
    counts_T4 = np.zeros((thresholds, 4), dtype=np.int64)
    before_px = -1
    for number, cut in enumerate(cuts_T):
        cut_HW = edges_HW >= cut
        if (cut_px := int(np.count_nonzero(cut_HW))) == before_px:  # the same pixels as at the threshold before
            counts_T4[number] = counts_T4[number - 1]
            continue
        before_px, predicted_HW = cut_px, thin(cut_HW)
        right_HW, found_px = np.zeros_like(predicted_HW), 0
        for matcher in matchers:
            matched_HW, found_HW = matcher.match(predicted_HW)
            right_HW |= matched_HW
            found_px += int(np.count_nonzero(found_HW))
        counts_T4[number] = (found_px, truth_px, np.count_nonzero(right_HW), np.count_nonzero(predicted_HW))
    return counts_T4


def summarise(counts_IT4: np.ndarray, seed: int) -> dict[str, Estimate]:
    """Compute ODS, OIS, AP and R50 from the counts of every image, with 95 % bootstrap intervals over images.

    There is no interval with fewer than 10 images.
    """
    num_images = len(counts_IT4)
    once_1I = np.ones((1, num_images), dtype=np.int64)
    values = _figures(counts_IT4, once_1I)
    if num_images < scores.MIN_IMAGES_OF_INTERVAL:
        return {name: Estimate(value=float(values[name][0]), interval=None) for name in FIGURES}
    drawn = _figures(counts_IT4, scores.bootstrap_draws(num_images, seed))
    return {name: Estimate(value=float(values[name][0]), interval=scores.middle_95(drawn[name])) for name in FIGURES}


def precision_recall(counts_T4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute precision and recall from counts [..., 4]; a part without pixels counts as 0."""
    recall = counts_T4[..., 0] / np.maximum(counts_T4[..., 1], 1)
    precision = counts_T4[..., 2] / np.maximum(counts_T4[..., 3], 1)
    return precision, recall


def best_f_measure(precision_T: np.ndarray, recall_T: np.ndarray) -> float:
    """Find the best F-measure over all thresholds; precision and recall are linear between neighbouring ones."""
    if len(precision_T) == 1:
        return float(_f_measure(precision_T, recall_T)[0])
    part = np.linspace(0, 1, 101)
    precision = np.outer(precision_T[:-1], 1 - part) + np.outer(precision_T[1:], part)
    recall = np.outer(recall_T[:-1], 1 - part) + np.outer(recall_T[1:], part)
    return float(_f_measure(precision, recall).max())


def average_precision(precision_T: np.ndarray, recall_T: np.ndarray) -> float:
    """Compute the mean precision at recall 0, .01, ... 1, each step .01 wide; 0 beyond the recalls measured."""
    recalls, first = np.unique(recall_T, return_index=True)
    at = np.linspace(0, 1, 101)
    return float(np.interp(at, recalls, precision_T[first], left=0, right=0).sum() * 0.01)


def recall_at_half(precision_T: np.ndarray, recall_T: np.ndarray) -> float:
    """Compute the recall at precision .5, or at the lowest precision where that is higher; 0 if .5 is not reached."""
    precisions, first = np.unique(precision_T, return_index=True)
    at = max(0.5, float(precisions[0]))
    return float(np.interp(at, precisions, recall_T[first], right=0))


def _choose_images(images: Sequence[LabelledImage], config: EvaluationConfig) -> tuple[list[Chosen], LeftOut]:
    """Choose the images by the settings; every mask counts."""
    every_mask = EvaluationConfig(
        image_ids=config.image_ids,
        max_images_per_domain=config.max_images_per_domain,
        seed=config.seed,
        min_area_fraction=0,
    )
    return choose_masks(images, every_mask)


def _dataset(chosen: Sequence[Chosen]) -> str:
    return ", ".join(dict.fromkeys(image.domain for image, _ in chosen))


def _figures(counts_IT4: np.ndarray, times_BI: np.ndarray) -> dict[str, np.ndarray]:
    """Compute each metric for each draw of images, float64 [B]."""
    counts_BT4 = np.tensordot(times_BI, counts_IT4, axes=1)
    best_I = _f_measure(*precision_recall(counts_IT4)).argmax(axis=1)
    best_I4 = counts_IT4[np.arange(len(best_I)), best_I]
    precision_BT, recall_BT = precision_recall(counts_BT4)
    curves = list(zip(precision_BT, recall_BT, strict=True))
    return {
        "ods": np.array([best_f_measure(*curve) for curve in curves]),
        "ois": _f_measure(*precision_recall(times_BI @ best_I4)),
        "ap": np.array([average_precision(*curve) for curve in curves]),
        "r50": np.array([recall_at_half(*curve) for curve in curves]),
    }


def _f_measure(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def _partition(masks: Sequence[Rle], where: str, image_hw: tuple[int, int]) -> np.ndarray:
    """Number the pixels by the mask that they are in, int32 [H, W]; those of no mask join the nearest one."""
    label_HW = np.zeros(image_hw, dtype=np.int32)
    for number, mask in enumerate(masks, start=1):
        mask_HW = rle.decode(mask)
        if label_HW[mask_HW].any():
            raise ValueError(f"{where}: got masks that overlap, expected masks that divide the image, as in BSDS500")
        label_HW[mask_HW] = number
    covered = np.count_nonzero(label_HW) / label_HW.size
    if covered < MIN_COVERED:
        raise ValueError(
            f"{where}: got masks of {covered:.0%} of the image, expected at least {MIN_COVERED:.0%}: masks that divide "
            "the image, as in BSDS500"
        )
    free_HW = (label_HW == 0).astype(np.uint8)
    if free_HW.any():
        _, nearest_HW = cv2.distanceTransformWithLabels(free_HW, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        label_of = np.zeros(int(nearest_HW.max()) + 1, dtype=np.int32)
        label_of[nearest_HW[free_HW == 0]] = label_HW[free_HW == 0]
        label_HW = label_of[nearest_HW]
    return label_HW


def _boundary(label_HW: np.ndarray) -> np.ndarray:
    """Select the pixels where masks meet, by the rule of BSDS500's own boundaries; bool [H, W].

    A pixel is selected if a side between two masks touches its lower right corner. The result is thinned to lines of
    one pixel.
    """
    from skimage.morphology import thin

    padded = np.pad(label_HW, ((0, 1), (0, 1)), mode="edge")
    here, right, below, across = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return thin((here != right) | (below != across) | (here != below) | (right != across))
