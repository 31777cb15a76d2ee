"""Average recall of object proposals by COCO's rules: "Segment Anything", section 7.3 and appendix D.3.

Of each image, the 1000 masks ranked highest count. The average recall is the mean, over IoU thresholds .50 to .95, of
the fraction of the ground truth that a proposal is matched to. Matching is COCO's greedy one (`engine.evaluation.
automatic.finders`), of the masks of each annotator on their own. A size class is matched on its own, too, as in
COCOeval, where ground truth of other sizes is ignored. Size classes are COCO's, by area in pixels: small up to 32 x 32,
medium up to 96 x 96, large from there; a mask of exactly a bound is in both. Proposals have no category. Masks of LVIS
are also grouped by how frequent their category is there, each group matched on its own and averaged over its masks.

Shape letters: A proposals, B masks of the ground truth, T thresholds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from engine.evaluation import scores
from engine.evaluation.automatic import IOU_THRESHOLDS, finders
from engine.evaluation.clicked import LeftOut, choose_masks
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.overlap import measure_each
from engine.evaluation.proposals import Proposer
from engine.evaluation.scores import Estimate
from engine.labelled import Frequency, LabelledImage, read_pixels
from storage import rle
from storage.rle import Rle

MAX_PROPOSALS = 1000
"""Largest number of proposals of an image that count."""
SIZES: Mapping[str, tuple[float, float]] = {
    "all": (0, float("inf")),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, float("inf")),
}
"""Smallest and largest area in pixels of each size class, both inclusive."""


FREQUENCIES: tuple[Frequency, ...] = ("frequent", "common", "rare")
"""Groups of LVIS's categories, in the order of the table."""


@dataclass(frozen=True, kw_only=True)
class ProposalScore:
    """Recall of one mask of the ground truth."""

    domain: str
    image: str
    annotator: int
    area_px: int
    recall: Mapping[str, float]
    """Fraction of the IoU thresholds at which a proposal was matched to the mask, by each group it is in: its size
    classes, and `frequent`, `common` or `rare` for a mask of LVIS."""


@dataclass(frozen=True, kw_only=True)
class ProposalEvaluation:
    """Average recall of a proposer, and the scores that it is computed from."""

    model: str
    model_id: str
    scores: tuple[ProposalScore, ...]
    proposals_per_image: float
    """Mean number of proposals that counted in an image."""
    left_out: LeftOut
    seed: int
    seconds: float

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of masks: the size classes, and those by frequency where a mask has one."""
        return (*SIZES, *(group for group in FREQUENCIES if self.of(group)))

    def recall(self, size: str, domain: str | None = None) -> Estimate | None:
        """Compute the average recall of a group, over all datasets or one; None where no mask is in it.

        There is no interval with fewer than 10 images.
        """
        members = self.of(size, domain)
        if not members:
            return None
        estimate = scores.mean_over_masks(members, np.array([score.recall[size] for score in members]), self.seed)
        images = len({score.image for score in members})
        return scores.without_small_intervals({size: estimate}, images)[size]

    def of(self, size: str, domain: str | None = None) -> list[ProposalScore]:
        """Select the scores of a group and a dataset; None selects every dataset."""
        return [score for score in self.scores if size in score.recall and domain in (None, score.domain)]

    def to_json(self) -> dict[str, Any]:
        """Make the document of one model: AR@1000 by group, of all masks and of each dataset."""
        domains = dict.fromkeys(score.domain for score in self.scores)
        return {
            "model": self.model,
            "model_id": self.model_id,
            "overall": self._summary(None),
            "datasets": {domain: self._summary(domain) for domain in domains},
            "proposals_per_image": round(self.proposals_per_image, 1),
            "max_proposals": MAX_PROPOSALS,
            "iou_thresholds": list(IOU_THRESHOLDS),
            "left_out": asdict(self.left_out),
            "seconds": round(self.seconds, 2),
        }

    def _summary(self, domain: str | None) -> dict[str, Any]:
        content: dict[str, Any] = {"images": len({score.image for score in self.of("all", domain)})}
        for size in self.groups:
            content[f"masks_{size}"] = len(self.of(size, domain))
            content |= scores.figure_json(f"ar_{size}", self.recall(size, domain))
        return content


def evaluate_proposals(
    proposer: Proposer,
    images: Sequence[LabelledImage],
    config: EvaluationConfig | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProposalEvaluation:
    """Measure the average recall of a proposer on labelled images; masks of every size count.

    Args:
        proposer: proposer to measure; several threads call it.
        config: settings that choose the images and the ground truth; its smallest area does not apply.
        on_progress: called with the number of images done and the number of images in all.

    Raises:
        ValueError: No mask is left to find, or an image cannot be read.
    """
    start_s = time.perf_counter()
    config = replace(config or EvaluationConfig(), min_area_fraction=0)
    chosen, left_out = choose_masks(images, config)
    found: list[ProposalScore] = []
    proposed = 0
    for (image, masks), made in zip(
        chosen,
        measure_each(lambda pair: proposer.propose(read_pixels(pair[0]))[:MAX_PROPOSALS], chosen, on_progress),
        strict=True,
    ):
        proposed += len(made)
        found += score_proposals(made, image, masks)
    return ProposalEvaluation(
        model=proposer.name,
        model_id=proposer.model_id,
        scores=tuple(found),
        proposals_per_image=proposed / len(chosen),
        left_out=left_out,
        seed=config.seed,
        seconds=time.perf_counter() - start_s,
    )


def score_proposals(made: Sequence[Rle], image: LabelledImage, masks: Sequence[tuple[int, Rle]]) -> list[ProposalScore]:
    """Match the proposals of one image, best first, to its (annotator, mask) pairs, in each group."""
    iou_AB = rle.iou_matrix(made, [mask for _, mask in masks]).reshape(len(made), len(masks))
    annotator_B = np.array([annotator for annotator, _ in masks])
    area_B = np.array([rle.area(mask) for _, mask in masks])
    recall_by_size: dict[str, np.ndarray] = {}
    for size, inside_B in _groups(image, masks, area_B).items():
        recall_B = np.full(len(masks), np.nan)
        for annotator in np.unique(annotator_B[inside_B]):
            own = np.flatnonzero(inside_B & (annotator_B == annotator))
            found_TB = [finders(iou_AB[:, own], threshold) < len(made) for threshold in IOU_THRESHOLDS]
            recall_B[own] = np.mean(found_TB, axis=0)
        recall_by_size[size] = recall_B
    return [
        ProposalScore(
            domain=image.domain,
            image=f"{image.domain}/{image.stem}",
            annotator=annotator,
            area_px=int(area_B[column]),
            recall={
                size: float(recall_B[column])
                for size, recall_B in recall_by_size.items()
                if not np.isnan(recall_B[column])
            },
        )
        for column, (annotator, _) in enumerate(masks)
    ]


def _groups(image: LabelledImage, masks: Sequence[tuple[int, Rle]], area_B: np.ndarray) -> dict[str, np.ndarray]:
    """Tell which masks are in each group by size and by frequency, bool [B] each."""
    inside = {size: (area_B >= low) & (area_B <= high) for size, (low, high) in SIZES.items()}
    if image.frequencies:
        frequency_of = {
            id(mask): each for mask, each in zip(image.masks_by_annotator[0], image.frequencies, strict=True)
        }
        frequency_B = np.array([frequency_of[id(mask)] for _, mask in masks])
        inside |= {frequency: frequency_B == frequency for frequency in FREQUENCIES}
    return inside
