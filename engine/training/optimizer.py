"""Muon for the weight matrices, AdamW for everything else.

Muon (K. Jordan 2024): the momentum of a weight matrix is replaced by the nearest semi-orthogonal matrix, found by a
few Newton-Schulz iterations, so that rare directions learn as fast as common ones. Its step is scaled by
sqrt(max(rows, columns)) to a fixed size per entry ("Muon is scalable for LLM training", 2025), so that one
learning-rate schedule serves both optimizers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from engine.training.peers import Peers

STEP_RMS = 0.8
"""Size of an entry's step over the learning rate. AdamW's is about 0.2; small nets trained briefly take larger ones."""
NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5
MUON_MOMENTUM = 0.95
FEWEST_INPUTS = 28
"""Layers with fewer inputs per output (RGB's 3 x 3 x 3, depthwise 3 x 3, a mask prompt's 2 x 2) go to AdamW."""


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions; convolutions count as [out, in * height * width].

    Processes that train together share the work: each orthogonalises every n-th matrix and all exchange the results,
    which therefore do not depend on how many processes there are.
    """

    def __init__(self, parameters: list[Tensor], *, lr: float, weight_decay: float, peers: Peers) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._peers = peers

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with gradients that are the same on every process; parameters without one stay."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = [self._update(parameter, number) for number, parameter in enumerate(parameters)]
            self._peers.sum(updates)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _update(self, parameter: Tensor, number: int) -> Tensor:
        state: dict[str, Any] = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        momentum = state["momentum"].lerp_(parameter.grad, 1 - MUON_MOMENTUM)
        if number % self._peers.count != self._peers.rank:
            return torch.zeros_like(parameter)
        # Nesterov: look one step ahead along the momentum.
        ahead = parameter.grad.lerp(momentum, MUON_MOMENTUM)
        matrix_RC = orthogonalise(ahead.flatten(1))
        update = torch.zeros_like(parameter)
        return update.copy_((matrix_RC * STEP_RMS * max(matrix_RC.shape) ** 0.5).view(ahead.shape))


def orthogonalise(matrix_RC: Tensor) -> Tensor:
    """About the semi-orthogonal matrix nearest to this one (singular values between 0.7 and 1.2), in its dtype."""
    tall = matrix_RC.shape[0] > matrix_RC.shape[1]
    iterate = (matrix_RC.T if tall else matrix_RC).to(torch.bfloat16)
    iterate = iterate / (iterate.norm() + 1e-7)
    for a, b, c in NEWTON_SCHULZ:
        gram = iterate @ iterate.T
        iterate = a * iterate + (b * gram + c * gram @ gram) @ iterate
    return (iterate.T if tall else iterate).to(matrix_RC.dtype)


def make_optimizers(
    model: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float], peers: Peers
) -> tuple[Muon, torch.optim.AdamW]:
    """Muon on the weights of linear and convolution layers past the first, AdamW without decay on all else."""
    matrices = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and module.weight[0].numel() >= FEWEST_INPUTS
    ]
    taken = {id(matrix) for matrix in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    return (
        Muon(matrices, lr=lr, weight_decay=weight_decay, peers=peers),
        torch.optim.AdamW(others, lr=lr, weight_decay=0.0, betas=betas),
    )
