"""Two-way transformer of the decoder: prompt tokens and image cells attend to each other ("Segment Anything", fig. 14).

The first block projects an image in the same way for every prompt. Image cells are therefore passed as U distinct maps,
and are repeated for the P prompts only after projection. The function is that of the original release.

Shape suffixes: U distinct image maps, P prompts, T tokens of a prompt, N cells of a map, C channels, A heads, D
channels of a head.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.layers import TransformerMlp

CROSS_DOWNSAMPLE = 2
"""Ratio of the decoder's width to the width of attention between tokens and image ("Segment Anything", A)."""


class TwoWayTransformer(nn.Module):
    """Stack of `depth` two-way blocks with a last attention from tokens to image."""

    def __init__(self, depth: int, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(width, heads, mlp_width, first=index == 0) for index in range(depth))
        self.final_attn_token_to_image = Attention(width, heads, CROSS_DOWNSAMPLE)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(
        self, image_UNC: Tensor, position_1NC: Tensor, tokens_PTC: Tensor, image_index_P: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attend between tokens and image cells; return tokens [P, T, C] and image cells [P, N, C].

        `image_index_P` is the int64 index of each prompt's row of `image_UNC`. None: row p belongs to prompt p.
        """
        queries_PTC, keys_PNC = tokens_PTC, image_UNC
        for layer in self.layers:
            queries_PTC, keys_PNC = layer(queries_PTC, keys_PNC, tokens_PTC, position_1NC, image_index_P)
            image_index_P = None  # from here on every prompt has an image of its own
        attended_PTC = self.final_attn_token_to_image(queries_PTC + tokens_PTC, keys_PNC + position_1NC, keys_PNC)
        return self.norm_final_attn(queries_PTC + attended_PTC), keys_PNC


class TwoWayBlock(nn.Module):
    """Block of self-attention of tokens, attention to the image, perceptron, and attention of the image to tokens."""

    def __init__(self, width: int, heads: int, mlp_width: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(width, heads, downsample=1)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, heads, CROSS_DOWNSAMPLE)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = TransformerMlp(width, mlp_width, nn.ReLU())
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, heads, CROSS_DOWNSAMPLE)

    def forward(
        self,
        queries_PTC: Tensor,
        keys_UNC: Tensor,
        tokens_PTC: Tensor,
        position_1NC: Tensor,
        image_index_P: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if self.first:  # the tokens are still their own positions; no residual
            queries_PTC = self.self_attn(queries_PTC, queries_PTC, queries_PTC)
        else:
            placed_PTC = queries_PTC + tokens_PTC
            queries_PTC = queries_PTC + self.self_attn(placed_PTC, placed_PTC, queries_PTC)
        queries_PTC = self.norm1(queries_PTC)

        placed_UNC = keys_UNC + position_1NC
        queries_PTC = queries_PTC + self.cross_attn_token_to_image(
            queries_PTC + tokens_PTC, placed_UNC, keys_UNC, key_rows_P=image_index_P
        )
        queries_PTC = self.norm2(queries_PTC)
        queries_PTC = self.norm3(queries_PTC + self.mlp(queries_PTC))

        attended_PNC = self.cross_attn_image_to_token(
            placed_UNC, queries_PTC + tokens_PTC, queries_PTC, query_rows_P=image_index_P
        )
        return queries_PTC, self.norm4(spread(keys_UNC, image_index_P) + attended_PNC)


class Attention(nn.Module):
    """Multi-head attention whose heads together are `width / downsample` channels wide."""

    def __init__(self, width: int, heads: int, downsample: int) -> None:
        super().__init__()
        inner_width = width // downsample
        self.heads = heads
        self.q_proj = nn.Linear(width, inner_width)
        self.k_proj = nn.Linear(width, inner_width)
        self.v_proj = nn.Linear(width, inner_width)
        self.out_proj = nn.Linear(inner_width, width)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        query_rows_P: Tensor | None = None,
        key_rows_P: Tensor | None = None,
    ) -> Tensor:
        """Compute multi-head attention of `query` to `key` and `value`; return [P, Tq, C].

        `query_rows_P` holds, for each of P prompts, the index of its row in `query`; a row that several prompts share
        is projected once. `key_rows_P` holds, for each prompt, the index of its row in `key` and in `value`. None:
        row p belongs to prompt p.
        """
        query_PATD = self._split(self.q_proj(query), query_rows_P)
        key_PATD = self._split(self.k_proj(key), key_rows_P)
        value_PATD = self._split(self.v_proj(value), key_rows_P)
        attended_PATD = F.scaled_dot_product_attention(query_PATD, key_PATD, value_PATD)
        return self.out_proj(attended_PATD.transpose(1, 2).flatten(2))

    def _split(self, projected: Tensor, rows_P: Tensor | None) -> Tensor:
        by_head = projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return spread(by_head, rows_P)


def spread(rows_U: Tensor, index_P: Tensor | None) -> Tensor:
    """Return `rows_U[index_P]`, or `rows_U` where the index is None; a single row is returned as a view, not a copy."""
    if index_P is None:
        return rows_U
    if len(rows_U) == 1:
        return rows_U.expand(len(index_P), *rows_U.shape[1:])
    return rows_U[index_P]
