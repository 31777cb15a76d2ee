"""The simulated annotator of an evaluation: it clicks the deepest point of the object, then that of the larger error.

The deepest point of a region is the pixel farthest from the region's edge. With the policy "centre" the annotator is
deterministic, as in published evaluations. It works on whole images at their own resolution, and stops when the mask is
good enough or the clicks are used up. Training uses another annotator, `engine.training.annotator`, which draws its
clicks at random on windows of images.

Points are (x, y) in image pixels; the middle of the pixel in column c and row r is (c + 0.5, r + 0.5). Shape letters: H
height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from engine.evaluation.boundaries import boundary_iou
from engine.interactive.segment import Candidates, Click, CropXyxy, ObjectPrompt, OpenedImage

Point = tuple[float, float]
"""Point (x, y) in image pixels."""

ClickPolicy = Callable[[np.ndarray, np.random.Generator], Point]
"""Function that chooses the point (x, y) to click in a region (bool [H, W], not empty), in image pixels."""


def centre_click(region_HW: np.ndarray, rng: np.random.Generator) -> Point:
    """Return the point of the region that is farthest from the region's edge.

    Published evaluations click this point ("Segment Anything", section 7).
    """
    return _deepest(region_HW)[0]


def jittered_click(region_HW: np.ndarray, rng: np.random.Generator) -> Point:
    """Return a random point of the region near its deepest point, as a person might click.

    The deepest point is the one farthest from the region's edge. The random point is drawn from a normal distribution
    around the deepest point, with a standard deviation of 0.4 of the deepest point's distance to the edge. Up to 10
    points are drawn, and the first that lies inside the region is returned. If none of the 10 lies inside, the deepest
    point is returned. This distribution is a model of people's clicks, not a
    measurement: RClicks (arXiv 2410.11722) found that real clicks scatter and score lower than centre clicks.
    """
    (x, y), depth = _deepest(region_HW)
    height, width = region_HW.shape
    for dx, dy in rng.normal(scale=0.4 * depth, size=(10, 2)):
        column, row = int(np.floor(x + dx)), int(np.floor(y + dy))
        if 0 <= column < width and 0 <= row < height and region_HW[row, column]:
            return column + 0.5, row + 0.5
    return x, y


POLICIES: dict[str, ClickPolicy] = {"centre": centre_click, "jittered": jittered_click}
"""Functions that choose the point to click, by the names of `EvaluationConfig.click_policy`."""


def next_click(
    truth_HW: np.ndarray,
    mask_HW: np.ndarray,
    earlier: Sequence[Click],
    policy: ClickPolicy,
    rng: np.random.Generator,
) -> Click:
    """Return the click that best corrects the mask `mask_HW` towards the ground truth `truth_HW`.

    Missing pixels lie in the ground truth but not in the mask; surplus pixels lie in the mask but not in the ground
    truth. The click lies in the missing or in the surplus pixels, whichever region is deeper. The depth of a region is
    the largest distance of a pixel of the region from the region's edge. A click in missing pixels is positive, and a
    click in surplus pixels is negative, as in RITM and in SAM's evaluation. Pixels clicked in `earlier` are not clicked
    again. If no other pixel is wrong, the last click of `earlier` is returned once more.
    """
    missing_HW, surplus_HW = truth_HW & ~mask_HW, mask_HW & ~truth_HW
    for click in earlier:
        row, column = int(click.y), int(click.x)
        missing_HW[row, column] = surplus_HW[row, column] = False
    missing_depth, surplus_depth = (_deepest(region)[1] if region.any() else 0.0 for region in (missing_HW, surplus_HW))
    if missing_depth == surplus_depth == 0.0:
        return earlier[-1]
    positive = missing_depth > surplus_depth
    x, y = policy(missing_HW if positive else surplus_HW, rng)
    return Click(x=x, y=y, positive=positive)


@dataclass(kw_only=True)
class SimulatedSession:
    """A simulated annotator's work on one object, click by click."""

    truth_HW: np.ndarray
    """Ground truth of the object, bool."""
    clicks: list[Click]
    shown_HW: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    """Mask shown after the last click, bool: the candidate that the segmenter ranks first."""
    shown_logits_LL: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    shown_crop_xyxy: CropXyxy | None = None
    predicted_iou_M: tuple[float, ...] = ()
    """Predicted IoU of each candidate for the first click."""
    iou_M: tuple[float, ...] = ()
    """True IoU of each candidate for the first click."""
    boundary_iou: float = 0.0
    """Boundary IoU (`engine.evaluation.boundaries`) of the mask shown after the first click."""
    iou_after: list[float] = field(default_factory=list)
    """IoU of the shown mask with the ground truth, one value for each click."""

    @property
    def prompt(self) -> ObjectPrompt:
        """Prompt for the next prediction: all clicks so far, and the mask shown last."""
        return ObjectPrompt(
            clicks=tuple(self.clicks),
            previous_logits_LL=self.shown_logits_LL,
            previous_crop_xyxy=self.shown_crop_xyxy,
        )

    def show(self, candidates: Candidates) -> None:
        """Make the chosen candidate the shown mask, and append the IoU of the shown mask to `iou_after`."""
        # copies: a view would keep every candidate of the whole batch in memory
        self.shown_HW = candidates.masks_MHW[candidates.chosen].copy()
        self.shown_logits_LL = candidates.logits_MLL[candidates.chosen].clone()
        self.shown_crop_xyxy = candidates.crop_of(candidates.chosen)
        self.iou_after.append(iou(self.shown_HW, self.truth_HW))


def simulate_clicks(
    image: OpenedImage,
    truths: Sequence[np.ndarray],
    policy: ClickPolicy,
    rng: np.random.Generator,
    *,
    min_clicks: int = 1,
    max_clicks: int = 1,
    until_iou: float = 1.0,
) -> list[SimulatedSession]:
    """Simulate an annotator's clicks on each object of an image, and return one session for each object.

    Each object gets at least `min_clicks` clicks. Further clicks follow until a shown mask of the object has reached
    the IoU `until_iou`, or until the object has `max_clicks` clicks. The prompts of several objects share a batch, but
    each object has a prompt of its own, so that no object affects another.

    Args:
        truths: ground truth of each object, bool [H, W], not empty.
    """
    # First click on each object
    sessions = []
    for truth_HW in truths:
        x, y = policy(truth_HW, rng)
        sessions.append(SimulatedSession(truth_HW=truth_HW, clicks=[Click(x=x, y=y)]))
    firsts = image.segment([ObjectPrompt(clicks=tuple(session.clicks)) for session in sessions])
    for session, first in zip(sessions, firsts, strict=True):
        session.predicted_iou_M = tuple(first.predicted_iou_M.tolist())
        session.iou_M = tuple(iou(mask_HW, session.truth_HW) for mask_HW in first.masks_MHW)
        session.show(first)
        session.boundary_iou = boundary_iou(session.shown_HW, session.truth_HW)

    # Corrections of the objects that need more clicks
    for clicked in range(1, max_clicks):
        active = [s for s in sessions if clicked < min_clicks or max(s.iou_after) < until_iou]
        if not active:
            break
        for s in active:
            s.clicks.append(next_click(s.truth_HW, s.shown_HW, s.clicks, policy, rng))
        for s, candidates in zip(active, image.segment([s.prompt for s in active]), strict=True):
            s.show(candidates)
    return sessions


def iou(mask_HW: np.ndarray, truth_HW: np.ndarray) -> float:
    """Compute the intersection over union of two bool masks; 0 when both are empty."""
    both = np.count_nonzero(mask_HW & truth_HW)
    either = np.count_nonzero(mask_HW) + np.count_nonzero(truth_HW) - both
    return both / either if either else 0.0


def _deepest(region_HW: np.ndarray) -> tuple[Point, float]:
    """Return the middle of the pixel farthest from the region's edge, and its distance from that edge in pixels.

    The image's border counts as an edge. The distance transform covers only the region's bounding box. Every pixel
    outside this box is outside the region, so the result is the same as on the whole image.
    """
    rows, columns = np.flatnonzero(region_HW.any(axis=1)), np.flatnonzero(region_HW.any(axis=0))
    assert len(rows), "an empty region has no deepest point"
    y0, x0 = int(rows[0]), int(columns[0])
    window_HW = region_HW[y0 : rows[-1] + 1, x0 : columns[-1] + 1]
    padded = np.pad(window_HW.astype(np.uint8), 1)
    depth_HW = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1].astype(np.float64)
    # OpenCV's last bit differs from call to call (its issue 24082), enough to move a click to another of several
    # deepest pixels; squares of distances are whole numbers, and rounding to them gives the same click every time
    squared_HW = np.rint(depth_HW * depth_HW)
    row, column = np.unravel_index(int(squared_HW.argmax()), squared_HW.shape)
    return (x0 + int(column) + 0.5, y0 + int(row) + 0.5), float(np.sqrt(squared_HW[row, column]))
