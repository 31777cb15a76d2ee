"""Random numbers for scenes, drawn on the host so that sizes are known without waiting for a device."""

import math
from collections.abc import Sequence

import torch


class RandomDraws:
    """Source of random numbers from one CPU generator; every method returns a new tensor of the given shape."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Draw float32 numbers, uniform in [low, high)."""
        return torch.rand(shape, generator=self.generator) * (high - low) + low

    def log_uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Draw float32 numbers in [low, high) whose logarithms are uniform."""
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def normal(self, *shape: int) -> torch.Tensor:
        """Draw float32 numbers from the standard normal distribution."""
        return torch.randn(shape, generator=self.generator)

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """Draw int64 numbers, uniform in [low, high)."""
        return torch.randint(low, high, shape, generator=self.generator)

    def chance(self, probability: float | torch.Tensor, *shape: int) -> torch.Tensor:
        """Draw bools that are true with this probability."""
        return torch.rand(shape, generator=self.generator) < probability

    def choose(self, weights: Sequence[float], *shape: int) -> torch.Tensor:
        """Draw int64 indices into `weights`, with probabilities proportional to the weights."""
        edges = torch.tensor(weights, dtype=torch.float32).cumsum(0)
        picks = torch.rand(shape, generator=self.generator) * edges[-1]
        return torch.bucketize(picks, edges, right=True).clamp_(max=len(weights) - 1)
