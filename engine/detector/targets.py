"""Training targets of the detector: which cell answers for which box, and the loss.

A box belongs to the level whose cells are about a quarter of the box's side. On that level, the cells whose middles lie
near the box's middle are to predict it. Objects and their parts often share a middle; they differ in size, so that most
of them meet on different levels. Of two boxes that claim the same cell, the smaller one wins.

Shape suffixes: B images, N boxes, K cells of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.detector.head import CellPredictions, Cells, box_iou_pairs

CELLS_PER_SIDE = (2.0, 8.0)
"""Range of the side of a box, in cells of a level, that the level answers for. The ranges of neighbouring levels
overlap, so that a box has cells on two levels. The side of a box is the square root of its area."""
RADIUS_CELLS = 1.5
"""Largest distance of a cell's middle from the box's middle along an axis, in cells, at which the cell answers."""
BOX_WEIGHT = 2.0
"""Weight of the loss of the boxes, where that of the scores is 1."""


def assign(cells: Cells, boxes_N4: Tensor) -> Tensor:
    """Assign a box to each cell; int64 [K], -1 for background."""
    taken_K = torch.full((len(cells.sides_K),), -1, dtype=torch.int64, device=cells.sides_K.device)
    if not len(boxes_N4):
        return taken_K
    side_N = (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(1).sqrt()
    smallest, largest = cells.sides_K.min(), cells.sides_K.max()
    size_KN = side_N[None, :] / cells.sides_K[:, None]
    low, high = CELLS_PER_SIDE
    fits_KN = (size_KN >= low) & (size_KN < high)
    fits_KN |= (size_KN < low) & (cells.sides_K[:, None] == smallest)  # the finest level takes all smaller boxes
    fits_KN |= (size_KN >= high) & (cells.sides_K[:, None] == largest)  # and the coarsest all larger ones

    middle_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2
    offset_KN2 = (cells.middles_K2[:, None] - middle_N2[None]).abs()
    inside_KN = ((offset_KN2 * 2 < (boxes_N4[:, 2:] - boxes_N4[:, :2])[None]).all(2)) & fits_KN
    inside_KN &= (offset_KN2 < RADIUS_CELLS * cells.sides_K[:, None, None]).all(2)
    # a box with no cell's middle inside it still has the cell that holds the box's own middle
    holds_KN = (offset_KN2 <= cells.sides_K[:, None, None] / 2).all(2) & fits_KN
    claims_KN = inside_KN | holds_KN
    claimed_size_KN = torch.where(claims_KN, side_N[None, :], torch.inf)
    least_K, box_K = claimed_size_KN.min(1)
    return torch.where(torch.isfinite(least_K), box_K, taken_K)


def detector_loss(predictions: CellPredictions, cells: Cells, boxes: Sequence[Tensor]) -> Tensor:
    """Compute the loss of a batch: quality focal loss of the scores, generalised IoU loss of the boxes.

    Args:
        boxes: ground truth of each image, float32 [N, 4] in pixels of the SAM's input.
    """
    quality_BK = torch.zeros_like(predictions.logits_BK)
    box_losses = []
    for image, truth_N4 in enumerate(boxes):
        box_K = assign(cells, truth_N4)
        at = (box_K >= 0).nonzero()[:, 0]
        if len(at):
            iou_P, generalised_P = box_iou_pairs(predictions.boxes_BK4[image, at], truth_N4[box_K[at]])
            quality_BK[image, at] = iou_P.detach()
            box_losses.append(1 - generalised_P)
    positives = max(1, sum(len(losses) for losses in box_losses))
    score_BK = predictions.logits_BK.sigmoid()
    cross_entropy_BK = F.binary_cross_entropy_with_logits(predictions.logits_BK, quality_BK, reduction="none")
    score_loss = ((score_BK - quality_BK).abs().square() * cross_entropy_BK).sum() / positives
    if not box_losses:
        return score_loss
    return score_loss + BOX_WEIGHT * torch.cat(box_losses).mean()
