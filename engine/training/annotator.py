"""Simulated annotator of training: it draws a first click or box on a mask, and further clicks on the mask's errors.

It draws at random, and on windows, so that the model meets the variety of people's clicks. Evaluation has another
simulated annotator, `engine.evaluation.annotator`, which clicks the deepest point of the error region on whole images.

All points are (x, y) in pixels of the window; pixel centres lie at .5. P is the number of prompts, L the side of the
logit grid.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

CENTRED_FRACTION = 0.55
"""Fraction of first clicks drawn near the point farthest from the boundary; the other clicks fall anywhere in the mask.
"""
BOX_NOISE = 0.1
"""Standard deviation of a box side's shift, as a fraction of the box's width or height ("Segment Anything", appendix
A).
"""
BOX_NOISE_MAX_PX = 20.0
"""Largest shift of a box's side, in pixels."""
ERROR_BLUR_CELLS = 9
"""Side in cells of the window in which errors are counted to draw the next click, because people click into big errors.
"""
DENSITY_POWER = 3
"""Power of the local density of errors that weighs where the next click falls. 0 draws evenly, as the paper does."""


def first_click(mask_HW: np.ndarray, rng: Generator, centred_fraction: float = CENTRED_FRACTION) -> np.ndarray:
    """Draw a click into the mask (uint8 or bool [H, W], not empty): float32 [2].

    People aim at the middle of a mask but do not hit the middle (RClicks, 2410.11722). Therefore `centred_fraction` of
    the clicks are drawn from the deepest pixels: those whose distance from the mask's edge is over a random threshold
    between 0.5 and 1 times the greatest distance. The other clicks are drawn evenly from the mask, as in the SAM paper.
    """
    mask_HW = mask_HW.astype(np.uint8)
    if rng.random() < centred_fraction:
        depth_HW = cv2.distanceTransform(np.pad(mask_HW, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        cells = np.flatnonzero(depth_HW >= depth_HW.max() * rng.uniform(0.5, 1.0))
    else:
        cells = np.flatnonzero(mask_HW)
    if len(cells) == 0:
        raise ValueError(f"cannot click into an empty mask of {mask_HW.shape[0]} x {mask_HW.shape[1]} px")
    row, column = divmod(int(cells[rng.integers(len(cells))]), mask_HW.shape[1])
    return np.array([column + 0.5, row + 0.5], np.float32)


def noisy_box(mask_HW: np.ndarray, rng: Generator) -> np.ndarray:
    """Draw the mask's box with noise on every side: float32 [4] (x0, y0, x1, y1), at least 1 px wide and high."""
    rows = np.flatnonzero(mask_HW.any(1))
    columns = np.flatnonzero(mask_HW.any(0))
    if len(rows) == 0:
        raise ValueError(f"cannot box an empty mask of {mask_HW.shape[0]} x {mask_HW.shape[1]} px")
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    sides = np.tile(box[2:] - box[:2], 2)
    noise = rng.normal(size=4) * BOX_NOISE * sides
    box = box + np.clip(noise, -BOX_NOISE_MAX_PX, BOX_NOISE_MAX_PX).astype(np.float32)
    centre = (box[:2] + box[2:]) / 2
    return np.concatenate([np.minimum(box[:2], centre - 0.5), np.maximum(box[2:], centre + 0.5)])


@torch.no_grad()
def correction_clicks(
    logits_PLL: Tensor, targets_PLL: Tensor, uniforms_P3: Tensor, cell_px: int, density_power: int = DENSITY_POWER
) -> tuple[Tensor, Tensor]:
    """Draw one click into each prompt's error region: points float32 [P, 2] and labels int64 [P].

    Label 1 marks a place that the prediction missed. Label 0 marks a place that the prediction wrongly covers.
    `uniforms_P3` are random numbers in [0, 1) that choose the cell and the place in the cell. These numbers belong to
    the sample, so that every process draws the same click. A prompt without error gets a click with label 1 into the
    prompt's target.
    """
    missed_PLL = (targets_PLL >= 0.5) & (logits_PLL <= 0)
    extra_PLL = (targets_PLL < 0.5) & (logits_PLL > 0)
    errors_P2LL = torch.stack([missed_PLL, extra_PLL], 1).float()
    density_P2LL = F.avg_pool2d(errors_P2LL, ERROR_BLUR_CELLS, stride=1, padding=ERROR_BLUR_CELLS // 2)
    weights_PK = (errors_P2LL * density_P2LL**density_power).flatten(1)
    fallback_PK = torch.stack([targets_PLL >= 0.5, torch.zeros_like(missed_PLL)], 1).float().flatten(1)
    weights_PK = torch.where(weights_PK.sum(1, keepdim=True) > 0, weights_PK, fallback_PK)
    chosen_P = _draw(weights_PK, uniforms_P3[:, 0])
    height, width = logits_PLL.shape[-2:]
    labels_P = (chosen_P < height * width).long()
    cell_P = chosen_P % (height * width)
    corner_P2 = torch.stack([cell_P % width, torch.div(cell_P, width, rounding_mode="floor")], 1)
    return (corner_P2 + uniforms_P3[:, 1:]) * cell_px, labels_P


def _draw(weights_PK: Tensor, uniform_P: Tensor) -> Tensor:
    """Draw an index in proportion to the weights by inverting their running sum; int64 [P]."""
    running_PK = weights_PK.double().cumsum(1)
    goal_P1 = (uniform_P.double() * running_PK[:, -1]).unsqueeze(1)
    chosen_P = torch.searchsorted(running_PK, goal_P1, right=True).squeeze(1)
    # Rounding may push the goal to the very end, past the last cell that has weight.
    last_P = running_PK.argmax(1)
    return torch.minimum(chosen_P, last_P)
