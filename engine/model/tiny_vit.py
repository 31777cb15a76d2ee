"""TinyViT-5M image encoder of MobileSAM, under its released parameter names (Wu et al. 2022; Zhang et al. 2023).

Inverted residual convolutions at stride 4, then three stages of attention within windows at strides 8, 16 and 16. The
last merging keeps the size of the grid, so that the embedding has SAM's stride. Relative positions are a table over the
absolute distance of rows and of columns. Queries, keys and values are projected before windows are padded (the padding
is then the projection of a zero token, one vector), which does not change the function.

Shape suffixes: B batch or windows, H and W rows and columns of a map, N = H * W cells of a window, C channels, A heads,
D channels of a head, X the 3 C channels of queries, keys and values together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.config import TinyVitConfig
from engine.model.layers import embedding_neck
from engine.model.windows import cut_windows, join_windows

CLASSES = 1000
"""Number of outputs of the pretraining classifier, which is part of the released weights and never used."""


class TinyVit(nn.Module):
    """Image encoder from normalised pixels to an embedding at stride 16."""

    stride = TinyVitConfig.stride

    def __init__(self, config: TinyVitConfig, out_width: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(config.widths[0])
        self.layers = nn.ModuleList(make_stage(config, index) for index in range(4))
        self.norm_head = nn.LayerNorm(config.widths[3])
        self.head = nn.Linear(config.widths[3], CLASSES)
        self.neck = embedding_neck(config.widths[3], out_width)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """Encode normalised pixels, float [B, 3, H, W], as embeddings [B, out_width, H/16, W/16].

        Raises:
            ValueError: The height H or the width W is not a multiple of 16.
        """
        height, width = pixels_B3HW.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(f"got pixels of {height} x {width}, expected sides that are multiples of {self.stride}")
        # attention needs channels last, and a convolution reads them so without copying
        features_BCHW = self.patch_embed(pixels_B3HW.contiguous(memory_format=torch.channels_last))
        for layer in self.layers:
            features_BCHW = layer(features_BCHW)
        return self.neck(features_BCHW).contiguous()


class PatchEmbedding(nn.Module):
    """Two convolutions from pixels to features at stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            conv_norm(3, width // 2, side=3, stride=2), nn.GELU(), conv_norm(width // 2, width, side=3, stride=2)
        )

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        return self.seq(pixels_B3HW)


class Stage(nn.Module):
    """Blocks of one stage and, in all stages but the last, the transition to the next stage."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, features_BCHW: Tensor) -> Tensor:
        for block in self.blocks:
            features_BCHW = block(features_BCHW)
        return features_BCHW if self.downsample is None else self.downsample(features_BCHW)


def make_stage(config: TinyVitConfig, index: int) -> Stage:
    """Make the stage number `index`: convolutions in stage 0, attention in stages 1 to 3.

    The transition after stage 0 or 1 halves the sides of the grid; the transition after stage 2 keeps the sides.
    """
    width = config.widths[index]
    blocks: list[nn.Module] = [
        ConvolutionBlock(width, config.mlp_ratio * width)
        if index == 0
        else AttentionBlock(width, config.heads[index - 1], config.window_sides[index - 1], config.mlp_ratio * width)
        for _ in range(config.depths[index])
    ]
    merging = PatchMerging(width, config.widths[index + 1], stride=1 if index == 2 else 2) if index < 3 else None
    return Stage(blocks, merging)


class ConvolutionBlock(nn.Module):
    """Inverted residual block of three convolutions: one widens, one works channel by channel, one narrows."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.conv1 = conv_norm(width, hidden_width)
        self.conv2 = conv_norm(hidden_width, hidden_width, side=3, groups=hidden_width)
        self.conv3 = conv_norm(hidden_width, width)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(features_BCHW))))
        return F.gelu(features_BCHW + self.conv3(hidden))


class PatchMerging(nn.Module):
    """Transition between two stages, which changes the width and, at stride 2, halves the sides of the grid."""

    def __init__(self, width: int, out_width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_norm(width, out_width)
        self.conv2 = conv_norm(out_width, out_width, side=3, stride=stride, groups=out_width)
        self.conv3 = conv_norm(out_width, out_width)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(features_BCHW)))))


class AttentionBlock(nn.Module):
    """Attention within windows, followed by a depthwise convolution across window borders and a perceptron."""

    def __init__(self, width: int, heads: int, window_side: int, mlp_width: int) -> None:
        super().__init__()
        self.attn = WindowAttention(width, heads, window_side)
        self.local_conv = conv_norm(width, width, side=3, groups=width)
        self.mlp = NormedMlp(width, mlp_width)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        tokens_BHWC = features_BCHW.permute(0, 2, 3, 1)
        tokens_BHWC = tokens_BHWC + self.attn(tokens_BHWC)
        tokens_BHWC = self.local_conv(tokens_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (tokens_BHWC + self.mlp(tokens_BHWC)).permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    """Pre-norm attention within windows of the grid."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))

    def forward(self, tokens_BHWC: Tensor) -> Tensor:
        qkv_BHWX = self.qkv(self.norm(tokens_BHWC))
        padding_X = self.qkv(self.norm.bias)  # projection of a zero token
        windows_BHWX = cut_windows(qkv_BHWX, self.side, padding=padding_X)
        # each head's queries, keys and values lie side by side
        query_BAND, key_BAND, value_BAND = (
            windows_BHWX.flatten(1, 2).unflatten(2, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4).unbind()
        )
        bias_ANN = self.attention_biases[:, distances(self.side, self.attention_biases.device)].to(query_BAND.dtype)
        attended_BAND = F.scaled_dot_product_attention(query_BAND, key_BAND, value_BAND, attn_mask=bias_ANN)
        attended_BHWC = attended_BAND.transpose(1, 2).flatten(2).unflatten(1, (self.side, self.side))
        return self.proj(join_windows(attended_BHWC, tuple(tokens_BHWC.shape[:3])))


class NormedMlp(nn.Module):
    """Layer norm followed by a two-layer perceptron."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(tokens))))


def distances(side: int, device: torch.device) -> Tensor:
    """Compute |row distance| * side + |column distance| for all pairs of the N = side * side cells, int64 [N, N]."""
    cells_N = torch.arange(side * side, device=device)
    rows_N, columns_N = cells_N // side, cells_N % side
    rows_apart_NN = (rows_N[:, None] - rows_N[None, :]).abs()
    return rows_apart_NN * side + (columns_N[:, None] - columns_N[None, :]).abs()


def conv_norm(width_in: int, width_out: int, *, side: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Make a padded convolution, named `c`, and a batch norm, named `bn`."""
    layers = nn.Sequential()
    layers.add_module(
        "c", nn.Conv2d(width_in, width_out, side, stride=stride, padding=side // 2, groups=groups, bias=False)
    )
    layers.add_module("bn", nn.BatchNorm2d(width_out))
    return layers
