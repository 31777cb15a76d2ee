"""Image encoder of the seed model: convolutions down to stride 16, attention at stride 16, merge at stride 8.

SAM's decoder has no skip connection, so the embedding must hold all detail of the masks, down to stride 2. Strided
convolutions (space to depth and a matrix product) therefore bring the finer stages into the stride-8 grid, beside the
usual top-down path. Nothing depends on the position in the image, so the encoder runs on any window whose sides are
multiples of 16. Training on small windows of the input is therefore valid.

Shape suffixes: B batch, C channels, H and W rows and columns of a map, T = H * W tokens, N heads.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.config import HybridConfig


class HybridEncoder(nn.Module):
    """Image encoder from normalised pixels to an embedding at stride 8."""

    stride = HybridConfig.stride
    window_multiple = HybridConfig.window_multiple

    def __init__(self, config: HybridConfig, out_width: int) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = config.widths
        self.stage2 = conv_norm_relu(3, half, stride=2)
        self.stage4 = nn.Sequential(
            conv_norm_relu(half, quarter, stride=2), *(ResidualBlock(quarter) for _ in range(config.residual_blocks))
        )
        self.stage8 = nn.Sequential(
            conv_norm_relu(quarter, eighth, stride=2), *(ResidualBlock(eighth) for _ in range(config.residual_blocks))
        )
        self.stage16 = nn.Sequential(
            conv_norm_relu(eighth, sixteenth, stride=2),
            *(
                AttentionBlock(sixteenth, config.attention_heads, config.mlp_ratio * sixteenth)
                for _ in range(config.attention_blocks)
            ),
        )
        self.lateral2 = nn.Conv2d(half, out_width, kernel_size=4, stride=4)
        self.lateral4 = nn.Conv2d(quarter, out_width, kernel_size=2, stride=2)
        self.lateral8 = nn.Conv2d(eighth, out_width, kernel_size=1)
        self.lateral16 = nn.Conv2d(sixteenth, out_width, kernel_size=1)
        self.merge = conv_norm_relu(out_width, out_width)
        self.project = nn.Conv2d(out_width, out_width, kernel_size=1)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """Encode normalised pixels, float [B, 3, H, W], as embeddings [B, out_width, H/8, W/8].

        Raises:
            ValueError: The height H or the width W is not a multiple of 16.
        """
        height, width = pixels_B3HW.shape[-2:]
        if height % self.window_multiple or width % self.window_multiple:
            raise ValueError(
                f"input of {height} x {width} px: both sides must be multiples of {self.window_multiple}; pad it"
            )
        half = self.stage2(pixels_B3HW)
        quarter = self.stage4(half)
        eighth = self.stage8(quarter)
        sixteenth = self.stage16(eighth)
        coarse = F.interpolate(self.lateral16(sixteenth), scale_factor=2.0, mode="bilinear", align_corners=False)
        merged = self.lateral8(eighth) + self.lateral4(quarter) + self.lateral2(half) + coarse
        return self.project(self.merge(merged))


class ResidualBlock(nn.Module):
    """Residual block of two 3x3 convolutions with a shortcut, initialised to the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm_relu(channels, channels)
        self.second = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return F.relu(features_BCHW + self.norm(self.second(self.first(features_BCHW))))


class AttentionBlock(nn.Module):
    """Pre-norm transformer block over all cells, with a depthwise convolution instead of position embeddings."""

    def __init__(self, channels: int, heads: int, mlp_channels: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels)
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp1 = nn.Linear(channels, mlp_channels)
        self.mlp2 = nn.Linear(mlp_channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.mlp2.weight)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        features_BCHW = features_BCHW + self.position(features_BCHW)
        batch, channels, height, width = features_BCHW.shape
        tokens_BTC = features_BCHW.flatten(2).transpose(1, 2)
        tokens_BTC = tokens_BTC + self.out(self._attend(self.norm1(tokens_BTC)))
        tokens_BTC = tokens_BTC + self.mlp2(F.gelu(self.mlp1(self.norm2(tokens_BTC))))
        return tokens_BTC.transpose(1, 2).reshape(batch, channels, height, width)

    def _attend(self, tokens_BTC: Tensor) -> Tensor:
        batch, count, channels = tokens_BTC.shape
        qkv = self.qkv(tokens_BTC).view(batch, count, 3, self.heads, channels // self.heads)
        query_BNTC, key_BNTC, value_BNTC = qkv.permute(2, 0, 3, 1, 4)
        attended_BNTC = F.scaled_dot_product_attention(query_BNTC, key_BNTC, value_BNTC)
        return attended_BNTC.transpose(1, 2).reshape(batch, count, channels)


def conv_norm_relu(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    """Make a 3x3 convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )
