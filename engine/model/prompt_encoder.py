"""Prompt encoder: turns points and boxes into tokens, and a mask into a map ("Segment Anything", A).

Shape suffixes: P prompts, K points of a prompt, T tokens, C channels, E side of the embedding grid, L = 4 E side
of a mask prompt.
"""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from engine.model.config import SamConfig
from engine.model.layers import LayerNorm2d, make_embedding, random_normal
from engine.prompts import Prompts


class PromptEncoder(nn.Module):
    """Encoder from points, boxes and masks in model-input pixels to the decoder's inputs."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.input_side = config.input_side
        self.embedding_side = config.embedding_side
        self.pe_layer = RandomFourierPosition(config.width)
        self.point_embeddings = nn.ModuleList(make_embedding(1, config.width) for _ in range(4))
        """Embeddings added to positions: of a background point, a foreground point, a box's first and second corner."""
        self.not_a_point_embed = make_embedding(1, config.width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, config.mask_prompt_channels // 4, kernel_size=2, stride=2),
            LayerNorm2d(config.mask_prompt_channels // 4),
            nn.GELU(),
            nn.Conv2d(config.mask_prompt_channels // 4, config.mask_prompt_channels, kernel_size=2, stride=2),
            LayerNorm2d(config.mask_prompt_channels),
            nn.GELU(),
            nn.Conv2d(config.mask_prompt_channels, config.width, kernel_size=1),
        )
        self.no_mask_embed = make_embedding(1, config.width)

    def forward(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Encode prompts as sparse tokens [P, T, C] and a dense map [P, C, L/4, L/4].

        Without mask prompts, the dense map is [1, C, 1, 1]. As in the original code, a padding point is appended if
        there are points and no boxes.
        """
        sparse_PTC = self.encode_points(prompts.points_PK2, prompts.labels_PK, pad=prompts.boxes_P4 is None)
        if prompts.boxes_P4 is not None:
            sparse_PTC = torch.cat([sparse_PTC, self.encode_boxes(prompts.boxes_P4)], dim=1)
        if prompts.mask_logits_P1LL is None:
            return sparse_PTC, self.no_mask_embed.weight[:, :, None, None]
        return sparse_PTC, self.mask_downscaling(prompts.mask_logits_P1LL)

    def encode_points(self, points_PK2: Tensor, labels_PK: Tensor, *, pad: bool) -> Tensor:
        """Encode points as tokens [P, K, C]; if `pad` is set and K > 0, add a padding point: [P, K+1, C]."""
        if pad and points_PK2.shape[1]:
            points_PK2 = torch.cat([points_PK2, points_PK2.new_zeros(len(points_PK2), 1, 2)], dim=1)
            labels_PK = torch.cat([labels_PK, labels_PK.new_full((len(labels_PK), 1), -1)], dim=1)
        positions_PKC = self._positions(points_PK2)
        positions_PKC = positions_PKC.masked_fill((labels_PK == -1)[..., None], 0.0)
        background, foreground, _, _ = self._kinds_1C()
        kinds_3C = torch.cat([self.not_a_point_embed.weight, background, foreground])
        return positions_PKC + kinds_3C[labels_PK.long() + 1]

    def encode_boxes(self, boxes_P4: Tensor) -> Tensor:
        """Encode the two corners of each box as tokens [P, 2, C]."""
        kinds_2C = torch.cat(self._kinds_1C()[2:])
        return self._positions(boxes_P4.unflatten(1, (2, 2))) + kinds_2C

    def get_dense_pe(self) -> Tensor:
        """Encode the position of every cell of the embedding grid; return [1, C, E, E]."""
        side = self.embedding_side
        weight = self.pe_layer.positional_encoding_gaussian_matrix
        centres_E = (torch.arange(side, device=weight.device, dtype=weight.dtype) + 0.5) / side
        rows_EE, columns_EE = torch.meshgrid(centres_E, centres_E, indexing="ij")
        return self.pe_layer(torch.stack([columns_EE, rows_EE], dim=-1)).permute(2, 0, 1)[None]

    def _kinds_1C(self) -> list[Tensor]:
        return list(self.point_embeddings.parameters())

    def _positions(self, points_xy: Tensor) -> Tensor:
        # half a pixel: a coordinate names a pixel, and its centre is encoded
        return self.pe_layer((points_xy + 0.5) / self.input_side)


class RandomFourierPosition(nn.Module):
    """Encoder of positions by random spatial frequencies (Tancik et al. 2020).

    The frequencies are a fixed matrix, stored with the weights.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.positional_encoding_gaussian_matrix: Tensor
        self.register_buffer("positional_encoding_gaussian_matrix", random_normal(2, width // 2))

    def forward(self, points_xy: Tensor) -> Tensor:
        """Encode points (x, y) in [0, 1], of any leading shape, as [..., C].

        Autocast is turned off: bfloat16 cannot distinguish the phases of neighbouring pixels.
        """
        matrix = self.positional_encoding_gaussian_matrix
        kind = matrix.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            phases = 2 * math.pi * ((2 * points_xy.to(matrix.dtype) - 1) @ matrix)
        return torch.cat([phases.sin(), phases.cos()], dim=-1)
