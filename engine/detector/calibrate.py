"""Calibration of the detector's scores on images it was not trained on, folded into the network's weights.

Training makes scores that rank boxes well but mean little by themselves: on photographs they are often too high. A
logistic line from the score's logit to the verdict "this box has an IoU of at least .5 with an object's box" turns them
into probabilities, and keeps their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.detector.config import DetectConfig
from engine.detector.detect import detect
from engine.detector.head import DetectorHead
from engine.detector.weights import Detector
from engine.interactive.zoom import open_with_sam
from engine.kernels.nms import box_iou
from engine.labelled import LabelledImage, read_pixels
from engine.logistic import fit_logistic, lowest_score
from engine.model.weights import Model
from storage import rle

MIN_IOU = 0.5
"""Box IoU from which a box counts as that of an object."""
PRECISION = 0.8
"""Fraction of good boxes, among the held-out images' boxes at and above a detector's score threshold."""
MIN_BOXES = 20
"""Smallest number of held-out boxes at and above the threshold from which the fraction is estimated."""
BINS = 10


@dataclass(frozen=True, kw_only=True)
class BoxVerdicts:
    """Detected boxes of several images, with the verdicts of the ground truth."""

    scores_N: np.ndarray
    """Scores of the boxes, float64 in (0, 1)."""
    good_N: np.ndarray
    """Whether a box has an IoU of at least .5 with the box of some mask of the ground truth, bool."""
    images: int

    def table(self) -> list[dict[str, float]]:
        """List the boxes by tenths of the score: their number, mean score and fraction of good boxes."""
        bin_N = np.clip((self.scores_N * BINS).astype(int), 0, BINS - 1)
        return [
            {
                "from": number / BINS,
                "boxes": int((bin_N == number).sum()),
                "mean_score": round(float(self.scores_N[bin_N == number].mean()), 3),
                "good": round(float(self.good_N[bin_N == number].mean()), 3),
            }
            for number in np.unique(bin_N).tolist()
        ]

    @property
    def threshold(self) -> float:
        """Lowest score at and above which four in five boxes are good; 1 where that is never so, for no box at all."""
        lowest = lowest_score(self.scores_N, self.good_N, PRECISION, min_count=MIN_BOXES)
        return 1.0 if lowest is None else lowest

    @property
    def expected_error(self) -> float:
        """Absolute difference of mean score and fraction of good boxes of a bin, averaged over boxes."""
        return sum(row["boxes"] * abs(row["mean_score"] - row["good"]) for row in self.table()) / len(self.scores_N)


def judge_boxes(
    model: Model, detector: Detector, images: Sequence[LabelledImage], config: DetectConfig | None = None
) -> BoxVerdicts:
    """Detect the boxes of labelled images, and compare them with the boxes of all masks, of any annotator.

    Raises:
        ValueError: No image has a mask, nothing was detected, or an image cannot be read.
    """
    scores, good, judged = [np.empty(0)], [np.empty(0, dtype=bool)], 0
    for image in images:
        masks = [mask for drawn in image.masks_by_annotator.values() for mask in drawn if rle.area(mask)]
        if not masks:
            continue
        found = detect(detector, open_with_sam(model, read_pixels(image)), config)
        truth_B4 = np.array([rle.box_xyxy(mask) for mask in masks], dtype=np.float64)
        scores.append(found.scores_N.astype(np.float64))
        good.append(np.array([box_iou(box_4, truth_B4).max() >= MIN_IOU for box_4 in found.boxes_N4], dtype=bool))
        judged += 1
    verdicts = BoxVerdicts(scores_N=np.concatenate(scores), good_N=np.concatenate(good), images=judged)
    if not len(verdicts.scores_N):
        raise ValueError(f"got {len(images)} images in which no box can be judged, expected images with masks")
    return verdicts


def fold_calibration(head: DetectorHead, verdicts: BoxVerdicts) -> dict[str, Any]:
    """Fit the line from the logit of the score to the log odds of a good box, and fold it into the head's last layer.

    Returns:
        Description of the calibration, for the card.

    Raises:
        ValueError: All verdicts are the same, or higher scores are not better: the detector has learned nothing.
    """
    scores_N = verdicts.scores_N.clip(1e-6, 1 - 1e-6)
    fitted = fit_logistic(np.log(scores_N / (1 - scores_N))[:, None], verdicts.good_N, l2=1e-3)
    slope = float(fitted.weights_F[0] / fitted.std_F[0])
    offset = float(fitted.bias - slope * fitted.mean_F[0])
    if slope <= 0:
        raise ValueError(
            f"the scores of {len(scores_N)} boxes do not rank them (slope {slope:.3f}): train longer, or on more images"
        )
    bias_5 = head.out.bias
    assert bias_5 is not None, "the output layer has a bias"
    with torch.no_grad():
        head.out.weight[0].mul_(slope)
        bias_5[0].mul_(slope).add_(offset)
    return {
        "what": "A line from the logit of the score to the log odds of IoU >= .5 with a mask's box, folded into the "
        "weights",
        "slope": round(slope, 4),
        "offset": round(offset, 4),
        "images": verdicts.images,
        "boxes": len(scores_N),
        "good": round(float(verdicts.good_N.mean()), 4),
        "before": verdicts.table(),
    }
