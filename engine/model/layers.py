"""Small layers that several parts of SAM share, under the original release's parameter names."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each cell of a [B, C, H, W] map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        features_BHWC = features_BCHW.permute(0, 2, 3, 1)
        normed_BHWC = F.layer_norm(features_BHWC, self.weight.shape, self.weight, self.bias, 1e-6)
        return normed_BHWC.permute(0, 3, 1, 2)


class TransformerMlp(nn.Module):
    """Two-layer perceptron of a transformer block; the activation is GELU in the image encoder, ReLU in the decoder."""

    def __init__(self, width: int, hidden_width: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden_width)
        self.lin2 = nn.Linear(hidden_width, width)
        self.activation = activation

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lin2(self.activation(self.lin1(tokens)))


class Perceptron(nn.Module):
    """Stack of `depth` linear layers with ReLU between them, for the decoder's heads."""

    def __init__(self, width_in: int, hidden_width: int, width_out: int, depth: int) -> None:
        super().__init__()
        widths = [width_in, *[hidden_width] * (depth - 1), width_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            tokens = F.relu(layer(tokens))
        return self.layers[-1](tokens)


def embedding_neck(width: int, out_width: int) -> nn.Sequential:
    """Make the convolutions that turn an encoder's last features into an embedding of `out_width` channels."""
    return nn.Sequential(
        nn.Conv2d(width, out_width, kernel_size=1, bias=False),
        LayerNorm2d(out_width),
        nn.Conv2d(out_width, out_width, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_width),
    )


def make_embedding(rows: int, width: int) -> nn.Embedding:
    """Make an embedding with the weights that `nn.Embedding` begins with."""
    return nn.Embedding(rows, width, _weight=random_normal(rows, width))


def random_normal(rows: int, width: int) -> Tensor:
    """Draw a matrix as `torch.randn` does; on the device "meta", where there is nothing to draw, leave it empty.

    There, torch's own functions import its compiler and sympy, which costs a second of every process.
    """
    matrix = torch.empty(rows, width)
    return matrix if matrix.is_meta else matrix.normal_()
