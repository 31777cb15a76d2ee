"""Triton backend of `decoder_attention`: each kernel reads a point's image once; `to_tokens_kernel` also writes it.

`to_cells_kernel` walks over a point's cells with a running softmax (FlashAttention, Dao et al. 2022).
`to_tokens_kernel` computes scores, softmax over the tokens of a head, values, residual and layer norm of a tile of
cells while it is on the chip.
Both kernels add positions on the chip, so image + position is never stored. The first block's image is the same for all
points: it stays in the GPU's cache, and only the result is written.

Passes over a point's [N, 256] image in a decoder of two blocks and a last attention, counted, not measured (the tests
count the calls); a pass reads or writes every value once:

    reference     21.5   each operation with its operands once; scores and weights are 0.2 of a pass each
    kernels        5     block 1: written; block 2: read, then read and written; last attention: read

SAM's 64 x 64 cells in bfloat16 are 2 MiB a pass: 1,024 points move 10 GiB with the kernels, 43 GiB without.
Matrix products, with padding to 8 tokens, take 229 kFLOP per cell and point: 0.96 TFLOP for 1,024 points.

Scores, weights and sums are float32 whatever the image's dtype. Factors of products have the image's dtype; those of
float32 are multiplied as float32, not as TF32. On an H200 256 points took 6 ms with the kernels and 17 ms in plain
torch (ViT-B and ViT-H, bfloat16). Tile sizes were chosen by the compiler's report: at 256 channels, 8 heads at most 88
KiB of shared memory and no spilled register in bfloat16, 144 KiB and 200 spilled bytes a thread in float32. One program
walks over all cells of a point, so fewer than about 130 points per batch leave part of an H100 idle.

Shape suffixes: P points, T tokens of a point, A heads, S = A T rows, N cells, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from engine.kernels.decoder_attention import Cells

_MIN_TILE_SIDE = 16
"""Smallest number of rows, of columns and of inner elements of a matrix product that tensor cores accept."""
CELLS_OF_PROGRAM = 512
"""Number of cells per program of `to_tokens_kernel`; 8 programs per point at SAM's 64 x 64 cells."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Launch settings of a kernel."""

    cells: int
    """Number of cells in a tile."""
    num_stages: int
    """Number of stages of Triton's software pipeline."""
    num_warps: int = 8
    """Number of warps in a program."""


TO_CELLS = {torch.bfloat16: Launch(cells=32, num_stages=2), torch.float32: Launch(cells=16, num_stages=1)}
TO_TOKENS = {torch.bfloat16: Launch(cells=16, num_stages=2), torch.float32: Launch(cells=16, num_stages=1)}
SHARED_BYTES = {torch.bfloat16: 99 * 1024, torch.float32: 160 * 1024}
"""Bytes of shared memory that a program may need, by dtype; RTX 30 and 40 have 99 KiB, an A100 has 163 KiB."""
MAX_WIDTH = 256
"""Largest number of image channels that the kernels accept; SAM's ViTs have this number."""
MAX_HEADS = 8
"""Largest number of attention heads that the kernels accept; SAM's decoder has this number."""


def attend_to_cells_triton(moved_PSC: Tensor, cells: Cells) -> Tensor:
    """Compute `attend_to_cells` on a GPU or in Triton's interpreter."""
    image_PNC = _checked(cells)
    points, count, channels = image_PNC.shape
    rows = moved_PSC.shape[1]
    padded_rows = max(_MIN_TILE_SIDE, triton.next_power_of_2(rows))
    moved_PSC = F.pad(moved_PSC.to(image_PNC.dtype), (0, 0, 0, padded_rows - rows)).contiguous()
    found_PSC = torch.empty_like(moved_PSC)
    launch = TO_CELLS[image_PNC.dtype]
    if points:
        to_cells_kernel[(points,)](
            moved_PSC, image_PNC, cells.position_NC, found_PSC, count, image_PNC.stride(0),
            CHANNELS=channels, BLOCK=_block(channels), ROWS=padded_rows, CELLS=launch.cells,
            INTERPRETED=triton.knobs.runtime.interpret, num_warps=launch.num_warps, num_stages=launch.num_stages,
        )  # fmt: skip
    return found_PSC[:, :rows]


def attend_to_tokens_triton(
    cells: Cells, keys_PATC: Tensor, bias_PAT: Tensor, values_PATC: Tensor, norm: nn.LayerNorm
) -> Tensor:
    """Compute `attend_to_tokens` on a GPU or in Triton's interpreter."""
    # Pad tokens and heads to powers of two
    image_PNC = _checked(cells)
    points, count, channels = image_PNC.shape
    heads, tokens = keys_PATC.shape[1:3]
    padded_tokens = triton.next_power_of_2(tokens)
    padded_heads = max(triton.next_power_of_2(heads), _MIN_TILE_SIDE // padded_tokens)
    more = (0, 0, 0, padded_tokens - tokens, 0, padded_heads - heads)
    keys_PATC, values_PATC = (F.pad(each.to(image_PNC.dtype), more).contiguous() for each in (keys_PATC, values_PATC))
    # the bias gives padding tokens no weight; padding heads have values of zero
    bias_PAT = F.pad(bias_PAT.float(), (0, padded_tokens - tokens), value=-torch.inf)
    bias_PAT = F.pad(bias_PAT, (0, 0, 0, padded_heads - heads)).contiguous()

    # Launch
    written_PNC = torch.empty((points, count, channels), dtype=image_PNC.dtype, device=image_PNC.device)
    launch = TO_TOKENS[image_PNC.dtype]
    if points:
        to_tokens_kernel[(points, triton.cdiv(count, CELLS_OF_PROGRAM))](
            image_PNC, cells.position_NC, keys_PATC, bias_PAT, values_PATC, norm.weight, norm.bias, written_PNC,
            count, image_PNC.stride(0), norm.eps,
            CHANNELS=channels, BLOCK=_block(channels), HEADS=padded_heads, TOKENS=padded_tokens, CELLS=launch.cells,
            CELLS_OF_PROGRAM=CELLS_OF_PROGRAM, INTERPRETED=triton.knobs.runtime.interpret,
            num_warps=launch.num_warps, num_stages=launch.num_stages,
        )  # fmt: skip
    return written_PNC


def _checked(cells: Cells) -> Tensor:
    """Check that the kernels can read the cells, and return their image.

    Raises:
        ValueError: Image and positions are not both float32 or both bfloat16.
        RuntimeError: The cells are not on a CUDA device, and Triton's interpreter is off.
    """
    image_PNC, position_NC = cells.image_PNC, cells.position_NC
    if not image_PNC.is_cuda and not triton.knobs.runtime.interpret:
        raise RuntimeError(
            f"the Triton backend of decoder_attention needs cells on a CUDA device, got {image_PNC.device}; "
            "set TRITON_INTERPRET=1 before the first import to interpret it on the CPU"
        )
    if image_PNC.dtype not in TO_CELLS or position_NC.dtype != image_PNC.dtype:
        raise ValueError(
            f"the Triton backend of decoder_attention got an image of {image_PNC.dtype} and positions of "
            f"{position_NC.dtype}, expected both float32 or both bfloat16; the reference takes any"
        )
    assert image_PNC.stride()[1:] == (image_PNC.shape[2], 1)
    assert position_NC.shape == image_PNC.shape[1:]
    assert position_NC.is_contiguous()
    return image_PNC


def _block(channels: int) -> int:
    return max(_MIN_TILE_SIDE, triton.next_power_of_2(channels))


@triton.jit
def to_cells_kernel(  # type: ignore[no-untyped-def]
    moved, image, position, found, num_cells, image_stride,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, CELLS: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Compute `attend_to_cells` for all query rows of one point.

    `image_stride` is the distance in `image` from one point to the next, in values; it is 0 if all points share one
    image.
    """
    # Load the rows
    point = tl.program_id(0).to(tl.int64)
    rows, channels = tl.arange(0, ROWS), tl.arange(0, BLOCK)
    is_channel = (channels < CHANNELS)[None, :]
    of_row = (point * ROWS + rows)[:, None] * CHANNELS + channels[None, :]
    moved_SC = tl.load(moved + of_row, mask=is_channel, other=0.0)
    image += point * image_stride

    # Softmax over the cells, a tile at a time, with a running maximum
    highest_S = tl.full((ROWS,), float("-inf"), tl.float32)
    weight_S = tl.zeros((ROWS,), tl.float32)
    sums_SC = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, num_cells, CELLS):
        cells = first + tl.arange(0, CELLS)
        is_cell = cells < num_cells
        image_NC, placed_NC = _load_cells(image, position, cells, is_cell, channels, is_channel, CHANNELS)
        scores_SN = _product(moved_SC, tl.trans(placed_NC), INTERPRETED)
        scores_SN = tl.where(is_cell[None, :], scores_SN, float("-inf"))
        higher_S = tl.maximum(highest_S, tl.max(scores_SN, axis=1))
        weights_SN = tl.exp(scores_SN - higher_S[:, None])
        shrink_S = tl.exp(highest_S - higher_S)
        weight_S = weight_S * shrink_S + tl.sum(weights_SN, axis=1)
        sums_SC = sums_SC * shrink_S[:, None] + _product(weights_SN.to(image_NC.dtype), image_NC, INTERPRETED)
        highest_S = higher_S
    tl.store(found + of_row, (sums_SC / weight_S[:, None]).to(moved_SC.dtype), mask=is_channel)


@triton.jit
def to_tokens_kernel(  # type: ignore[no-untyped-def]
    image, position, keys, bias, values, norm_weight, norm_bias, written, num_cells, image_stride, epsilon,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, HEADS: tl.constexpr, TOKENS: tl.constexpr, CELLS: tl.constexpr,
    CELLS_OF_PROGRAM: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Compute `attend_to_tokens` for one point and `CELLS_OF_PROGRAM` consecutive cells of the image embedding.

    `image_stride` is the distance in `image` from one point to the next, in values; it is 0 if all points share one
    image.
    """
    # Load the tokens and the norm
    point = tl.program_id(0).to(tl.int64)
    rows, channels = tl.arange(0, HEADS * TOKENS), tl.arange(0, BLOCK)
    is_channel = (channels < CHANNELS)[None, :]
    of_row = (point * HEADS * TOKENS + rows)[:, None] * CHANNELS + channels[None, :]
    keys_SC = tl.load(keys + of_row, mask=is_channel, other=0.0)
    values_SC = tl.load(values + of_row, mask=is_channel, other=0.0)
    bias_1S = tl.load(bias + point * HEADS * TOKENS + rows)[None, :]
    norm_weight_1C = tl.load(norm_weight + channels, mask=channels < CHANNELS, other=0.0)[None, :]
    norm_bias_1C = tl.load(norm_bias + channels, mask=channels < CHANNELS, other=0.0)[None, :]
    image += point * image_stride
    written += point * num_cells * CHANNELS

    # Attend from each tile of cells to the tokens, add the residual
    start = tl.program_id(1) * CELLS_OF_PROGRAM
    for first in range(start, tl.minimum(start + CELLS_OF_PROGRAM, num_cells), CELLS):
        cells = first + tl.arange(0, CELLS)
        is_cell = cells < num_cells
        image_NC, placed_NC = _load_cells(image, position, cells, is_cell, channels, is_channel, CHANNELS)
        scores_NS = _product(placed_NC, tl.trans(keys_SC), INTERPRETED) + bias_1S
        scores_NAT = tl.reshape(scores_NS, (CELLS, HEADS, TOKENS))
        weights_NAT = tl.exp(scores_NAT - tl.max(scores_NAT, axis=2, keep_dims=True))
        weights_NAT /= tl.sum(weights_NAT, axis=2, keep_dims=True)
        weights_NS = tl.reshape(weights_NAT, (CELLS, HEADS * TOKENS)).to(image_NC.dtype)
        sums_NC = image_NC.to(tl.float32) + _product(weights_NS, values_SC, INTERPRETED)

        # Layer norm
        mean_N1 = tl.sum(sums_NC, axis=1, keep_dims=True) / CHANNELS
        centred_NC = tl.where(is_channel, sums_NC - mean_N1, 0.0)
        variance_N1 = tl.sum(centred_NC * centred_NC, axis=1, keep_dims=True) / CHANNELS
        normed_NC = centred_NC * tl.rsqrt(variance_N1 + epsilon) * norm_weight_1C + norm_bias_1C
        of_cell = cells[:, None] * CHANNELS + channels[None, :]
        tl.store(written + of_cell, normed_NC.to(image_NC.dtype), mask=is_cell[:, None] & is_channel)


@triton.jit
def _load_cells(image, position, cells, is_cell, channels, is_channel, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Load a tile of the image without and with positions added; the sum is rounded as torch rounds it."""
    of_cell = cells[:, None] * CHANNELS + channels[None, :]
    inside = is_cell[:, None] & is_channel
    image_NC = tl.load(image + of_cell, mask=inside, other=0.0)
    position_NC = tl.load(position + of_cell, mask=inside, other=0.0)
    return image_NC, (image_NC.to(tl.float32) + position_NC.to(tl.float32)).to(image_NC.dtype)


@triton.jit
def _product(left, right, INTERPRETED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Multiply two matrices in float32.

    In the interpreter, the matrices are converted first, because it would multiply the bit patterns of bfloat16.
    """
    if INTERPRETED:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")
