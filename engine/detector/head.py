"""The detector's network: from a SAM's image embedding to a score and a box for every cell of several levels.

It is a one-stage detector without anchors, after FCOS (Tian et al. 2019): each cell predicts the distances from its
middle to the four sides of a box. The score of a cell is trained to be the IoU of the cell's box with the object
(quality focal loss, Li et al. 2020), so that a separate "centre-ness" is not needed. There are no classes.

Shape suffixes: B images, C channels, E side of the embedding, H W rows and columns of a level, K cells of all levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.detector.config import DetectorConfig

PRIOR_LOGIT = -3.0
"""Score logit of an untrained cell: about one cell in twenty belongs to an object (Lin et al. 2017)."""
LOG_DISTANCE = 0.7
"""Logarithm of the distances of an untrained cell: its box has four cells a side, the middle of a level's range."""
MAX_LOG_DISTANCE = 4.0
"""Largest logarithm of a distance in cells, so that an untrained network cannot overflow; e^4 is 55 cells."""


@dataclass(frozen=True, kw_only=True)
class CellPredictions:
    """Predictions for the cells of all levels, finest level first and row by row."""

    logits_BK: Tensor
    """Score of each cell before the sigmoid."""
    boxes_BK4: Tensor
    """Box (x0, y0, x1, y1) of each cell in pixels of the SAM's input; it may reach beyond the input."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Positions of the cells of all levels, finest level first and row by row."""

    middles_K2: Tensor
    """Middle (x, y) of each cell in pixels of the SAM's input, float32."""
    sides_K: Tensor
    """Side of each cell in pixels of the SAM's input, float32."""


class DetectorHead(nn.Module):
    """Network of the detector; its input is the image embedding of the SAM that it was trained with."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(nn.Conv2d(config.embedding_width, config.width, 1), *_norm_relu(config.width))
        self.coarser = nn.ModuleList(_conv(config.width, stride=2) for _ in range(config.levels - 1))
        self.tower = nn.Sequential(*(_conv(config.width) for _ in range(config.tower_depth)))
        self.out = nn.Conv2d(config.width, 5, kernel_size=3, padding=1)
        self.level_scales = nn.Parameter(torch.ones(config.levels))
        self.out.weight = nn.Parameter(0.01 * torch.randn_like(self.out.weight))
        self.out.bias = nn.Parameter(torch.tensor([PRIOR_LOGIT, *[LOG_DISTANCE] * 4]))

    def forward(self, embeddings_BCEE: Tensor) -> CellPredictions:
        """Predict a score and a box for every cell from embeddings [B, C, E, E]."""
        features_BCHW = self.stem(embeddings_BCEE)
        outputs = []
        for level in range(self.config.levels):
            if level:
                features_BCHW = self.coarser[level - 1](features_BCHW)
            out_B5HW = self.out(self.tower(features_BCHW))
            log_distances_B4HW = self.level_scales[level] * out_B5HW[:, 1:]
            outputs.append(torch.cat([out_B5HW[:, :1], log_distances_B4HW], 1).flatten(2))
        out_BK5 = torch.cat(outputs, 2).transpose(1, 2).float()
        cells = cells_of(self.config, out_BK5.device)
        distances_BK4 = out_BK5[..., 1:].clamp(max=MAX_LOG_DISTANCE).exp() * cells.sides_K[:, None]
        low_BK2 = cells.middles_K2 - distances_BK4[..., :2]
        high_BK2 = cells.middles_K2 + distances_BK4[..., 2:]
        return CellPredictions(logits_BK=out_BK5[..., 0], boxes_BK4=torch.cat([low_BK2, high_BK2], 2))


def cells_of(config: DetectorConfig, device: torch.device | str) -> Cells:
    """Compute the middle and the side of every cell."""
    middles, sides = [], []
    side, cells = float(config.stride_px), config.embedding_side
    for _ in range(config.levels):
        axis = (torch.arange(cells, device=device, dtype=torch.float32) + 0.5) * side
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        middles.append(torch.stack([columns, rows], -1).flatten(0, 1))
        sides.append(torch.full((cells * cells,), side, device=device))
        side, cells = 2 * side, -(-cells // 2)
    return Cells(middles_K2=torch.cat(middles), sides_K=torch.cat(sides))


def _conv(width: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1), *_norm_relu(width))


def _norm_relu(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(8, width), nn.ReLU(inplace=True)


def box_iou_pairs(a_N4: Tensor, b_N4: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the IoU and the generalised IoU (Rezatofighi et al. 2019) of each pair of boxes, [N] each."""
    low_N2, high_N2 = torch.maximum(a_N4[:, :2], b_N4[:, :2]), torch.minimum(a_N4[:, 2:], b_N4[:, 2:])
    shared_N = (high_N2 - low_N2).clamp(min=0).prod(1)
    area_a_N, area_b_N = (F.relu(each[:, 2:] - each[:, :2]).prod(1) for each in (a_N4, b_N4))
    union_N = (area_a_N + area_b_N - shared_N).clamp(min=1e-6)
    outer_N2 = torch.maximum(a_N4[:, 2:], b_N4[:, 2:]) - torch.minimum(a_N4[:, :2], b_N4[:, :2])
    outer_N = outer_N2.prod(1).clamp(min=1e-6)
    iou_N = shared_N / union_N
    return iou_N, iou_N - (outer_N - union_N) / outer_N
