"""ViT image encoder of the original release, with its parameter names ("Segment Anything", A; Li et al. 2022).

Most blocks attend within windows, a few over the whole grid; both add decomposed relative positions. Two rearrangements
save time and memory without changing the function: queries, keys and values are projected before windows are padded
(the padding is then the projection's bias), and relative positions of global blocks are appended to queries and
keys, so that no cells-by-cells matrix is stored.

Training may use drop path (Huang et al. 2016) and gradient checkpointing.

Shape suffixes: B batch or windows, H and W rows and columns of the grid or of a window, N = H * W cells, C channels, A
heads, L blocks, D channels of a head, X the 3 C channels of queries, keys and values together.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.model.config import SamConfig, VitConfig
from engine.model.layers import TransformerMlp, embedding_neck
from engine.model.windows import cut_windows, join_windows


class ImageEncoder(nn.Module):
    """Image encoder from normalised pixels to an embedding: a plain vision transformer and a convolutional neck."""

    def __init__(self, config: SamConfig, vit: VitConfig) -> None:
        super().__init__()
        side = config.embedding_side
        self.input_side = config.input_side
        self.recomputes_blocks = False
        """True for gradient checkpointing of all blocks in training: a third more time, far less memory."""
        self.patch_embed = PatchEmbedding(vit.width, config.embedding_stride)
        self.pos_embed = nn.Parameter(torch.empty(1, side, side, vit.width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(
            Block(vit, grid_side=side, window_side=0 if index in vit.global_blocks else vit.window_side)
            for index in range(vit.depth)
        )
        self.neck = embedding_neck(vit.width, config.width)

    def forward(self, pixels_B3SS: Tensor, branch_factors_L2B: Tensor | None = None) -> Tensor:
        """Encode normalised pixels, float [B, 3, S, S], as embeddings [B, C, E, E]; S is the configured input side.

        Args:
            branch_factors_L2B: factors for the attention and the perceptron of each block and image, made by
                `draw_branch_factors`; None: no drop path. The factors are ignored in evaluation.

        Raises:
            ValueError: The side of the pixels is not the configured side, for which positions are learned.
        """
        if tuple(pixels_B3SS.shape[1:]) != (3, self.input_side, self.input_side):
            raise ValueError(
                f"got pixels {list(pixels_B3SS.shape)}, expected [B, 3, {self.input_side}, {self.input_side}]; "
                "Sam.preprocess makes them"
            )
        tokens_BHWC = self.patch_embed(pixels_B3SS) + self.pos_embed
        for index, block in enumerate(self.blocks):
            factors_2B = branch_factors_L2B[index] if self.training and branch_factors_L2B is not None else None
            if self.training and self.recomputes_blocks:
                tokens_BHWC = checkpoint(block, tokens_BHWC, factors_2B, use_reentrant=False)
            else:
                tokens_BHWC = block(tokens_BHWC, factors_2B)
        return self.neck(tokens_BHWC.permute(0, 3, 1, 2))


def draw_branch_factors(depth: int, drop_path: float, uniform_L2B: Tensor) -> Tensor:
    """Draw the factors of drop path at random for both branches of each block, float32 [L, 2, B].

    The factor is 0 for a branch that is left out, and 1 / (1 - rate) for a branch that is kept, which preserves the
    mean. The rate grows evenly from 0 in the first block to `drop_path` in the last block. `uniform_L2B` holds random
    numbers, uniform in [0, 1).
    """
    rate_L11 = torch.linspace(0, drop_path, depth, device=uniform_L2B.device)[:, None, None]
    return (uniform_L2B >= rate_L11) / (1 - rate_L11)


class PatchEmbedding(nn.Module):
    """Convolution that turns each patch of pixels into one token."""

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_px, stride=patch_px)

    def forward(self, pixels_B3SS: Tensor) -> Tensor:
        return self.proj(pixels_B3SS).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Pre-norm transformer block with attention within windows, or over the whole grid if `window_side` is 0."""

    def __init__(self, vit: VitConfig, *, grid_side: int, window_side: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(vit.width, eps=1e-6)
        self.attn = RelativeAttention(vit.width, vit.heads, grid_side=grid_side, window_side=window_side)
        self.norm2 = nn.LayerNorm(vit.width, eps=1e-6)
        self.mlp = TransformerMlp(vit.width, vit.mlp_ratio * vit.width, nn.GELU())

    def forward(self, tokens_BHWC: Tensor, branch_factors_2B: Tensor | None = None) -> Tensor:
        attended_BHWC = self.attn(self.norm1(tokens_BHWC))
        if branch_factors_2B is not None:
            attended_BHWC = attended_BHWC * branch_factors_2B[0, :, None, None, None].to(attended_BHWC.dtype)
        tokens_BHWC = tokens_BHWC + attended_BHWC
        changed_BHWC = self.mlp(self.norm2(tokens_BHWC))
        if branch_factors_2B is not None:
            changed_BHWC = changed_BHWC * branch_factors_2B[1, :, None, None, None].to(changed_BHWC.dtype)
        return tokens_BHWC + changed_BHWC


class RelativeAttention(nn.Module):
    """Multi-head attention over the whole grid or within windows, with decomposed relative positions."""

    def __init__(self, width: int, heads: int, *, grid_side: int, window_side: int) -> None:
        super().__init__()
        self.heads = heads
        self.window_side = window_side
        side = window_side or grid_side
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.empty(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.empty(2 * side - 1, width // heads))
        nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
        nn.init.trunc_normal_(self.rel_pos_w, std=0.02)

    def forward(self, tokens_BHWC: Tensor) -> Tensor:
        qkv_BHWX = self.qkv(tokens_BHWC)
        if not self.window_side:
            return self.proj(self._attend(qkv_BHWX, attend_globally))
        windows_BHWX = cut_windows(qkv_BHWX, self.window_side, padding=self.qkv.bias)
        attended_BHWC = self._attend(windows_BHWX, attend_in_windows)
        return self.proj(join_windows(attended_BHWC, tuple(tokens_BHWC.shape[:3])))

    def _attend(self, qkv_BHWX: Tensor, attend: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        batch, height, width, _ = qkv_BHWX.shape
        query_BAND, key_BAND, value_BAND = (
            qkv_BHWX.reshape(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind()
        )
        grid_BAHWD = query_BAND.unflatten(2, (height, width))
        rows_BANH = torch.einsum("bahwd,hkd->bahwk", grid_BAHWD, relative_rows(self.rel_pos_h, height)).flatten(2, 3)
        columns_BANW = torch.einsum("bahwd,wkd->bahwk", grid_BAHWD, relative_rows(self.rel_pos_w, width)).flatten(2, 3)
        attended_BAND = attend(query_BAND, key_BAND, value_BAND, rows_BANH, columns_BANW)
        return attended_BAND.transpose(1, 2).reshape(batch, height, width, -1)


def relative_rows(table_RD: Tensor, side: int) -> Tensor:
    """Look up the vector of relative position for each (query, key) pair along one axis; return [side, side, D]."""
    positions = torch.arange(side, device=table_RD.device)
    return table_RD[positions[:, None] - positions[None, :] + side - 1]


def attend_in_windows(
    query_BAND: Tensor, key_BAND: Tensor, value_BAND: Tensor, rows_BANH: Tensor, columns_BANW: Tensor
) -> Tensor:
    """Attend within windows; the relative positions are added to the scores as an [N, N] matrix.

    For small windows, this computation is cheaper than `attend_globally`.
    """
    bias_BANN = (rows_BANH[..., :, None] + columns_BANW[..., None, :]).flatten(3)
    return F.scaled_dot_product_attention(query_BAND, key_BAND, value_BAND, attn_mask=bias_BANN)


def attend_globally(
    query_BAND: Tensor, key_BAND: Tensor, value_BAND: Tensor, rows_BANH: Tensor, columns_BANW: Tensor
) -> Tensor:
    """Attend over the whole grid, without an [N, N] matrix of relative positions.

    The scores, relative positions included, are the products [q, rows, columns] . [k, one-hot row, one-hot column].
    """
    head_width = query_BAND.shape[-1]
    height, width = rows_BANH.shape[-1], columns_BANW.shape[-1]
    one_hot_rows_NH = torch.eye(height, dtype=key_BAND.dtype, device=key_BAND.device).repeat_interleave(width, 0)
    one_hot_columns_NW = torch.eye(width, dtype=key_BAND.dtype, device=key_BAND.device).repeat(height, 1)
    one_hot_NX = torch.cat([one_hot_rows_NH, one_hot_columns_NW], dim=1)
    wide_query = torch.cat([query_BAND * head_width**-0.5, rows_BANH, columns_BANW], dim=-1)
    wide_key = torch.cat([key_BAND, one_hot_NX.expand(*key_BAND.shape[:2], -1, -1)], dim=-1)
    wide_value = F.pad(value_BAND, (0, height + width))  # the memory-saving kernels need one width
    return F.scaled_dot_product_attention(wide_query, wide_key, wide_value, scale=1.0)[..., :head_width]
