"""Optimizers of a training: Muon for weight matrices with AdamW for the rest, or AdamW alone as in the paper.

Muon (K. Jordan 2024) replaces the momentum of a weight matrix by the nearest semi-orthogonal matrix, found by a few
Newton-Schulz iterations, so that rare directions learn as fast as common ones. Its step is scaled by sqrt(max(rows,
columns)) to a fixed size per entry ("Muon is scalable for LLM training", 2025), so that one learning-rate schedule
serves both optimizers. Learning rates may differ by layer.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engine.model.image_encoder import ImageEncoder
from engine.training.peers import Peers

OptimizerKind = Literal["muon", "adamw"]
STEP_RMS = 0.8
"""Size of an entry's step, as a multiple of the learning rate. AdamW has about 0.2; small networks trained briefly take
larger steps.
"""
NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5
MUON_MOMENTUM = 0.95
MIN_INPUTS = 28
"""Minimum inputs per output of a layer that Muon trains; AdamW trains layers with fewer (3 x 3 on RGB, depthwise 3 x 3,
2 x 2).
"""


class Muon(torch.optim.Optimizer):
    """Muon optimizer for parameters of two or more dimensions; convolutions count as [out, in * height * width].

    The n processes that train together share the work: each process orthogonalises the matrices of every n-th shape,
    and all processes exchange the results. The results do not depend on n.
    """

    def __init__(
        self, parameters: list[Tensor] | list[dict[str, Any]], *, lr: float, weight_decay: float, peers: Peers
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._peers = peers

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; the gradients must be equal on every process. Parameters without a gradient are skipped."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = self._updates(parameters)
            self._peers.sum(updates)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _updates(self, parameters: list[Tensor]) -> list[Tensor]:
        """Compute this process's updates, zeros elsewhere; matrices of one shape are orthogonalised together."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        momenta = [self._momentum(parameter) for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MUON_MOMENTUM)
        # Nesterov: look one step ahead along the momentum.
        ahead = torch._foreach_lerp(gradients, momenta, MUON_MOMENTUM)
        updates = [torch.zeros_like(parameter) for parameter in parameters]
        for number, same_shape in enumerate(_by_shape(parameters)):
            if number % self._peers.count != self._peers.rank:
                continue
            matrices_NRC = orthogonalise(torch.stack([ahead[index].flatten(1) for index in same_shape]))
            scale = STEP_RMS * max(matrices_NRC.shape[1:]) ** 0.5
            for index, matrix_RC in zip(same_shape, matrices_NRC * scale, strict=True):
                updates[index].copy_(matrix_RC.view(updates[index].shape))
        return updates

    def _momentum(self, parameter: Tensor) -> Tensor:
        state: dict[str, Any] = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum


def _by_shape(parameters: list[Tensor]) -> list[list[int]]:
    """Group the indices of parameters whose matrices have the same shape, in order of first appearance."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, parameter in enumerate(parameters):
        groups.setdefault((len(parameter), parameter[0].numel()), []).append(index)
    return list(groups.values())


def orthogonalise(matrices_NRC: Tensor) -> Tensor:
    """Approximate the semi-orthogonal matrix nearest to each of N matrices (singular values in 0.7 to 1.2).

    The result has the shape and dtype of `matrices_NRC`.
    """
    tall = matrices_NRC.shape[-2] > matrices_NRC.shape[-1]
    iterate = (matrices_NRC.mT if tall else matrices_NRC).to(torch.bfloat16)
    iterate = iterate / (iterate.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in NEWTON_SCHULZ:
        gram = iterate @ iterate.mT
        iterate = a * iterate + (b * gram + c * gram @ gram) @ iterate
    return (iterate.mT if tall else iterate).to(matrices_NRC.dtype)


def make_optimizers(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    peers: Peers,
    kind: OptimizerKind = "muon",
    layer_decay: float = 1.0,
) -> tuple[torch.optim.Optimizer, ...]:
    """Make optimizers of the model's weights; only weights of linear and convolution layers decay.

    With `kind` "muon", Muon trains the weights of linear and convolution layers, except the first layer's, and AdamW
    trains all other weights. With `kind` "adamw", AdamW trains all weights. Each parameter group of an optimizer has a
    `rate_scale` (see `rate_scales`), by which `set_rate` multiplies the schedule's learning rate.
    """
    matrices: list[Tensor] = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
        and (kind == "adamw" or module.weight[0].numel() >= MIN_INPUTS)
    ]
    taken = {id(matrix) for matrix in matrices}
    others: list[Tensor] = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    scales = rate_scales(model, layer_decay)
    decayed, plain = _groups(matrices, scales, lr), _groups(others, scales, lr)
    if kind == "muon":
        return (
            Muon(decayed, lr=lr, weight_decay=weight_decay, peers=peers),
            torch.optim.AdamW(plain, lr=lr, weight_decay=0.0, betas=betas),
        )
    groups = [group | {"weight_decay": weight_decay} for group in decayed] + plain
    return (torch.optim.AdamW(groups, lr=lr, weight_decay=0.0, betas=betas),)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each parameter group to `rate` times the group's `rate_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_scale", 1.0)


def rate_scales(model: nn.Module, decay: float) -> dict[int, float]:
    """Map each parameter's Python `id` to the parameter's factor on the learning rate.

    This is layer-wise learning-rate decay (Bao et al. 2022; Li et al. 2022). The image encoder's neck and
    the layers after the encoder have factor 1. The encoder's last block has `decay`, the block before it `decay`
    squared, and so on. The patch embedding and the positions have `decay` times the first block's factor.

    Raises:
        ValueError: The decay is not 1 and the model's encoder is no ViT.
    """
    if decay == 1.0:
        return {id(parameter): 1.0 for parameter in model.parameters()}
    encoder = getattr(model, "image_encoder", None)
    if not isinstance(encoder, ImageEncoder):
        raise ValueError(
            f"layer_decay {decay}: got a model with a {type(encoder).__name__}, expected a ViT: only its layers are "
            "numbered; use layer_decay 1"
        )
    scales = {id(parameter): 1.0 for parameter in model.parameters()}
    depth = len(encoder.blocks)
    layers = [[*encoder.patch_embed.parameters(), encoder.pos_embed], *(block.parameters() for block in encoder.blocks)]
    for number, parameters in enumerate(layers):
        scales |= {id(parameter): decay ** (depth + 1 - number) for parameter in parameters}
    return scales


def _groups(parameters: list[Tensor], scales: dict[int, float], lr: float) -> list[dict[str, Any]]:
    """Group parameters by their factor on the learning rate, largest factor first."""
    by_scale: dict[float, list[Tensor]] = {}
    for parameter in parameters:
        by_scale.setdefault(scales[id(parameter)], []).append(parameter)
    return [
        {"params": by_scale[scale], "lr": lr * scale, "rate_scale": scale} for scale in sorted(by_scale, reverse=True)
    ]
