"""Attention between a mask decoder's tokens and an image's cells: tokens attend to all cells, and cells to the tokens.

The projections of the image are applied to the tokens instead, so queries, keys and values of a head are as wide as
the image. "Segment Anything", fig. 14, shows the layers; `engine.model.grid_decoder` explains the algebra. The
reference is plain torch. On a GPU, Triton kernels compute either direction in one pass.

Shape suffixes: P points, T tokens of a point, A heads, S = A T rows (head after head), N cells of the embedding,
C channels.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

Backend = Literal["reference", "triton"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Image embedding of each of P points and encoded position of each of N cells."""

    image_PNC: Tensor
    """Image embedding of each point; an expanded view of one embedding while all points share it."""
    position_NC: Tensor
    """Encoded position of each cell, in the dtype of the image."""

    @cached_property
    def placed_PNC(self) -> Tensor:
        """Sum of image and position, for the reference functions; the Triton kernels compute this sum tile by tile."""
        return self.image_PNC + self.position_NC


def attend_to_cells(moved_PSC: Tensor, cells: Cells, *, backend: Backend = "reference") -> Tensor:
    """Average the image embedding over all cells, with softmax weights, for each of S query rows; return [P, S, C].

    Args:
        moved_PSC: scaled queries times the key projection. The score of a cell for a query row is the dot product
            of this row and the cell's row of `cells.placed_PNC`.
        backend: "triton" needs cells on a CUDA device or Triton's interpreter. This backend has no gradients, and sums
            in float32 for every dtype.

    Raises:
        ValueError: The backend is unknown, or "triton" got cells that are neither float32 nor bfloat16.
        RuntimeError: The Triton backend cannot run here.
    """
    if backend == "reference":
        weights_PSN = torch.bmm(moved_PSC, cells.placed_PNC.transpose(1, 2)).softmax(dim=-1)
        return torch.bmm(weights_PSN, cells.image_PNC)
    if backend == "triton":
        _check_triton()
        from engine.kernels.decoder_attention_triton import attend_to_cells_triton

        return attend_to_cells_triton(moved_PSC, cells)
    raise ValueError(f"got backend {backend!r}, expected 'reference' or 'triton'")


def attend_to_tokens(
    cells: Cells,
    keys_PATC: Tensor,
    bias_PAT: Tensor,
    values_PATC: Tensor,
    norm: nn.LayerNorm,
    *,
    backend: Backend = "reference",
) -> Tensor:
    """Attend from each cell of the image embedding to the tokens, add the residual and apply `norm`; return [P, N, C].

    Args:
        keys_PATC: scaled keys times the query projection. The score of a token in a cell is the dot product of the
            token's row and the cell's row of `cells.placed_PNC`, plus the token's value in `bias_PAT`.
        bias_PAT: bias of the query projection times the scaled keys.
        values_PATC: values times the out projection; the bias of the out projection is split evenly over the heads.
        backend: the same as in `attend_to_cells`.

    Raises:
        ValueError: The backend is unknown, or "triton" got cells that are neither float32 nor bfloat16.
        RuntimeError: The Triton backend cannot run here.
    """
    if backend == "reference":
        bias_PS1, keys_PSC = bias_PAT.flatten(1)[:, :, None], keys_PATC.flatten(1, 2)
        scores_PSN = torch.baddbmm(bias_PS1, keys_PSC, cells.placed_PNC.transpose(1, 2))
        scores_PATN = scores_PSN.unflatten(1, bias_PAT.shape[1:])
        return attend_by_score(cells.image_PNC, scores_PATN, values_PATC, norm)
    if backend == "triton":
        _check_triton()
        from engine.kernels.decoder_attention_triton import attend_to_tokens_triton

        return attend_to_tokens_triton(cells, keys_PATC, bias_PAT, values_PATC, norm)
    raise ValueError(f"got backend {backend!r}, expected 'reference' or 'triton'")


def attend_by_score(image_PNC: Tensor, scores_PATN: Tensor, values_PATC: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Update the image embedding in torch from the scores of tokens in each cell; return [P, N, C].

    The steps are softmax over the tokens, weighted sum of the values, residual and layer norm.
    """
    weights_PSN = scores_PATN.softmax(dim=2).flatten(1, 2)
    return norm(torch.baddbmm(image_PNC, weights_PSN.transpose(1, 2), values_PATC.flatten(1, 2)))


@lru_cache(maxsize=16)
def fastest_backend(device: torch.device, dtype: torch.dtype, width: int, heads: int) -> Backend:
    """Choose the fastest backend for embeddings of `width` channels and attention of `heads` heads on `device`.

    The choice is logged once for the same arguments.
    """
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
        raise RuntimeError(f"the Triton backend of decoder_attention cannot run: {error}; install triton") from error


def _check_room(device: torch.device, dtype: torch.dtype, width: int, heads: int) -> None:
    from engine.kernels.decoder_attention_triton import MAX_HEADS, MAX_WIDTH, SHARED_BYTES

    needed = SHARED_BYTES.get(dtype)
    has = getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 0)  # AMD's lack it
    if needed is None or width > MAX_WIDTH or heads > MAX_HEADS:
        raise RuntimeError(
            f"the Triton backend is for bfloat16 or float32, up to {MAX_WIDTH} channels and {MAX_HEADS} heads"
        )
    if has < needed:
        raise RuntimeError(f"Triton needs {needed} bytes of shared memory for {dtype}, the GPU reports {has}")
