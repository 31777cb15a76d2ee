"""Low-rank updates of an encoder's attention: little to train where the whole encoder is too much.

Each `qkv` projection W of the encoder becomes W + B A, with A of [rank, inputs] and B of [outputs, rank]; A and B alone
are trained (LoRA, Hu et al. 2021). `merge` turns the sums into ordinary weights, so that the trained network has the
names and the speed of any other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PROJECTION = "qkv"
"""Name that all encoders give to the linear layer that makes queries, keys and values."""


class LowRankLinear(nn.Linear):
    """Linear layer that stays as it is, plus a trained product of two thin matrices, which begins as zero."""

    def __init__(self, layer: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        down_RI = torch.randn(rank, layer.in_features, generator=generator) / layer.in_features**0.5
        self.down_RI = nn.Parameter(down_RI.to(layer.weight))
        self.up_OR = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Linear
        """Apply the layer with its update: [..., inputs] to [..., outputs]."""
        return F.linear(input, self.merged_weight(), self.bias)

    def merged_weight(self) -> Tensor:
        """Return the weight with its update, [outputs, inputs]."""
        return self.weight + self.up_OR @ self.down_RI


def add_low_rank(encoder: nn.Module, rank: int, seed: int) -> None:
    """Give each `qkv` projection of a frozen encoder a low-rank update that can be trained.

    Raises:
        ValueError: The encoder has no such projection, or one is too small for the rank.
    """
    layers = {
        name: module
        for name, module in encoder.named_modules()
        if name.rpartition(".")[2] == PROJECTION and isinstance(module, nn.Linear)
    }
    if not layers:
        raise ValueError(
            f"lora_rank {rank}: got a {type(encoder).__name__}, which has no {PROJECTION} projections; expected 0"
        )
    side = min(min(layer.weight.shape) for layer in layers.values())
    if rank >= side:
        raise ValueError(
            f"lora_rank {rank}: expected less than {side}, the smaller side of the encoder's {PROJECTION} projections; "
            "trains_encoder trains all of it"
        )
    generator = torch.Generator().manual_seed(seed)
    for name, layer in layers.items():
        encoder.set_submodule(name, LowRankLinear(layer, rank, generator))


@torch.no_grad()
def merge(encoder: nn.Module) -> None:
    """Make the sums of an encoder's projections and their updates ordinary weights."""
    for name, module in list(encoder.named_modules()):
        if isinstance(module, LowRankLinear):
            layer = nn.Linear(module.in_features, module.out_features, device="meta")
            layer.weight, layer.bias = nn.Parameter(module.merged_weight(), requires_grad=False), module.bias
            encoder.set_submodule(name, layer)
