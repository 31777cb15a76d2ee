"""Measurement of the masks that a proposer makes without prompts, compared with the ground truth.

A proposer is anything that makes masks of a whole image without prompts (`engine.evaluation.proposals`).

Precision is the fraction of the predicted masks that are in the ground truth: for `share_50`, those with an IoU of at
least .5 with any annotator's mask. Recall is the fraction of the ground truth that was predicted: `recall_50`,
`recall_75`, and the average recall `ar_100`.

Recall is that of COCO (Lin et al. 2014, "Microsoft COCO", and pycocotools' COCOeval). The predicted masks are matched
in the order of their rank. Each takes the free mask of the ground truth that it overlaps most, if their IoU reaches the
threshold. Recall is the fraction of the ground truth that is taken. `ar_100` is COCO's AR@100 without classes: the mean
of the recalls at IoU .50, .55, ... .95, of the 100 masks ranked highest in each image. Each annotator describes the
whole image, so that the masks of each annotator are matched on their own. All metrics are means over masks, with
intervals over images.

Shape letters: A predicted masks, B masks of the ground truth, T thresholds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.evaluation import scores
from engine.evaluation.boundaries import boundary_iou
from engine.evaluation.clicked import LeftOut, choose_masks
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.overlap import Chosen, measure_each
from engine.evaluation.proposals import Proposer
from engine.evaluation.scores import Estimate, OfImage
from engine.labelled import LabelledImage, read_pixels
from storage import rle
from storage.rle import Rle

IOU_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""Thresholds of IoU at which recall is measured: .50, .55, ... .95."""
RANKED_HIGHEST = 100
"""Number of masks of an image, those ranked highest, that count for the average recall `ar_100`."""
FIGURES = ("share_50", "recall_50", "recall_75", "ar_100", "boundary_iou")
"""Names of the metrics, in the order of the report."""


@dataclass(frozen=True, kw_only=True)
class PredictedScore:
    """Score of one predicted mask, for precision."""

    domain: str
    image: str
    area_fraction: float
    """Area of the mask as a fraction of the image."""
    best_iou: float
    """Highest IoU of the predicted mask with any mask of the image's ground truth, of any annotator."""


@dataclass(frozen=True, kw_only=True)
class FoundScore:
    """Score of one mask of the ground truth, for recall."""

    domain: str
    image: str
    annotator: int
    area_fraction: float
    """Area of the mask as a fraction of the image."""
    found_T: tuple[bool, ...]
    """Whether any predicted mask was matched to this mask, at each of `IOU_THRESHOLDS`."""
    found_100_T: tuple[bool, ...]
    """Whether one of the 100 predicted masks ranked highest was matched to this mask, at each of `IOU_THRESHOLDS`."""
    boundary_iou: float
    """Boundary IoU (`engine.evaluation.boundaries`) of the predicted mask that overlaps this mask most; 0 where none
    does."""


@dataclass(frozen=True, kw_only=True)
class AutomaticSummary:
    """Metrics over a set of masks: the masks of one domain, the masks of one size, or all masks."""

    images: int
    masks_made: int
    masks_of_people: int
    figures: Mapping[str, Estimate | None]
    """Estimates of the metrics, by their names in `FIGURES`; None where there is no mask to take the mean of."""
    recall_T: tuple[float, ...]
    """Recall at each of `IOU_THRESHOLDS`; empty without ground truth."""


@dataclass(frozen=True, kw_only=True)
class AutomaticEvaluation:
    """Metrics of the masks made without prompts, and the scores that the metrics are computed from."""

    model: str
    model_id: str
    overall: AutomaticSummary
    domains: dict[str, AutomaticSummary]
    sizes: dict[str, AutomaticSummary]
    """Metrics by the size of the masks: of the predicted masks for precision, of the ground truth for recall."""
    made: tuple[PredictedScore, ...]
    found: tuple[FoundScore, ...]
    made_in_image: Mapping[str, int]
    """Number of predicted masks in each image, by the name of the image."""
    left_out: LeftOut
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Make the `automatic` block of `gigamask evaluate --json`."""
        return {
            "overall": summary_json(self.overall),
            "domains": {name: summary_json(summary) for name, summary in self.domains.items()},
            "sizes": {name: summary_json(summary) for name, summary in self.sizes.items()},
            "iou_thresholds": list(IOU_THRESHOLDS),
            "seconds": round(self.seconds, 2),
        }


def evaluate_automatic(
    proposer: Proposer,
    images: Sequence[LabelledImage],
    config: EvaluationConfig | None = None,
    *,
    at_most: Mapping[str, int] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> AutomaticEvaluation:
    """Measure the masks that a proposer makes of labelled images without prompts.

    Args:
        proposer: proposer to measure; several threads call it.
        config: settings that choose the images and the ground truth; None means the defaults.
        at_most: number of predicted masks that count in each image, by the name of the image; the masks ranked highest
            count. None counts all masks. To compare two proposers at an equal number of masks, pass the
            `made_in_image` of the evaluation of the other proposer.
        on_progress: called with the number of images done and the number of images in all.

    Raises:
        ValueError: No ground truth is left to find, or an image cannot be read.
    """
    config = config or EvaluationConfig()
    start_s = time.perf_counter()
    chosen, left_out = choose_masks(images, config)

    def measure(pair: Chosen) -> tuple[list[PredictedScore], list[FoundScore]]:
        image, masks = pair
        limit = None if at_most is None else at_most[f"{image.domain}/{image.stem}"]
        return score_masks(proposer.propose(read_pixels(image))[:limit], image, masks)

    made: list[PredictedScore] = []
    found: list[FoundScore] = []
    made_in_image = {}
    for (image, _), (made_here, found_here) in zip(chosen, measure_each(measure, chosen, on_progress), strict=True):
        made_in_image[f"{image.domain}/{image.stem}"] = len(made_here)
        made, found = made + made_here, found + found_here
    domains = _grouped(made, found, lambda score: score.domain)
    sizes = _grouped(made, found, scores.size_of)
    return AutomaticEvaluation(
        model=proposer.name,
        model_id=proposer.model_id,
        overall=summarise(made, found, config.seed),
        domains={name: summarise(*group, config.seed) for name, group in domains.items()},
        sizes={name: summarise(*sizes[name], config.seed) for name, _, _ in scores.SIZE_BINS if name in sizes},
        made=tuple(made),
        found=tuple(found),
        made_in_image=made_in_image,
        left_out=left_out,
        seconds=time.perf_counter() - start_s,
    )


def score_masks(
    made: Sequence[Rle], image: LabelledImage, masks: Sequence[tuple[int, Rle]]
) -> tuple[list[PredictedScore], list[FoundScore]]:
    """Score the predicted masks of one image for precision, and masks of the image's ground truth for recall.

    For precision, a predicted mask may match any ground truth of the image, also ground truth that `masks` leaves out.

    Args:
        made: predicted masks, the one ranked highest first.
        masks: ground truth to find, as (annotator, mask) pairs; without the masks that are too small or over a limit.
    """
    every = [mask for drawn in image.masks_by_annotator.values() for mask in drawn]
    iou_of_every_AB = rle.iou_matrix(made, every)
    column_of = {id(mask): column for column, mask in enumerate(every)}
    iou_AB = iou_of_every_AB[:, [column_of[id(mask)] for _, mask in masks]]
    rank_TB = _ranks_of_finders(iou_AB, np.array([annotator for annotator, _ in masks]))
    image_px, name = image.height * image.width, f"{image.domain}/{image.stem}"
    made_scores = [
        PredictedScore(
            domain=image.domain,
            image=name,
            area_fraction=rle.area(mask) / image_px,
            best_iou=float(iou_A.max()),
        )
        for mask, iou_A in zip(made, iou_of_every_AB, strict=True)
    ]
    found_scores = [
        FoundScore(
            domain=image.domain,
            image=name,
            annotator=annotator,
            area_fraction=rle.area(mask) / image_px,
            found_T=tuple((rank_TB[:, column] < len(made)).tolist()),
            found_100_T=tuple((rank_TB[:, column] < min(len(made), RANKED_HIGHEST)).tolist()),
            boundary_iou=_boundary_iou_of_best(made, iou_AB[:, column], mask),
        )
        for column, (annotator, mask) in enumerate(masks)
    ]
    return made_scores, found_scores


def finders(iou_AB: np.ndarray, threshold: float) -> np.ndarray:
    """Return the rank of the predicted mask that is matched to each mask of one annotator; int [B].

    The rank is A, the number of predicted masks, where no predicted mask is matched. The matching is COCO's greedy
    one-to-one matching. From the highest rank to the lowest, each predicted mask (row) is matched to the unmatched mask
    of the annotator (column) with which it has the highest IoU, if that IoU reaches `threshold`.
    """
    rank_B = np.full(iou_AB.shape[1], len(iou_AB))
    for rank in np.flatnonzero((iou_AB >= threshold).any(axis=1)):
        free_B = np.where(rank_B == len(iou_AB), iou_AB[rank], -1.0)
        best = len(free_B) - 1 - int(free_B[::-1].argmax())  # COCOeval gives a tie to the later mask
        if free_B[best] >= threshold:
            rank_B[best] = rank
    return rank_B


def summarise(made: Sequence[PredictedScore], found: Sequence[FoundScore], seed: int) -> AutomaticSummary:
    """Compute the metrics from the scores of predicted masks (`made`) and the scores of ground truth (`found`)."""
    figures = {}
    for name in FIGURES:
        members, values_N = values(made, found, name)
        figures[name] = scores.mean_over_masks(members, values_N, seed) if len(values_N) else None
    return AutomaticSummary(
        images=len({score.image for score in made} | {score.image for score in found}),
        masks_made=len(made),
        masks_of_people=len(found),
        figures=figures,
        recall_T=tuple(np.mean([score.found_T for score in found], axis=0).tolist()) if found else (),
    )


def difference(
    before: AutomaticEvaluation, after: AutomaticEvaluation, seed: int, *, domain: str | None = None
) -> dict[str, Estimate | None]:
    """Subtract each metric of the evaluation `before` from the same metric of the evaluation `after`.

    Both evaluations are of the same images. A difference is None where `before` or `after` has no mask to take the mean
    of.

    Args:
        domain: domain whose images are compared; None compares all images.

    Raises:
        ValueError: The two evaluations did not measure the same masks.
    """
    same = [(score.image, score.annotator, score.area_fraction) for score in before.found]
    if same != [(score.image, score.annotator, score.area_fraction) for score in after.found]:
        raise ValueError("got evaluations of different masks, expected the same folder, settings and seed for both")
    first, second = _of_domain(before, domain), _of_domain(after, domain)
    return {name: scores.difference_of_means(*values(*first, name), *values(*second, name), seed) for name in FIGURES}


def values(
    made: Sequence[PredictedScore], found: Sequence[FoundScore], name: str
) -> tuple[Sequence[OfImage], np.ndarray]:
    """Return the scores (`made` or `found`) that the metric `name` averages, and one value for each; float64 [N]."""
    if name == "share_50":
        return made, np.array([score.best_iou >= 0.5 for score in made], dtype=np.float64)
    if name == "ar_100":
        return found, np.array([np.mean(score.found_100_T) for score in found], dtype=np.float64)
    if name == "boundary_iou":
        return found, np.array([score.boundary_iou for score in found], dtype=np.float64)
    place = IOU_THRESHOLDS.index(int(name.removeprefix("recall_")) / 100)
    return found, np.array([score.found_T[place] for score in found], dtype=np.float64)


def summary_json(summary: AutomaticSummary) -> dict[str, Any]:
    """Make the JSON form of a summary: every metric under `<name>`, its interval under `<name>_interval`."""
    content: dict[str, Any] = {
        "images": summary.images,
        "masks_made": summary.masks_made,
        "masks_of_people": summary.masks_of_people,
    }
    for name in FIGURES:
        content |= scores.figure_json(name, summary.figures[name])
    return content | {"recall": [round(recall, 5) for recall in summary.recall_T]}


def _ranks_of_finders(iou_AB: np.ndarray, annotator_B: np.ndarray) -> np.ndarray:
    """Return the rank of the predicted mask that is matched to each mask, at each threshold; int [T, B].

    The masks of each annotator are matched on their own. The rank is A, the number of predicted masks, where none is
    matched.
    """
    rank_TB = np.full((len(IOU_THRESHOLDS), len(annotator_B)), len(iou_AB))
    for annotator in np.unique(annotator_B):
        own = np.flatnonzero(annotator_B == annotator)
        for place, threshold in enumerate(IOU_THRESHOLDS):
            rank_TB[place, own] = finders(iou_AB[:, own], threshold)
    return rank_TB


def _boundary_iou_of_best(made: Sequence[Rle], iou_A: np.ndarray, mask: Rle) -> float:
    if not iou_A.any():
        return 0.0
    return boundary_iou(rle.decode(made[int(iou_A.argmax())]), rle.decode(mask))


def _grouped(
    made: Sequence[PredictedScore], found: Sequence[FoundScore], group_of: Callable[[PredictedScore | FoundScore], str]
) -> dict[str, tuple[list[PredictedScore], list[FoundScore]]]:
    """Group the scores; the groups stand in the order of their first masks of the ground truth."""
    groups: dict[str, tuple[list[PredictedScore], list[FoundScore]]] = {}
    for found_score in found:
        groups.setdefault(group_of(found_score), ([], []))[1].append(found_score)
    for made_score in made:
        groups.setdefault(group_of(made_score), ([], []))[0].append(made_score)
    return groups


def _of_domain(evaluation: AutomaticEvaluation, domain: str | None) -> tuple[list[PredictedScore], list[FoundScore]]:
    """Select the scores of a domain; None selects the scores of all domains."""
    return (
        [score for score in evaluation.made if domain in (None, score.domain)],
        [score for score in evaluation.found if domain in (None, score.domain)],
    )
