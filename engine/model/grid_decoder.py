"""Mask decoder for many single-point prompts on one image; it computes what `Sam.decode` computes, with less work.

The savings are exact algebra ("Segment Anything", fig. 14, names the parts):
- The first block's projections of the image are the same for every point and are computed once.
- Later blocks have 7 tokens x 8 heads = 56 token vectors and thousands of image cells, so the projections of the image
  (query, key, value, out) are applied to the tokens instead: (W k) . q = k . (W^T q).
- A softmax over image cells ignores the key's bias; weights of a softmax over tokens add up to 1 for each head, so the
  output's bias is added to the values.
- Only the IoU token and three mask tokens are read at the end, so only they attend to the image a last time.
- Predicted IoU is known before any mask is upscaled. Only wanted masks are upscaled, and only in the rows and columns
  that the image reaches. The hypernetwork's product is computed before cells are unfolded into pixels.

Shape suffixes: P points, M = 3 masks per point, T tokens, N cells of the embedding, E its side, C channels, A heads, D
channels of a head, K wanted masks, Q points with a wanted mask, R x C rows and columns of a mask, L = 4 E side of a
whole mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.decoder_attention import (
    Backend,
    Cells,
    attend_by_score,
    attend_to_cells,
    attend_to_tokens,
    fastest_backend,
)
from engine.model.sam import Sam
from engine.model.transformer import Attention, TwoWayBlock
from engine.prompts import Prompts

DecoderKind = Literal["auto", "grid", "fused", "plain"]


class PointDecoder(Protocol):
    """Decoder of prompts on one image, each a single foreground point.

    The first step, `predict`, predicts the IoU of all masks. The second step, `mask_logits`, computes the chosen masks.
    """

    low_side: int
    """Side of a whole low-resolution mask (L)."""

    def predict(self, points_P2: Tensor) -> Any:
        """Predict the IoU of each mask for points in pixels of the model input.

        The returned object has at least the field `iou_PM`.
        """

    def mask_logits(self, prediction: Any, wanted_PM: Tensor, needed_hw: tuple[int, int]) -> Tensor:
        """Compute logits [K, R, C] of the K masks that are True in `wanted_PM`.

        `needed_hw` is the smallest allowed number of rows R and of columns C.
        """


def make_point_decoder(kind: DecoderKind, sam: Sam, embeddings_1CEE: Tensor) -> PointDecoder:
    """Make a decoder for one image's embedding.

    Args:
        kind: "grid" is `GridDecoder` in torch; "fused" is `GridDecoder` with Triton kernels for the attention between
            tokens and image; "auto" is the faster of these two on the embedding's device; "plain" is `Sam.decode`.

    Raises:
        ValueError: The argument `kind` is unknown, or the embedding does not fit the network.
    """
    if kind == "auto":
        attention = fastest_backend(
            embeddings_1CEE.device, _compute_dtype(embeddings_1CEE), sam.config.width, sam.config.decoder_heads
        )
        return GridDecoder(sam, embeddings_1CEE, attention=attention)
    if kind in ("grid", "fused"):
        return GridDecoder(sam, embeddings_1CEE, attention="triton" if kind == "fused" else "reference")
    if kind == "plain":
        return PlainDecoder(sam, embeddings_1CEE)
    raise ValueError(f"got decoder {kind!r}, expected 'auto', 'grid', 'fused' or 'plain'")


class PlainDecoder:
    """Reference decoder, which computes all masks at once with `Sam.decode`."""

    def __init__(self, sam: Sam, embeddings_1CEE: Tensor) -> None:
        self.low_side = sam.config.logits_side
        self._sam, self._embeddings_1CEE = sam, embeddings_1CEE

    def predict(self, points_P2: Tensor) -> Any:
        points = _single_points(points_P2.to(self._embeddings_1CEE.device))
        return self._sam.decode(self._embeddings_1CEE, points)

    def mask_logits(self, prediction: Any, wanted_PM: Tensor, needed_hw: tuple[int, int]) -> Tensor:
        rows, columns = needed_hw
        return prediction.logits_PMLL[wanted_PM.to(prediction.logits_PMLL.device)][:, :rows, :columns]


@dataclass(frozen=True, kw_only=True)
class GridPrediction:
    """Prediction for P points before any mask is upscaled."""

    iou_PM: Tensor
    """Predicted IoU of each mask."""
    mask_tokens_PMC: Tensor
    """Tokens of the masks after attention."""
    image_PNC: Tensor
    """Image embedding of each point after attention."""


class GridDecoder:
    """Fast decoder of single foreground points; the constructor computes once whatever depends on the image alone.

    `attention` is the backend of the attention between tokens and image; see `engine.kernels.decoder_attention`.
    """

    def __init__(self, sam: Sam, embeddings_1CEE: Tensor, *, attention: Backend = "reference") -> None:
        side = sam.config.embedding_side
        if tuple(embeddings_1CEE.shape) != (1, sam.config.width, side, side):
            raise ValueError(
                f"got embeddings {list(embeddings_1CEE.shape)}, expected [1, {sam.config.width}, {side}, {side}]"
            )
        self.low_side = sam.config.logits_side
        self._sam, self._side, self._attention = sam, side, attention
        decoder, prompts = sam.mask_decoder, sam.prompt_encoder
        dtype = _compute_dtype(embeddings_1CEE)  # otherwise autocast would convert them for every batch of points
        image_1CEE = embeddings_1CEE + prompts.no_mask_embed.weight[:, :, None, None]
        self._image_NC = image_1CEE[0].flatten(1).T.to(dtype).contiguous()
        self._position_NC = prompts.get_dense_pe()[0].flatten(1).T.to(dtype).contiguous()
        self._blocks = [cast(TwoWayBlock, block) for block in decoder.transformer.layers]
        placed_NC = self._image_NC + self._position_NC
        to_image = self._blocks[0].cross_attn_token_to_image
        to_tokens = self._blocks[0].cross_attn_image_to_token
        self._first_keys_ADN = _by_head(to_image.k_proj(placed_NC), to_image.heads).transpose(1, 2).contiguous()
        self._first_values_AND = _by_head(to_image.v_proj(self._image_NC), to_image.heads).contiguous()
        self._first_queries_ADN = _by_head(to_tokens.q_proj(placed_NC), to_tokens.heads).transpose(1, 2).contiguous()
        layers: Any = decoder.output_upscaling
        first, self._upscale_norm, _, second, _ = layers
        self._first_upscale, self._second_upscale = _by_cell(first, dtype), _by_cell(second, dtype)
        self._own_tokens_OC = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])

    def predict(self, points_P2: Tensor) -> GridPrediction:
        """Predict the IoU of each mask without upscaling; the points are in pixels of the model input."""
        sam, decoder = self._sam, self._sam.mask_decoder
        transformer = decoder.transformer
        sparse_PTC, _ = sam.prompt_encoder(_single_points(points_P2.to(self._image_NC.device)))
        tokens_PTC = torch.cat([self._own_tokens_OC.expand(len(sparse_PTC), -1, -1), sparse_PTC], dim=1)

        queries_PTC, image_PNC = self._first_block(self._blocks[0], tokens_PTC)
        for block in self._blocks[1:]:
            queries_PTC, image_PNC = self._later_block(block, queries_PTC, tokens_PTC, image_PNC)

        read = [0, 2, 3, 4]  # the IoU token and masks 1 to 3; mask 0 is for several prompts
        queries_PTC, tokens_PTC = queries_PTC[:, read], tokens_PTC[:, read]
        cells = Cells(image_PNC=image_PNC, position_NC=self._position_NC)
        attended_PTC = self._attend_to_cells(transformer.final_attn_token_to_image, queries_PTC + tokens_PTC, cells)
        queries_PTC = transformer.norm_final_attn(queries_PTC + attended_PTC)
        iou_P4 = decoder.iou_prediction_head(queries_PTC[:, 0])
        return GridPrediction(iou_PM=iou_P4[:, 1:], mask_tokens_PMC=queries_PTC[:, 1:], image_PNC=image_PNC)

    def mask_logits(self, prediction: GridPrediction, wanted_PM: Tensor, needed_hw: tuple[int, int]) -> Tensor:
        """Compute logits [K, R, C] of the K masks that are True in `wanted_PM`.

        R and C are `needed_hw`, each rounded up to whole cells of the embedding (4 pixels).
        """
        wanted_PM = wanted_PM.to(prediction.image_PNC.device)
        chosen_Q = wanted_PM.any(dim=1)
        rows, columns = (-(-side // 4) for side in needed_hw)
        image_QEEC = prediction.image_PNC[chosen_Q].unflatten(1, (self._side, self._side))
        fine_QnSc = self._upscaled(image_QEEC[:, :rows, :columns].flatten(1, 2))
        mlps = self._sam.mask_decoder.output_hypernetworks_mlps
        tokens_QMC = prediction.mask_tokens_PMC[chosen_Q]
        weights_QMc = torch.stack([mlps[mask + 1](tokens_QMC[:, mask]) for mask in range(3)], dim=1)
        logits_KnS = torch.einsum("qmc,qnsc->qmns", weights_QMc, fine_QnSc)[wanted_PM[chosen_Q]]
        # a cell's 16 pixels are counted (row, column) of the first doubling, then of the second
        logits = logits_KnS.unflatten(2, (2, 2, 2, 2)).unflatten(1, (rows, columns)).permute(0, 1, 3, 5, 2, 4, 6)
        return logits.reshape(len(logits_KnS), 4 * rows, 4 * columns)

    def _first_block(self, block: TwoWayBlock, tokens_PTC: Tensor) -> tuple[Tensor, Tensor]:
        """Run the first block, in which all points share one image."""
        queries_PTC = block.norm1(block.self_attn(tokens_PTC, tokens_PTC, tokens_PTC))
        attention = block.cross_attn_token_to_image
        query_PATD = _by_head(attention.q_proj(queries_PTC + tokens_PTC), attention.heads) / _root(attention)
        attended_PATD = self._attend_first(query_PATD)
        queries_PTC = block.norm2(queries_PTC + attention.out_proj(attended_PATD.transpose(1, 2).flatten(2)))
        queries_PTC = block.norm3(queries_PTC + block.mlp(queries_PTC))

        attention = block.cross_attn_image_to_token
        image_PNC = self._image_NC.expand(len(tokens_PTC), -1, -1)
        if self._attention == "triton":
            cells = Cells(image_PNC=image_PNC, position_NC=self._position_NC)
            return queries_PTC, self._attend_to_tokens(block, queries_PTC, tokens_PTC, cells)
        keys_PATD = _by_head(attention.k_proj(queries_PTC + tokens_PTC), attention.heads) / _root(attention)
        scores_PATN = _each_matmul(keys_PATD, self._first_queries_ADN)  # the image was projected in the constructor
        return queries_PTC, attend_by_score(image_PNC, scores_PATN, _moved_values(attention, queries_PTC), block.norm4)

    def _later_block(
        self, block: TwoWayBlock, queries_PTC: Tensor, tokens_PTC: Tensor, image_PNC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run a later block, in which every point has its own image."""
        placed_PTC = queries_PTC + tokens_PTC
        queries_PTC = block.norm1(queries_PTC + block.self_attn(placed_PTC, placed_PTC, queries_PTC))
        cells = Cells(image_PNC=image_PNC, position_NC=self._position_NC)
        attended_PTC = self._attend_to_cells(block.cross_attn_token_to_image, queries_PTC + tokens_PTC, cells)
        queries_PTC = block.norm2(queries_PTC + attended_PTC)
        queries_PTC = block.norm3(queries_PTC + block.mlp(queries_PTC))
        return queries_PTC, self._attend_to_tokens(block, queries_PTC, tokens_PTC, cells)

    def _attend_first(self, query_PATD: Tensor) -> Tensor:
        """Attend to the image in the first block, in which all points share it."""
        if self._attention == "triton":  # torch has this kernel: the queries of all points attend to one image
            query_1AXD = query_PATD.transpose(0, 1).flatten(1, 2)[None]
            keys_1AND = self._first_keys_ADN.transpose(1, 2).contiguous()[None]
            attended_1AXD = F.scaled_dot_product_attention(
                query_1AXD, keys_1AND, self._first_values_AND[None], scale=1.0
            )
            return attended_1AXD[0].unflatten(1, (len(query_PATD), -1)).transpose(0, 1)
        scores_PATN = _each_matmul(query_PATD, self._first_keys_ADN)
        return _each_matmul(scores_PATN.softmax(dim=-1), self._first_values_AND)

    def _attend_to_cells(self, attention: Attention, query_PTC: Tensor, cells: Cells) -> Tensor:
        """Attend from tokens to the image; key and value projections are applied to the tokens instead."""
        by_head = (attention.heads, -1)
        query_PATD = _by_head(attention.q_proj(query_PTC), attention.heads) / _root(attention)
        moved_PSC = (query_PATD @ attention.k_proj.weight.unflatten(0, by_head)).flatten(1, 2)
        attended_PATC = attend_to_cells(moved_PSC, cells, backend=self._attention).unflatten(1, by_head)
        attended_PATD = attended_PATC @ attention.v_proj.weight.unflatten(0, by_head).transpose(1, 2)
        return attention.out_proj(attended_PATD.transpose(1, 2).flatten(2) + attention.v_proj.bias)

    def _attend_to_tokens(self, block: TwoWayBlock, queries_PTC: Tensor, tokens_PTC: Tensor, cells: Cells) -> Tensor:
        """Update the image by attention to tokens; query, value and out projections are applied to the tokens."""
        attention = block.cross_attn_image_to_token
        by_head = (attention.heads, -1)
        keys_PATD = _by_head(attention.k_proj(queries_PTC + tokens_PTC), attention.heads) / _root(attention)
        moved_PATC = keys_PATD @ attention.q_proj.weight.unflatten(0, by_head)
        bias_PAT = torch.einsum("patd,ad->pat", keys_PATD, attention.q_proj.bias.unflatten(0, by_head))
        values_PATC = _moved_values(attention, queries_PTC)
        return attend_to_tokens(cells, moved_PATC, bias_PAT, values_PATC, block.norm4, backend=self._attention)

    def _upscaled(self, image_QnC: Tensor) -> Tensor:
        """Upscale each cell by both transposed convolutions, as matrix products; return [Q, n, 16, C / 8]."""
        norm = self._upscale_norm
        doubled_QnSC = F.linear(image_QnC, *self._first_upscale).unflatten(2, (4, -1))
        doubled_QnSC = F.gelu(F.layer_norm(doubled_QnSC, norm.weight.shape, norm.weight, norm.bias, eps=1e-6))
        return F.gelu(F.linear(doubled_QnSC, *self._second_upscale)).unflatten(3, (4, -1)).flatten(2, 3)


def _moved_values(attention: Attention, values_PTC: Tensor) -> Tensor:
    """Apply value and out projections to tokens, with the out bias split evenly over heads; return [P, A, T, C]."""
    values_PATD = _by_head(attention.v_proj(values_PTC), attention.heads)
    out_ADC = attention.out_proj.weight.T.unflatten(0, (attention.heads, -1))
    return values_PATD @ out_ADC + attention.out_proj.bias / attention.heads


def _single_points(points_P2: Tensor) -> Prompts:
    """Make one prompt of each foreground point."""
    points_P12 = points_P2[:, None]
    return Prompts(points_PK2=points_P12, labels_PK=points_P12.new_ones(points_P12.shape[:2], dtype=torch.int64))


def _by_head(projected: Tensor, heads: int) -> Tensor:
    """Split channels into heads: [..., T, A D] to [..., A, T, D]."""
    return projected.unflatten(-1, (heads, -1)).transpose(-3, -2)


def _root(attention: Attention) -> float:
    """Return the square root of a head's number of channels, by which scores are divided."""
    return math.sqrt(attention.q_proj.out_features // attention.heads)


def _each_matmul(left_PAij: Tensor, right_Ajk: Tensor) -> Tensor:
    """Compute `left @ right` as one product per head; torch's broadcast would copy the right side for every point."""
    joined_AXk = torch.bmm(left_PAij.transpose(0, 1).flatten(1, 2), right_Ajk)  # X: rows of all points
    return joined_AXk.unflatten(1, (len(left_PAij), -1)).transpose(0, 1)


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which torch computes matrix products of a tensor: that of autocast, or of the tensor."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def _by_cell(layer: torch.nn.ConvTranspose2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Turn a 2 x 2, stride 2 transposed convolution into weight and bias of a linear layer from cell to 4 pixels."""
    assert layer.bias is not None
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return weight.to(dtype).contiguous(), layer.bias.repeat(4).to(dtype)
