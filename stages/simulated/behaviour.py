"""How a simulated annotator behaves: the policies of clicks, the noise of boundaries, and the model of time.

Nothing here is measured on people. The values make annotators who agree with ground truth as people agree with one
another ("Segment Anything", section 5: IoU .85 to .91), make mistakes and take breaks. A loop with them must not look
better than one with people.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from engine.evaluation.annotator import ClickPolicy, Point, centre_click, iou, jittered_click


def uniform_click(region_HW: np.ndarray, rng: np.random.Generator) -> Point:
    """Return the middle of a random pixel of the region, as in the training of SAM."""
    rows, columns = np.nonzero(region_HW)
    at = int(rng.integers(len(rows)))
    return float(columns[at]) + 0.5, float(rows[at]) + 0.5


POLICIES: dict[str, ClickPolicy] = {"centre": centre_click, "uniform": uniform_click, "human-like": jittered_click}
"""Functions that choose the point to click, by name."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Settings of a simulated annotator. Fractions are probabilities in [0, 1]."""

    policy: str = "human-like"
    """Name of the click policy: centre, uniform or human-like."""
    boundary_iou: tuple[float, float] = (0.85, 0.91)
    """Range of the IoU between the masks that the annotator has in mind and ground truth."""
    good_iou: float = 0.85
    """IoU with the mask in mind at which the annotator stops clicking."""
    poor_iou: float = 0.6
    """IoU after the last click below which the annotator draws the mask with the brush instead."""
    max_clicks: int = 6
    """Largest number of clicks on one object."""
    max_masks: int = 8
    """Largest number of objects on one image; the largest come first."""
    skip_fraction: float = 0.02
    hand_back_fraction: float = 0.02
    mistake_fraction: float = 0.1
    """Fraction of masks around which the annotator makes a mistake and takes it back."""
    lost_reply_fraction: float = 0.02
    """Fraction of writes whose reply is lost, so that they are sent again."""
    pause_fraction: float = 0.02
    """Fraction of masks after which the annotator takes a break."""
    pace: float = 1.0
    """Number of simulated seconds that pass in a real second."""

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"policy {self.policy!r}: expected one of {', '.join(POLICIES)}")
        if self.pace <= 0 or self.max_clicks < 1 or self.max_masks < 1:
            raise ValueError(f"{self}: expected a pace above 0, and at least one click and one mask")


@dataclass(frozen=True, kw_only=True)
class TimeModel:
    """Simulated seconds of each act; the acts of one mask add up to about 10 to 30 simulated seconds."""

    look_s: float = 1.5
    """Seconds to find the next object."""
    click_s: float = 1.2
    choose_s: float = 0.8
    """Seconds to choose among three masks."""
    decide_s: float = 1.0
    """Seconds to accept or reject a prefilled mask."""
    brush_s: float = 12.0
    """Seconds to draw a mask with the brush."""
    pause_s: float = 20.0
    """Seconds of a break."""
    spread: float = 0.3
    """Standard deviation of each duration's logarithm."""

    def draw(self, mean_s: float, rng: np.random.Generator) -> float:
        """Draw a duration around a mean, in simulated seconds."""
        return mean_s * math.exp(self.spread * float(rng.normal()) - self.spread**2 / 2)


def in_mind(truth_HW: np.ndarray, wanted_iou: float, rng: np.random.Generator) -> np.ndarray:
    """Move the boundary of a mask at random, smoothly, until its IoU with the mask is about `wanted_iou`.

    The strength of the noise is found by bisection. A mask too small to be moved is returned as it is.
    """
    rows, columns = np.nonzero(truth_HW)
    if len(rows) < 16:
        return truth_HW
    size = math.sqrt(len(rows))
    margin = int(size) + 2
    top, left = max(0, rows.min() - margin), max(0, columns.min() - margin)
    window = np.s_[top : rows.max() + margin, left : columns.max() + margin]
    part_hw = truth_HW[window].astype(np.uint8)

    # Distance from the boundary, positive inside, against smooth noise of the object's scale
    depth_hw = _distance(part_hw) - _distance(1 - part_hw)
    rough_hw = rng.normal(size=part_hw.shape).astype(np.float32)
    smooth_hw: np.ndarray = cv2.GaussianBlur(rough_hw, (0, 0), max(2.0, size / 8))
    noise_hw = smooth_hw / (float(smooth_hw.std()) or 1.0)

    def moved(strength: float) -> np.ndarray:
        out_HW = np.zeros_like(truth_HW)
        out_HW[window] = depth_hw + strength * noise_hw > 0
        return out_HW

    strength = _bisect(lambda s: iou(moved(s), truth_HW), wanted_iou, high=size)
    found_HW = moved(strength)
    return found_HW if found_HW.any() else truth_HW


def _distance(mask_hw: np.ndarray) -> np.ndarray:
    # half a pixel less: the boundary lies between two pixels
    distance_hw: np.ndarray = cv2.distanceTransform(mask_hw, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.maximum(distance_hw - 0.5, 0)


def _bisect(falling: Callable[[float], float], wanted: float, *, high: float) -> float:
    """Find where a function that falls from 1 has a value, between 0 and `high`."""
    low = 0.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > wanted else (low, middle)
    return low
