"""Measurement of the boxes that a proposer makes of a whole image: recall of the ground truth's boxes by box budget.

A budget is the number of boxes of an image that count, those ranked highest. Recall is the fraction of the ground
truth's boxes that some box within the budget has an IoU of at least .5 with; as in COCO, each proposed box is matched
to at most one box of an annotator. The masks of each annotator are matched on their own. Metrics are means over masks,
with intervals over images.

Shape letters: A proposed boxes, B boxes of the ground truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from engine.detector.config import DetectConfig
from engine.detector.detect import detect
from engine.detector.weights import Detector
from engine.evaluation import scores
from engine.evaluation.automatic import finders
from engine.evaluation.clicked import LeftOut, choose_masks
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.overlap import measure_each
from engine.evaluation.proposals import Proposer
from engine.evaluation.scores import Estimate
from engine.interactive.zoom import open_with_sam
from engine.kernels.nms import box_iou
from engine.labelled import LabelledImage, read_pixels
from engine.model.weights import Model
from storage import rle

BUDGETS = (10, 30, 100)
"""Numbers of boxes of an image at which recall is measured."""
MIN_IOU = 0.5
"""Box IoU at which a proposed box counts as finding a box of the ground truth."""


class BoxProposer(Protocol):
    """Anything that proposes boxes of a whole image."""

    @property
    def name(self) -> str:
        """Name of the proposer in reports."""

    def propose_boxes(self, image_HW3: np.ndarray) -> np.ndarray:
        """Return half-open boxes [A, 4] of an image (uint8 RGB [H, W, 3]), the most trusted box first."""


@dataclass(frozen=True, kw_only=True)
class DetectorBoxes:
    """Boxes of a detector."""

    detector: Detector
    model: Model
    """SAM whose embeddings the detector reads."""
    config: DetectConfig = field(default_factory=DetectConfig)

    @property
    def name(self) -> str:
        """Id of the exact detector."""
        return self.detector.detector_id

    def propose_boxes(self, image_HW3: np.ndarray) -> np.ndarray:
        """Detect boxes, the highest score first."""
        return detect(self.detector, open_with_sam(self.model, image_HW3), self.config).boxes_N4


@dataclass(frozen=True, kw_only=True)
class BoxesOfMasks:
    """Boxes of the masks that a proposer of masks makes, such as Felzenszwalb's segmentation."""

    proposer: Proposer

    @property
    def name(self) -> str:
        """Name of the proposer."""
        return self.proposer.name

    def propose_boxes(self, image_HW3: np.ndarray) -> np.ndarray:
        """Return the box of each mask, the most trusted mask first."""
        boxes = [rle.box_xyxy(mask) for mask in self.proposer.propose(image_HW3)]
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)


@dataclass(frozen=True, kw_only=True)
class BoxScore:
    """Score of one box of the ground truth."""

    domain: str
    image: str
    annotator: int
    area_fraction: float
    """Area of the mask as a fraction of the image."""
    rank: int | None
    """Rank of the proposed box that was matched to this box, from 0; None where no box was matched."""


@dataclass(frozen=True, kw_only=True)
class BoxEvaluation:
    """Recall of a proposer's boxes, and the scores that it is computed from."""

    name: str
    scores: tuple[BoxScore, ...]
    left_out: LeftOut
    boxes_per_image: float
    """Mean number of proposed boxes of an image."""
    seconds: float

    def recall(self, budget: int, *, domain: str | None = None, seed: int = 0) -> Estimate:
        """Compute the recall at a budget, over all masks or those of a domain."""
        members = self.of_domain(domain)
        return scores.mean_over_masks(members, found_within(members, budget), seed)

    def of_domain(self, domain: str | None) -> list[BoxScore]:
        """Select the scores of a domain; None selects all."""
        return [score for score in self.scores if domain in (None, score.domain)]

    def to_json(self) -> dict[str, Any]:
        """Make the JSON form: for all masks and for each domain, recall at each budget and its interval."""
        domains = list(dict.fromkeys(score.domain for score in self.scores))
        return {
            "name": self.name,
            "overall": self._summary(None),
            "domains": {domain: self._summary(domain) for domain in domains},
            "boxes_per_image": round(self.boxes_per_image, 1),
            "seconds": round(self.seconds, 2),
        }

    def _summary(self, domain: str | None) -> dict[str, Any]:
        members = self.of_domain(domain)
        content: dict[str, Any] = {"images": len({score.image for score in members}), "masks": len(members)}
        for budget in BUDGETS:
            content |= scores.figure_json(f"recall_{budget}", self.recall(budget, domain=domain))
        return content


def evaluate_boxes(
    proposer: BoxProposer,
    images: Sequence[LabelledImage],
    config: EvaluationConfig | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BoxEvaluation:
    """Measure the boxes that a proposer makes of labelled images; several threads call it.

    Raises:
        ValueError: No mask is left to measure, or an image cannot be read.
    """
    config = config or EvaluationConfig()
    start_s = time.perf_counter()
    chosen, left_out = choose_masks(images, config)
    found: list[BoxScore] = []
    proposed = 0
    boxes = measure_each(lambda pair: proposer.propose_boxes(read_pixels(pair[0])), chosen, on_progress)
    for (image, masks), boxes_A4 in zip(chosen, boxes, strict=True):
        proposed += len(boxes_A4)
        truth_B4 = np.array([rle.box_xyxy(mask) for _, mask in masks], dtype=np.float64)
        ranks = match_boxes(boxes_A4, truth_B4, np.array([annotator for annotator, _ in masks]))
        found += [
            BoxScore(
                domain=image.domain,
                image=f"{image.domain}/{image.stem}",
                annotator=annotator,
                area_fraction=rle.area(mask) / (image.height * image.width),
                rank=rank,
            )
            for (annotator, mask), rank in zip(masks, ranks, strict=True)
        ]
    return BoxEvaluation(
        name=proposer.name,
        scores=tuple(found),
        left_out=left_out,
        boxes_per_image=proposed / len(chosen),
        seconds=time.perf_counter() - start_s,
    )


def match_boxes(boxes_A4: np.ndarray, truth_B4: np.ndarray, annotator_B: np.ndarray) -> list[int | None]:
    """Match proposed boxes to the ground truth of each annotator; return the rank of each match, None without one."""
    iou_AB = np.array([box_iou(box_4, truth_B4) for box_4 in boxes_A4]).reshape(len(boxes_A4), len(truth_B4))
    rank_B = np.full(len(truth_B4), len(boxes_A4))
    for annotator in np.unique(annotator_B):
        own = np.flatnonzero(annotator_B == annotator)
        rank_B[own] = finders(iou_AB[:, own], MIN_IOU)
    return [int(rank) if rank < len(boxes_A4) else None for rank in rank_B]


def found_within(members: Sequence[BoxScore], budget: int) -> np.ndarray:
    """Tell for each score whether one of the first `budget` boxes was matched; float64 [B], 0 or 1."""
    return np.array([score.rank is not None and score.rank < budget for score in members], dtype=np.float64)


def difference(
    before: BoxEvaluation, after: BoxEvaluation, budget: int, *, domain: str | None = None, seed: int = 0
) -> Estimate:
    """Subtract the recall of `before` from that of `after` at a budget, paired by mask, with an interval over images.

    Raises:
        ValueError: The two evaluations did not measure the same masks.
    """
    first, second = before.of_domain(domain), after.of_domain(domain)
    same = [(score.image, score.annotator, score.area_fraction) for score in first]
    if same != [(score.image, score.annotator, score.area_fraction) for score in second]:
        raise ValueError("got evaluations of different masks, expected the same folder, settings and seed for both")
    return scores.mean_over_masks(first, found_within(second, budget) - found_within(first, budget), seed)
