"""Triton backend of `upsample_runs`: many masks at once, with one bit per pixel at full resolution.

The work takes three kernels. The first evaluates tiles of 32 rows (each row is one bit of a word), and adds up counts
and boxes. It skips tiles whose low-resolution neighbours are all above or all below every threshold, about 99 in 100.
The second counts the changes of bits in each column; a prefix sum then gives each column its place in the output. The
third writes the positions of the changes to these places. Only run lengths leave the GPU. All sums are whole numbers,
so the order in which tiles finish does not matter.

Blends are rounded as torch's CPU kernels round them, with an explicit fused multiply-add. Triton's interpreter runs
these kernels on CPU tensors if TRITON_INTERPRET=1 was set before the import; it emulates the fused multiply-add in
float64. On an H200 the runs were those of the reference, in thirteen geometries and on 78 masks of a photo.

Shape suffixes: N masks, R x C rows and columns of logits (float32), H x W of the window, K words per column
(int32). At least one bit is left over below the last row, to end a run that reaches this row.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl

from engine.images import Frame
from engine.kernels.upsample_runs import ScannedMask, linear_taps
from storage.rle import Rle

ROWS = tl.constexpr(32)
"""Number of rows of a tile; equal to the 32 bits of a word."""
_COLUMNS, _COLUMNS_OF_RUNS = 64, 128
"""Numbers of columns per program, for the evaluation of logits and for the search for runs."""
_MARGIN = 1e-3
"""Distance from a threshold, in logits, beyond which a tile is not evaluated; far above the rounding of a blend."""
_BITS_AT_ONCE_BYTES = 2**28
"""Largest number of bytes of mask bits on the GPU at once."""
_MAX_GRID_BLOCKS = 65_535
"""Largest number of blocks along the third axis of a CUDA grid."""
_SIZES = ["num_low_rows", "num_low_columns", "height", "width", "words_of_column", "origin", "image_height"]
"""Names of the arguments whose values must not make Triton compile anew; images and crops come in all sizes."""


def scan_triton(logits_NRC: torch.Tensor, frame: Frame, low_side: int, offset: float) -> list[ScannedMask]:
    """Upsample each of N masks as `scan_reference` does, on a CUDA device or in Triton's interpreter.

    Raises:
        RuntimeError: The logits are on the CPU, and Triton's interpreter is off.
    """
    if not logits_NRC.is_cuda and not triton.knobs.runtime.interpret:
        raise RuntimeError(
            f"the Triton backend of upsample_runs needs logits on a CUDA device, got {logits_NRC.device}; "
            "set TRITON_INTERPRET=1 before the first import to interpret it on the CPU"
        )
    height, width = frame.crop_hw
    bytes_of_mask = 4 * _words_of_column(height) * width
    at_once = max(1, min(_BITS_AT_ONCE_BYTES // bytes_of_mask, _MAX_GRID_BLOCKS))
    return [
        mask
        for some_NRC in logits_NRC.split(at_once)
        if len(some_NRC)
        for mask in _scan_some(some_NRC.contiguous(), frame, low_side, offset)
    ]


def _scan_some(logits_NRC: torch.Tensor, frame: Frame, low_side: int, offset: float) -> list[ScannedMask]:
    """Upsample one batch of masks, whose bits fit on the GPU at once."""
    device, count = logits_NRC.device, len(logits_NRC)
    (height, width), (image_height, image_width) = frame.crop_hw, frame.image_hw
    x0, y0 = frame.crop_xyxy[:2]
    words_of_column = _words_of_column(height)
    words_NKW, pixels_N3, box_N4 = _evaluated(logits_NRC, frame, low_side, offset)

    # Count where bits change; in a window as high as the image, runs continue from a column to the next
    is_full_height = height == image_height
    ends_image = (y0 + height, x0 + width) == (image_height, image_width)
    blocks = (triton.cdiv(width, _COLUMNS_OF_RUNS), count)
    changes_NW = torch.empty((count, width), dtype=torch.int32, device=device)
    shape = {"height": height, "width": width, "words_of_column": words_of_column}
    layout = {"FULL_HEIGHT": is_full_height, "ENDS_IMAGE": ends_image, "COLUMNS": _COLUMNS_OF_RUNS}
    count_kernel[blocks](words_NKW, changes_NW, **shape, **layout)

    # Give each change its place: a mask's positions stand between 0 and the image's end, so differences are run lengths
    found_N8 = torch.cat([changes_NW.sum(1, keepdim=True), pixels_N3, box_N4], dim=1).cpu().numpy()
    num_changes_N = found_N8[:, 0]
    last_N = np.cumsum(num_changes_N + 2) - 1
    first_N = last_N - num_changes_N - 1
    bounds = torch.zeros(int(last_N[-1]) + 1, dtype=torch.int64, device=device)
    bounds[torch.from_numpy(last_N).to(device)] = image_height * image_width
    ends_NW = changes_NW.flatten().cumsum(0).view_as(changes_NW)
    places_NW = ends_NW - changes_NW + (2 * torch.arange(count, device=device) + 1)[:, None]

    # Write the positions and take their differences
    write_kernel[blocks](words_NKW, places_NW, bounds, x0 * image_height + y0, image_height, **shape, **layout)
    runs = bounds.diff().to(torch.int32).cpu().numpy().view(np.uint32)

    origin_4 = np.array([x0, y0, x0, y0])
    return [
        ScannedMask(
            rle=Rle(height=image_height, width=image_width, counts=runs[first_N[i] : last_N[i]].copy()),
            box_4=tuple((found[4:] + origin_4).tolist()) if found[2] else (0, 0, 0, 0),
            area_px=int(found[2]),
            above_high_px=int(found[1]),
            above_low_px=int(found[3]),
        )
        for i, found in enumerate(found_N8)
    ]


def _evaluated(
    logits_NRC: torch.Tensor, frame: Frame, low_side: int, offset: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Evaluate all tiles of the masks.

    Returns:
        Bits [N, K, W], pixel counts above +offset, 0 and -offset [N, 3], and inclusive boxes [N, 4].
    """
    device, count = logits_NRC.device, len(logits_NRC)
    height, width = frame.crop_hw
    words_of_column = _words_of_column(height)
    (low_H4, weights_H6), (low_W4, weights_W6) = (
        _taps(low_side, frame.model_side, scaled, size, device)
        for scaled, size in zip(frame.scaled_hw, frame.crop_hw, strict=True)
    )
    words_NKW = torch.empty((count, words_of_column, width), dtype=torch.int32, device=device)
    pixels_N3 = torch.zeros((count, 3), dtype=torch.int64, device=device)
    box_N4 = torch.tensor([width, height, -1, -1], dtype=torch.int32, device=device).repeat(count, 1)
    evaluate_kernel[(triton.cdiv(width, _COLUMNS), words_of_column, count)](
        logits_NRC, low_H4, weights_H6, low_W4, weights_W6, words_NKW, pixels_N3, box_N4,
        logits_NRC.shape[1], logits_NRC.shape[2], height, width, words_of_column, offset, _MARGIN,
        COLUMNS=_COLUMNS, EMULATE_FMA=not logits_NRC.is_cuda,
    )  # fmt: skip
    return words_NKW, pixels_N3, box_N4


def _words_of_column(height: int) -> int:
    return height // 32 + 1


@lru_cache(maxsize=256)
def _taps(
    low_side: int, model_side: int, scaled: int, size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the inputs and weights of both resizes along one axis, for each of P output positions.

    Returns:
        Low-resolution positions, int32 [P, 4], ascending: two for the first model position, then two for the second.
        Weights, float32 [P, 6]: four for the low-resolution positions, then two for the model positions.
    """
    inner, outer = linear_taps(low_side, model_side), linear_taps(scaled, size)
    model_positions = (outer.first_P, outer.second_P)
    low_P4 = np.stack([tap[q] for q in model_positions for tap in (inner.first_P, inner.second_P)], axis=1)
    inner_weights = [weight[q] for q in model_positions for weight in (inner.weight0_P, inner.weight1_P)]
    weights_P6 = np.stack([*inner_weights, outer.weight0_P, outer.weight1_P], axis=1)
    return torch.tensor(low_P4, dtype=torch.int32, device=device), torch.tensor(weights_P6, device=device)


@triton.jit(do_not_specialize=_SIZES)
def evaluate_kernel(  # type: ignore[no-untyped-def]
    logits, low_rows, row_weights, low_columns, column_weights, words, pixels, box,
    num_low_rows, num_low_columns, height, width, words_of_column, offset, margin,
    COLUMNS: tl.constexpr, EMULATE_FMA: tl.constexpr,
):  # fmt: skip
    """Evaluate one tile of one mask.

    One 32-bit word, with one bit for each row of the tile, is written to `words` for each column of the tile. The
    mask's pixel counts in `pixels` and the mask's box in `box` are updated.
    """
    # Locate the tile
    mask = tl.program_id(2).to(tl.int64)
    logits += mask * num_low_rows * num_low_columns
    word = tl.program_id(1)
    first_y, first_x = word * ROWS, tl.program_id(0) * COLUMNS
    y, x = first_y + tl.arange(0, ROWS), first_x + tl.arange(0, COLUMNS)
    is_row, is_column = y < height, x < width
    is_pixel = is_row[:, None] & is_column[None, :]

    # Skip the evaluation where the low-resolution neighbourhood is on one side. The word of leftover bits may have no
    # row at all; it reads the last row
    last_y, last_x = tl.minimum(first_y + ROWS, height) - 1, tl.minimum(first_x + COLUMNS, width) - 1
    sure_above, sure_below = _sure(
        logits, num_low_columns,
        tl.load(low_rows + 4 * tl.minimum(first_y, last_y)), tl.load(low_rows + 4 * last_y + 3),
        tl.load(low_columns + 4 * first_x), tl.load(low_columns + 4 * last_x + 3),
        offset + margin, -offset - margin,
    )  # fmt: skip
    above_low = is_pixel & (sure_above > 0)
    inside, above_high = above_low, above_low
    if (sure_above == 0) & (sure_below == 0):
        value = _value(
            logits, num_low_columns, low_rows, row_weights, y, is_row, low_columns, column_weights, x, is_column,
            EMULATE_FMA,
        )  # fmt: skip
        inside = is_pixel & (value > 0)
        above_high, above_low = is_pixel & (value > offset), is_pixel & (value > -offset)

    # Store the bits, add to the counts and to the box
    bits = tl.sum(inside.to(tl.int32) << tl.arange(0, ROWS)[:, None], axis=0)
    tl.store(words + (mask * words_of_column + word) * width + x, bits, mask=is_column)
    num_low = tl.sum(tl.sum(above_low.to(tl.int32), axis=1), axis=0)
    if num_low > 0:
        num_high = tl.sum(tl.sum(above_high.to(tl.int32), axis=1), axis=0)
        num_inside = tl.sum(tl.sum(inside.to(tl.int32), axis=1), axis=0)
        tl.atomic_add(pixels + 3 * mask, num_high.to(tl.int64))
        tl.atomic_add(pixels + 3 * mask + 1, num_inside.to(tl.int64))
        tl.atomic_add(pixels + 3 * mask + 2, num_low.to(tl.int64))
        row_has = tl.max(inside.to(tl.int32), axis=1) > 0
        column_has = tl.max(inside.to(tl.int32), axis=0) > 0
        tl.atomic_min(box + 4 * mask, tl.min(tl.where(column_has, x, width), axis=0))
        tl.atomic_min(box + 4 * mask + 1, tl.min(tl.where(row_has, y, height), axis=0))
        tl.atomic_max(box + 4 * mask + 2, tl.max(tl.where(column_has, x, -1), axis=0))
        tl.atomic_max(box + 4 * mask + 3, tl.max(tl.where(row_has, y, -1), axis=0))


@triton.jit
def _sure(logits, num_low_columns, row0, row1, column0, column1, high, low):  # type: ignore[no-untyped-def]
    """Test a block of logits, rows row0 to row1 and columns column0 to column1, against two thresholds.

    Returns:
        1 if all logits are above `high`, else 0; 1 if all logits are below `low`, else 0. NaN is neither.
    """
    above = tl.full((8, 16), 1, tl.int32)
    below = tl.full((8, 16), 1, tl.int32)
    for row in range(row0, row1 + 1, 8):
        for column in range(column0, column1 + 1, 16):
            rows, columns = row + tl.arange(0, 8)[:, None], column + tl.arange(0, 16)[None, :]
            beyond = (rows > row1) | (columns > column1)
            value = tl.load(logits + rows * num_low_columns + columns, mask=~beyond, other=0.0)
            above &= (beyond | (value > high)).to(tl.int32)
            below &= (beyond | (value < low)).to(tl.int32)
    return tl.min(tl.min(above, axis=1), axis=0), tl.min(tl.min(below, axis=1), axis=0)


@triton.jit
def _value(  # type: ignore[no-untyped-def]
    logits, num_low_columns, low_rows, row_weights, y, is_row, low_columns, column_weights, x, is_column,
    EMULATE_FMA: tl.constexpr,
):  # fmt: skip
    """Evaluate the pixels of a tile as torch does: resize to the model's input, then to the window, columns first."""
    upper = _model_row(
        logits, num_low_columns, low_rows + 4 * y, row_weights + 6 * y, is_row,
        low_columns, column_weights, x, is_column, EMULATE_FMA,
    )  # fmt: skip
    lower = _model_row(
        logits, num_low_columns, low_rows + 4 * y + 2, row_weights + 6 * y + 2, is_row,
        low_columns, column_weights, x, is_column, EMULATE_FMA,
    )  # fmt: skip
    weight0 = tl.load(row_weights + 6 * y + 4, mask=is_row, other=0.0)[:, None]
    weight1 = tl.load(row_weights + 6 * y + 5, mask=is_row, other=0.0)[:, None]
    return _blend(weight0, upper, weight1, lower, EMULATE_FMA)


@triton.jit
def _model_row(  # type: ignore[no-untyped-def]
    logits, num_low_columns, low_row, row_weight, is_row, low_columns, column_weights, x, is_column,
    EMULATE_FMA: tl.constexpr,
):  # fmt: skip
    """Evaluate one of the two model rows that each output row blends, at the output's columns."""
    left = _model_cell(
        logits, num_low_columns, low_row, row_weight, is_row,
        low_columns + 4 * x, column_weights + 6 * x, is_column, EMULATE_FMA,
    )  # fmt: skip
    right = _model_cell(
        logits, num_low_columns, low_row, row_weight, is_row,
        low_columns + 4 * x + 2, column_weights + 6 * x + 2, is_column, EMULATE_FMA,
    )  # fmt: skip
    weight0 = tl.load(column_weights + 6 * x + 4, mask=is_column, other=0.0)[None, :]
    weight1 = tl.load(column_weights + 6 * x + 5, mask=is_column, other=0.0)[None, :]
    return _blend(weight0, left, weight1, right, EMULATE_FMA)


@triton.jit
def _model_cell(  # type: ignore[no-untyped-def]
    logits, num_low_columns, low_row, row_weight, is_row, low_column, column_weight, is_column,
    EMULATE_FMA: tl.constexpr,
):  # fmt: skip
    """Blend four logits into the value at one model row and column of each pixel."""
    row0 = logits + (tl.load(low_row, mask=is_row, other=0) * num_low_columns)[:, None]
    row1 = logits + (tl.load(low_row + 1, mask=is_row, other=0) * num_low_columns)[:, None]
    column0 = tl.load(low_column, mask=is_column, other=0)[None, :]
    column1 = tl.load(low_column + 1, mask=is_column, other=0)[None, :]
    weight0 = tl.load(column_weight, mask=is_column, other=0.0)[None, :]
    weight1 = tl.load(column_weight + 1, mask=is_column, other=0.0)[None, :]
    upper = _blend(weight0, tl.load(row0 + column0), weight1, tl.load(row0 + column1), EMULATE_FMA)
    lower = _blend(weight0, tl.load(row1 + column0), weight1, tl.load(row1 + column1), EMULATE_FMA)
    weight0 = tl.load(row_weight, mask=is_row, other=0.0)[:, None]
    weight1 = tl.load(row_weight + 1, mask=is_row, other=0.0)[:, None]
    return _blend(weight0, upper, weight1, lower, EMULATE_FMA)


@triton.jit
def _blend(weight0, a, weight1, b, EMULATE_FMA: tl.constexpr):  # type: ignore[no-untyped-def]
    """Compute weight0 * a + weight1 * b with a fused multiply-add of the second product, as torch's kernels do."""
    rounded = weight0 * a
    if EMULATE_FMA:
        blended = (weight1.to(tl.float64) * b.to(tl.float64) + rounded.to(tl.float64)).to(tl.float32)
    else:
        blended = tl.fma(weight1, b, rounded)
    return blended


@triton.jit(do_not_specialize=_SIZES)
def count_kernel(  # type: ignore[no-untyped-def]
    words, changes, height, width, words_of_column,
    FULL_HEIGHT: tl.constexpr, ENDS_IMAGE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Count the changes between background and foreground in each column of a mask, and write them to `changes`."""
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    mask = tl.program_id(1).to(tl.int64)
    words += mask * words_of_column * width
    before = _bit_before(words, x, height, width, FULL_HEIGHT)
    count = tl.zeros((COLUMNS,), tl.int32)
    for word in range(words_of_column):
        bits = tl.load(words + word * width + x, mask=x < width, other=0).to(tl.uint32)
        changed = _changed(bits, before, word, x, height, width, words_of_column, FULL_HEIGHT, ENDS_IMAGE)
        count += _ones(changed)
        before = bits >> 31
    tl.store(changes + mask * width + x, count, mask=x < width)


@triton.jit(do_not_specialize=_SIZES)
def write_kernel(  # type: ignore[no-untyped-def]
    words, places, bounds, origin, image_height, height, width, words_of_column,
    FULL_HEIGHT: tl.constexpr, ENDS_IMAGE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the column-major positions of changes between background and foreground to `bounds`.

    The positions of a column begin at the index in `bounds` that `places` holds for this column.
    """
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    mask = tl.program_id(1).to(tl.int64)
    words += mask * words_of_column * width
    place = tl.load(places + mask * width + x, mask=x < width, other=0)
    top_of_column = origin + x.to(tl.int64) * image_height
    before = _bit_before(words, x, height, width, FULL_HEIGHT)
    for word in range(words_of_column):
        bits = tl.load(words + word * width + x, mask=x < width, other=0).to(tl.uint32)
        changed = _changed(bits, before, word, x, height, width, words_of_column, FULL_HEIGHT, ENDS_IMAGE)
        before = bits >> 31
        for _ in range(tl.max(_ones(changed), axis=0)):
            has_one = changed != 0
            below_lowest = (changed - 1) & (changed ^ 0xFFFFFFFF)
            tl.store(bounds + place, top_of_column + word * 32 + _ones(below_lowest), mask=has_one)
            place += has_one.to(tl.int64)
            changed = changed & (changed - 1)


@triton.jit
def _bit_before(words, x, height, width, FULL_HEIGHT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Read the pixel, 0 or 1, that precedes each column in the image's column-major order; 0 outside the window."""
    if FULL_HEIGHT:
        last = height - 1
        word = tl.load(words + (last // 32) * width + x - 1, mask=(x > 0) & (x < width), other=0).to(tl.uint32)
        bit = (word >> tl.cast(last % 32, tl.uint32)) & 1
    else:
        bit = (x * 0).to(tl.uint32)
    return bit


@triton.jit
def _changed(  # type: ignore[no-untyped-def]
    bits, before, word, x, height, width, words_of_column, FULL_HEIGHT: tl.constexpr, ENDS_IMAGE: tl.constexpr
):
    """Mark bits that differ from the pixel before them; a run at the window's lower edge ends in the bit below it."""
    changed = bits ^ ((bits << 1) | before)
    # such an end is no change where the next column continues the run, and is not written where the image ends
    below_counts = x >= 0
    if FULL_HEIGHT:
        below_counts = x == width - 1
    if ENDS_IMAGE:
        below_counts = below_counts & (x < width - 1)
    kept = (x * 0 - 1).to(tl.uint32)
    below = tl.full((1,), 1, tl.uint32) << tl.cast(height % 32, tl.uint32)
    kept = tl.where(below_counts | (word < words_of_column - 1), kept, kept ^ below)
    return changed & kept


@triton.jit
def _ones(bits):  # type: ignore[no-untyped-def]
    """Count the set bits of each word, int32; not every version of Triton has an instruction for this."""
    pairs = bits - ((bits >> 1) & 0x55555555)
    fours = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F
    return ((eights * 0x01010101) >> 24).to(tl.int32)
