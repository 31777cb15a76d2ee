"""Numba backend of `upsample_runs`: one pass over low-resolution logits, without a full-resolution mask.

Pixels are settled in blocks where they can be. First, output columns are walked in groups that read the same
low-resolution columns; for a group, stretches of output rows whose logits are all above +offset, or all below -offset,
are counted without evaluation. What is left is looked at again between neighbouring values of the model's input: where
the four lie in one interval of the thresholds (-offset, 0, +offset), so does every pixel between them. The rest is
evaluated with the roundings of torch's kernels, so the results are the same to the bit. The loop releases the GIL, so
callers may scan several masks in threads. Compiled code is cached beside this file: the very first call takes about
five seconds, the first call of a later process a third of one.

`L` is the array of logits, float32 [R, C]. Positions are int64; run boundaries are int64 column-major positions in the
image.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
import torch

from engine.images import Frame
from engine.kernels.upsample_runs import ScannedMask, linear_taps
from storage import rle

_BELOW, _NEGATIVE, _POSITIVE, _ABOVE, _MIXED = 0, 1, 2, 3, 4
"""Classes of a block: below -offset, from there to 0, from 0 to +offset, above +offset, or none of these for all."""
_MIN_BLOCK_PX = 2
"""Mean number of output rows between two model rows from which blocks are looked at; where there are fewer, looking at
a block costs as much as evaluating it."""
_MARGIN = np.float32(1e-3)  # logits; far above the rounding of a blend of same-signed values


def scan_numba(logits_RC: torch.Tensor, frame: Frame, low_side: int, offset: float) -> ScannedMask:
    """Upsample the logits of one mask as `scan_reference` does, with the same result."""
    (scaled_height, scaled_width), (height, width) = frame.scaled_hw, frame.crop_hw
    x0, y0 = frame.crop_xyxy[:2]
    image_height, image_width = frame.image_hw
    edges, above_high, above_low, box = _scan(
        np.ascontiguousarray(logits_RC.numpy()),
        _axis(low_side, frame.model_side, scaled_height, height),
        _axis(low_side, frame.model_side, scaled_width, width),
        (x0, y0),
        image_height,
        np.float32(offset),
    )
    return ScannedMask(
        rle=rle.from_edges(edges, height=image_height, width=image_width),
        box_4=(int(box[0]), int(box[1]), int(box[2]), int(box[3])),
        area_px=int((edges[1::2] - edges[::2]).sum()),
        above_high_px=int(above_high),
        above_low_px=int(above_low),
    )


class _Axis(NamedTuple):
    """Tables of the two resizes along one axis, with M model positions and P output positions.

    The class is a tuple because numba's compiled code accepts tuples.
    """

    inner_low_M2: np.ndarray
    """Indices of the two low-resolution positions that each model position blends, int64."""
    inner_weights_M2: np.ndarray
    """Weights of the two low-resolution positions that each model position blends, float32."""
    outer_model_P2: np.ndarray
    """Indices of the two model positions that each output position blends, int64."""
    outer_weights_P2: np.ndarray
    """Weights of the two model positions that each output position blends, float32."""
    starts_G1: np.ndarray
    """First output position of each group, then P, int64; a group reads the same low-resolution positions."""
    support_G2: np.ndarray
    """First and last low-resolution position that each group of output positions reads, int64."""
    block_starts_K1: np.ndarray
    """First output position of each block, then P, int64; a block reads the same two model positions."""
    block_of_P: np.ndarray
    """Number of the block of each output position, int64; every block lies in one group."""


@lru_cache(maxsize=256)
def _axis(low_side: int, model_side: int, scaled: int, size: int) -> _Axis:
    """Compute the tables of two resizes: from `low_side` to `model_side`, then from its first `scaled` to `size`."""
    inner, outer = linear_taps(low_side, model_side), linear_taps(scaled, size)
    first_low_P, last_low_P = inner.first_P[outer.first_P], inner.second_P[outer.second_P]
    starts = np.flatnonzero((np.diff(first_low_P) != 0) | (np.diff(last_low_P) != 0)) + 1
    starts_G = np.concatenate([[0], starts]).astype(np.int64)
    is_new_P = np.concatenate([[True], (np.diff(outer.first_P) != 0) | (np.diff(outer.second_P) != 0)])
    return _Axis(
        inner_low_M2=np.stack([inner.first_P, inner.second_P], axis=1),
        inner_weights_M2=np.stack([inner.weight0_P, inner.weight1_P], axis=1),
        outer_model_P2=np.stack([outer.first_P, outer.second_P], axis=1),
        outer_weights_P2=np.stack([outer.weight0_P, outer.weight1_P], axis=1),
        starts_G1=np.append(starts_G, size).astype(np.int64),
        support_G2=np.stack([first_low_P[starts_G], last_low_P[starts_G]], axis=1),
        block_starts_K1=np.append(np.flatnonzero(is_new_P), size).astype(np.int64),
        block_of_P=np.cumsum(is_new_P) - 1,
    )


@numba.njit(inline="always")
def _blend(w0, a, w1, b):  # type: ignore[no-untyped-def]
    """Compute w0 * a + w1 * b with a fused multiply-add of the second product, as torch's compiled kernels do."""
    return np.float32(np.float64(w1) * np.float64(b) + np.float64(np.float32(w0 * a)))


@numba.njit(cache=True, nogil=True)
def _row_classes(L, c0, c1, num_rows, offset, out):  # type: ignore[no-untyped-def]
    """Classify each low-resolution row over columns c0 to c1 as above, below or mixed; NaN counts as mixed."""
    high, low = offset + _MARGIN, -offset - _MARGIN
    for r in range(num_rows):
        above = below = True
        for c in range(c0, c1 + 1):
            above &= L[r, c] > high
            below &= L[r, c] < low
        out[r] = _ABOVE if above else (_BELOW if below else _MIXED)


@numba.njit(cache=True, nogil=True)
def _segments(row_class, rows, out):  # type: ignore[no-untyped-def]
    """Write the stretches (first, end, class) of output rows of one class to `out`, and return their number."""
    n = 0
    for g in range(len(rows.starts_G1) - 1):
        cls = row_class[rows.support_G2[g, 0]]
        for r in range(rows.support_G2[g, 0] + 1, rows.support_G2[g, 1] + 1):
            if row_class[r] != cls:
                cls = _MIXED
        n = _append(out, n, rows.starts_G1[g], rows.starts_G1[g + 1], cls)
    return n


@numba.njit(cache=True, nogil=True)
def _append(stretches, n, first, end, cls):  # type: ignore[no-untyped-def]
    """Add output rows first to end - 1 to the stretches, of which there are n, and return the new number."""
    if n > 0 and stretches[n - 1, 2] == cls:
        stretches[n - 1, 1] = end
        return n
    stretches[n, 0], stretches[n, 1], stretches[n, 2] = first, end, cls
    return n + 1


@numba.njit(cache=True, nogil=True)
def _model_column(L, rows, columns, q, segments, low_buffer, out):  # type: ignore[no-untyped-def]
    """Blend the logits to column q of the model's input, at the rows that the mixed segments read; columns first."""
    c0, c1 = columns.inner_low_M2[q, 0], columns.inner_low_M2[q, 1]
    w0, w1 = columns.inner_weights_M2[q, 0], columns.inner_weights_M2[q, 1]
    for s in range(len(segments)):
        if segments[s, 2] != _MIXED:
            continue
        first, last = rows.outer_model_P2[segments[s, 0], 0], rows.outer_model_P2[segments[s, 1] - 1, 1]
        for r in range(rows.inner_low_M2[first, 0], rows.inner_low_M2[last, 1] + 1):
            low_buffer[r] = _blend(w0, L[r, c0], w1, L[r, c1])
        for p in range(first, last + 1):
            upper, lower = low_buffer[rows.inner_low_M2[p, 0]], low_buffer[rows.inner_low_M2[p, 1]]
            out[p] = _blend(rows.inner_weights_M2[p, 0], upper, rows.inner_weights_M2[p, 1], lower)


@numba.njit(cache=True, nogil=True)
def _block_class(a, b, c, d, offset):  # type: ignore[no-untyped-def]
    """Classify a block by its four corners; those that are infinite or NaN make it mixed."""
    least, most = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c) and np.isfinite(d)):
        return _MIXED
    if least > offset + _MARGIN:
        return _ABOVE
    if most < -offset - _MARGIN:
        return _BELOW
    if least > _MARGIN and most < offset - _MARGIN:
        return _POSITIVE
    if most < -_MARGIN and least > -offset + _MARGIN:
        return _NEGATIVE
    return _MIXED


@numba.njit(cache=True, nogil=True)
def _stretches(segments, rows, left, right, offset, looks, out):  # type: ignore[no-untyped-def]
    """Divide mixed segments into stretches of one class by two model columns; return the number of stretches."""
    n = 0
    for s in range(len(segments)):
        first, end, cls = segments[s, 0], segments[s, 1], segments[s, 2]
        if cls != _MIXED or not looks:
            n = _append(out, n, first, end, cls)
            continue
        for k in range(rows.block_of_P[first], rows.block_of_P[end - 1] + 1):
            y = rows.block_starts_K1[k]
            p0, p1 = rows.outer_model_P2[y, 0], rows.outer_model_P2[y, 1]
            cls = _block_class(left[p0], right[p0], left[p1], right[p1], offset)
            n = _append(out, n, y, rows.block_starts_K1[k + 1], cls)
    return n


@numba.njit(cache=True, nogil=True)
def _evaluate(rows, first, end, left, right, weights, values):  # type: ignore[no-untyped-def]
    """Evaluate output rows first to end - 1 of a column that lies between two model columns with these weights."""
    (w0, w1), p_before, lower = weights, np.int64(-1), np.float32(0)
    for k in range(rows.block_of_P[first], rows.block_of_P[end - 1] + 1):
        p0, p1 = rows.outer_model_P2[rows.block_starts_K1[k], 0], rows.outer_model_P2[rows.block_starts_K1[k], 1]
        upper = lower if p0 == p_before else _blend(w0, left[p0], w1, right[p0])
        lower = _blend(w0, left[p1], w1, right[p1])
        p_before = p1
        for y in range(rows.block_starts_K1[k], rows.block_starts_K1[k + 1]):
            values[y] = _blend(rows.outer_weights_P2[y, 0], upper, rows.outer_weights_P2[y, 1], lower)


@numba.njit(cache=True, nogil=True)
def _column(rows, stretches, left, right, weights, offset, values, edges, base):  # type: ignore[no-untyped-def]
    """Write the run boundaries of one output column, whose first pixel is number `base` of the image, to `edges`.

    Returns:
        The number of boundaries, and the column's pixels above +offset and above -offset.
    """
    n, above_high, above_low, inside = 0, 0, 0, False
    for s in range(len(stretches)):
        first, end, cls = stretches[s, 0], stretches[s, 1], stretches[s, 2]
        if cls != _MIXED:
            above_high += (end - first) * (cls == _ABOVE)
            above_low += (end - first) * (cls >= _NEGATIVE)
            edges[n] = base + first
            n += (cls >= _POSITIVE) != inside
            inside = cls >= _POSITIVE
            continue
        _evaluate(rows, first, end, left, right, weights, values)
        for y in range(first, end):
            above_high += values[y] > offset
            above_low += values[y] > -offset
        for y in range(first, end):
            edges[n] = base + y
            n += (values[y] > 0) != inside
            inside = values[y] > 0
    edges[n] = base + len(rows.outer_model_P2)  # close at the window's lower edge: the image may go on below it
    return n + inside, above_high, above_low


@numba.njit(cache=True, nogil=True)
def _scan(L, rows, columns, origin_xy, image_height, offset):  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915
    """Find the run boundaries of a mask, its pixel counts above +offset and -offset, and its inclusive box."""
    # Allocate the buffers
    height, width = len(rows.outer_model_P2), len(columns.outer_model_P2)
    edges, n = np.empty(4096 + height, np.int64), 0
    above_high = above_low = 0
    x0, y0, x1, y1 = width, height, -1, -1
    num_rows = rows.support_G2[-1, 1] + 1
    row_class, low_buffer = np.empty(num_rows, np.int64), np.empty(num_rows, np.float32)
    segments, stretches = np.empty((len(rows.starts_G1), 3), np.int64), np.empty((height, 3), np.int64)
    left, right = np.empty(len(rows.inner_low_M2), np.float32), np.empty(len(rows.inner_low_M2), np.float32)
    values = np.empty(height, np.float32)
    looks = height >= _MIN_BLOCK_PX * (len(rows.block_starts_K1) - 1)

    # Walk over groups of columns, in a group over blocks, in a block over columns
    for g in range(len(columns.starts_G1) - 1):
        _row_classes(L, columns.support_G2[g, 0], columns.support_G2[g, 1], num_rows, offset, row_class)
        num_segments = _segments(row_class, rows, segments)
        if num_segments == 1 and segments[0, 2] == _BELOW:
            continue
        at_right = np.int64(-1)
        for k in range(columns.block_of_P[columns.starts_G1[g]], columns.block_of_P[columns.starts_G1[g + 1] - 1] + 1):
            first, end = columns.block_starts_K1[k], columns.block_starts_K1[k + 1]
            q0, q1 = columns.outer_model_P2[first, 0], columns.outer_model_P2[first, 1]
            if q0 == at_right:
                left, right = right, left
            else:
                _model_column(L, rows, columns, q0, segments[:num_segments], low_buffer, left)
            _model_column(L, rows, columns, q1, segments[:num_segments], low_buffer, right)
            at_right = q1
            num_stretches = _stretches(segments[:num_segments], rows, left, right, offset, looks, stretches)
            if num_stretches == 1 and stretches[0, 2] == _BELOW:
                continue
            for x in range(first, end):
                if n + height + 2 > len(edges):
                    longer = np.empty(2 * len(edges), np.int64)
                    longer[:n] = edges[:n]
                    edges = longer
                base = np.int64(x + origin_xy[0]) * image_height + origin_xy[1]
                weights = columns.outer_weights_P2[x, 0], columns.outer_weights_P2[x, 1]
                found, more_high, more_low = _column(
                    rows, stretches[:num_stretches], left, right, weights, offset, values, edges[n:], base
                )
                above_high, above_low = above_high + more_high, above_low + more_low
                if found:
                    x0, x1 = min(x0, x), x
                    y0, y1 = min(y0, edges[n] - base), max(y1, edges[n + found - 1] - base - 1)
                n += found

    # Move the box into the image
    if x1 < 0:
        return edges[:0], above_high, above_low, (0, 0, 0, 0)
    dx, dy = origin_xy
    return edges[:n].copy(), above_high, above_low, (x0 + dx, y0 + dy, x1 + dx, y1 + dy)
