"""Attention between a mask decoder's tokens and an image's cells: tokens attend to all cells, and cells to the tokens.

Both in the form in which the projections of the image are moved onto the tokens ("Segment Anything", fig. 14, has the
layers; `engine.model.grid_decoder` the algebra): a token of a head asks with a vector as wide as the image, and is
answered with one. The twins in plain torch are the specification; on a GPU Triton kernels do either in one pass.

P points, T tokens of a point, A heads, S = A T rows (head by head), N cells of the embedding, C channels.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

Implementation = Literal["reference", "triton"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The image as each of P points sees it."""

    image_PNC: Tensor
    """While it is the same for every point: one image, expanded."""
    position_NC: Tensor
    """Encodes where a cell lies; of the image's dtype."""

    @cached_property
    def placed_PNC(self) -> Tensor:
        """Image and position added up, once for both of a block's plain twins; a kernel adds them as it goes."""
        return self.image_PNC + self.position_NC


def attend_to_cells(moved_PSC: Tensor, cells: Cells, *, implementation: Implementation = "reference") -> Tensor:
    """For each row the image's mean, weighed by a softmax over the cells; [P, S, C].

    Args:
        moved_PSC: what is compared with image + position: queries, scaled, times the key projection.
        implementation: "triton" needs cells on a CUDA device or Triton's interpreter, knows no gradients, and adds up
            in float32 whatever the dtype.

    Raises:
        ValueError: an unknown implementation; for "triton", cells neither float32 nor bfloat16.
        RuntimeError: Triton is asked for and cannot run here.
    """
    if implementation == "reference":
        weights_PSN = torch.bmm(moved_PSC, cells.placed_PNC.transpose(1, 2)).softmax(dim=-1)
        return torch.bmm(weights_PSN, cells.image_PNC)
    if implementation == "triton":
        _check_triton()
        from engine.kernels.decoder_attention_triton import attend_to_cells_triton

        return attend_to_cells_triton(moved_PSC, cells)
    raise ValueError(f"got implementation {implementation!r}, expected 'reference' or 'triton'")


def attend_to_tokens(
    cells: Cells,
    keys_PATC: Tensor,
    bias_PAT: Tensor,
    values_PATC: Tensor,
    norm: nn.LayerNorm,
    *,
    implementation: Implementation = "reference",
) -> Tensor:
    """The image after each cell attended to the tokens, residual and norm included; [P, N, C].

    Args:
        keys_PATC: what image + position is compared with: keys, scaled, times the query projection.
        bias_PAT: the query projection's bias times the scaled keys: added to a token's score in every cell.
        values_PATC: values times the out projection, whose bias is shared out among the heads.
        implementation: see `attend_to_cells`, also for what is raised.
    """
    if implementation == "reference":
        bias_PS1, keys_PSC = bias_PAT.flatten(1)[:, :, None], keys_PATC.flatten(1, 2)
        scores_PSN = torch.baddbmm(bias_PS1, keys_PSC, cells.placed_PNC.transpose(1, 2))
        scores_PATN = scores_PSN.unflatten(1, bias_PAT.shape[1:])
        return attend_by_score(cells.image_PNC, scores_PATN, values_PATC, norm)
    if implementation == "triton":
        _check_triton()
        from engine.kernels.decoder_attention_triton import attend_to_tokens_triton

        return attend_to_tokens_triton(cells, keys_PATC, bias_PAT, values_PATC, norm)
    raise ValueError(f"got implementation {implementation!r}, expected 'reference' or 'triton'")


def attend_by_score(image_PNC: Tensor, scores_PATN: Tensor, values_PATC: Tensor, norm: nn.LayerNorm) -> Tensor:
    """`attend_to_tokens` once each cell's score for each token is known, in plain torch."""
    weights_PSN = scores_PATN.softmax(dim=2).flatten(1, 2)
    return norm(torch.baddbmm(image_PNC, weights_PSN.transpose(1, 2), values_PATC.flatten(1, 2)))


@lru_cache(maxsize=16)
def fastest(device: torch.device, dtype: torch.dtype, width: int, heads: int) -> Implementation:
    """What suits an image of `width` channels and so many heads on this device and can run there; says once which."""
    if device.type != "cuda":
        return "reference"
    try:
        _check_triton()
        _check_room(device, dtype, width, heads)
    except RuntimeError as error:
        logger.warning("decoder_attention: plain torch, four times the memory traffic (%s)", error)
        return "reference"
    logger.info("decoder_attention: triton")
    return "triton"


def _check_triton() -> None:
    try:
        import engine.kernels.decoder_attention_triton  # noqa: F401
    except ImportError as error:
        raise RuntimeError(f"the Triton twin of decoder_attention cannot run: {error}; install triton") from error


def _check_room(device: torch.device, dtype: torch.dtype, width: int, heads: int) -> None:
    from engine.kernels.decoder_attention_triton import LARGEST_WIDTH, MOST_HEADS, SHARED_BYTES

    needed = SHARED_BYTES.get(dtype)
    has = getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 0)  # AMD's do not say
    if needed is None or width > LARGEST_WIDTH or heads > MOST_HEADS:
        raise RuntimeError(
            f"the Triton twin is for bfloat16 or float32, up to {LARGEST_WIDTH} channels and {MOST_HEADS} heads"
        )
    if has < needed:
        raise RuntimeError(f"the Triton twin needs {needed} bytes of shared memory for {dtype}, the GPU reports {has}")
