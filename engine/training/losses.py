"""Losses of mask prediction: focal and dice at 20 : 1, and the minimum over the masks of one click.

The source is "Segment Anything", appendix A. P is the number of prompts, M the number of masks per prompt, L the side
of the low-resolution grid (any H, W works).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_WEIGHT = 20.0
DICE_WEIGHT = 1.0
FOCAL_GAMMA = 2.0


@dataclass(frozen=True, kw_only=True)
class MaskScores:
    """Distances of each predicted mask from the ground truth."""

    loss_PM: Tensor
    """Loss, 20 x focal + dice, float32."""
    iou_PM: Tensor
    """True IoU of the thresholded mask, float32 in [0, 1], without gradient."""


def score_masks(logits_PMLL: Tensor, targets_PLL: Tensor) -> MaskScores:
    """Compare the M predicted masks of each prompt with the prompt's target, the covered fraction of each cell.

    The IoU is computed on the grid of the logits. A cell belongs to the target when at least half of it is covered.
    """
    logits_PMLL = logits_PMLL.float()
    targets_P1LL = targets_PLL.float().unsqueeze(1)
    probability_PMLL = logits_PMLL.sigmoid()
    loss_PM = FOCAL_WEIGHT * focal_loss(logits_PMLL, probability_PMLL, targets_P1LL) + DICE_WEIGHT * dice_loss(
        probability_PMLL, targets_P1LL
    )
    return MaskScores(loss_PM=loss_PM, iou_PM=mask_iou(logits_PMLL.detach(), targets_P1LL))


def focal_loss(logits_PMLL: Tensor, probability_PMLL: Tensor, targets_P1LL: Tensor) -> Tensor:
    """Compute the mean over cells of |p - t|^2 x cross entropy, float32 [P, M].

    For targets t of 0 or 1 and predicted probabilities p this is focal loss with gamma 2. There is no alpha weighting,
    as in the SAM paper; instead, the total loss weighs focal loss to dice loss 20 : 1.
    """
    # softplus(x) - x * t is the cross entropy for soft targets, without a broadcast copy of the targets.
    cross_entropy_PMLL = F.softplus(logits_PMLL) - logits_PMLL * targets_P1LL
    difficulty_PMLL = (probability_PMLL - targets_P1LL).abs() ** FOCAL_GAMMA
    return (difficulty_PMLL * cross_entropy_PMLL).mean((-2, -1))


def dice_loss(probability_PMLL: Tensor, targets_P1LL: Tensor) -> Tensor:
    """Compute the dice loss 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), float32 [P, M] in [0, 1]."""
    overlap_PM = (probability_PMLL * targets_P1LL).sum((-2, -1))
    total_PM = probability_PMLL.sum((-2, -1)) + targets_P1LL.sum((-2, -1))
    return 1 - (2 * overlap_PM + 1) / (total_PM + 1)


@torch.no_grad()
def mask_iou(logits_PMLL: Tensor, targets_P1LL: Tensor) -> Tensor:
    """Compute the IoU of `logits > 0` and `targets >= 0.5`; float32 [P, M], 0 where both are empty."""
    mask_PMLL = logits_PMLL > 0
    truth_P1LL = targets_P1LL >= 0.5
    overlap_PM = (mask_PMLL & truth_P1LL).sum((-2, -1))
    union_PM = (mask_PMLL | truth_P1LL).sum((-2, -1))
    return overlap_PM / union_PM.clamp(min=1)


def min_loss(loss_PM: Tensor, *, mean_fraction: float = 0.0) -> Tensor:
    """Compute the minimum loss over each prompt's masks, plus `mean_fraction` times the mean loss over the masks: [P].

    With `mean_fraction` 0 only the best mask learns, which is the SAM paper's rule for ambiguous clicks. In a short
    training, a small `mean_fraction` lets a mask token learn that would never be the best.
    """
    return loss_PM.amin(1) + mean_fraction * loss_PM.mean(1)
