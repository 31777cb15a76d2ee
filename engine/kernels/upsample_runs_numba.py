"""Numba backend of `upsample_runs`: one pass over low-resolution logits, without a full-resolution mask.

Output columns are walked in groups that read the same low-resolution columns. For a group each low-resolution row is
classified as surely above +offset, surely below -offset, or mixed. Stretches of output rows of a sure class are counted
without evaluation; mixed ones are evaluated with the roundings of torch's kernels, so the results are the same to the
bit. The loop releases the GIL, so callers may scan several masks in threads. Compiled code is cached beside this file:
the very first call takes about five seconds, the first call of a later process about one.

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

_BELOW, _ABOVE, _MIXED = 0, 1, 2
_MARGIN = np.float32(1e-3)  # logits; far above the rounding of a blend of same-signed values


def scan_numba(logits_RC: torch.Tensor, frame: Frame, low_side: int, offset: float) -> ScannedMask:
    """Upsample the logits of one mask as `scan_reference` does, with the same result."""
    (scaled_height, scaled_width), (height, width) = frame.scaled_hw, frame.crop_hw
    x0, y0 = frame.crop_xyxy[:2]
    image_height, image_width = frame.image_hw
    edges, counts, box = _scan(
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
        area_px=int(counts[1]),
        above_high_px=int(counts[0]),
        above_low_px=int(counts[2]),
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


@lru_cache(maxsize=256)
def _axis(low_side: int, model_side: int, scaled: int, size: int) -> _Axis:
    """Compute the tables of two resizes: from `low_side` to `model_side`, then from its first `scaled` to `size`."""
    inner, outer = linear_taps(low_side, model_side), linear_taps(scaled, size)
    first_low_P, last_low_P = inner.first_P[outer.first_P], inner.second_P[outer.second_P]
    starts = np.flatnonzero((np.diff(first_low_P) != 0) | (np.diff(last_low_P) != 0)) + 1
    starts_G = np.concatenate([[0], starts]).astype(np.int64)
    return _Axis(
        inner_low_M2=np.stack([inner.first_P, inner.second_P], axis=1),
        inner_weights_M2=np.stack([inner.weight0_P, inner.weight1_P], axis=1),
        outer_model_P2=np.stack([outer.first_P, outer.second_P], axis=1),
        outer_weights_P2=np.stack([outer.weight0_P, outer.weight1_P], axis=1),
        starts_G1=np.append(starts_G, size).astype(np.int64),
        support_G2=np.stack([first_low_P[starts_G], last_low_P[starts_G]], axis=1),
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
        if n > 0 and out[n - 1, 2] == cls:
            out[n - 1, 1] = rows.starts_G1[g + 1]
        else:
            out[n, 0], out[n, 1], out[n, 2] = rows.starts_G1[g], rows.starts_G1[g + 1], cls
            n += 1
    return n


@numba.njit(cache=True, nogil=True)
def _evaluate(L, rows, columns, x, first, end, low_buffer, model_buffer, out):  # type: ignore[no-untyped-def]
    """Evaluate output rows first to end - 1 of column x into `out`; as torch does, blend columns before rows."""
    inner_low, inner_weights = rows.inner_low_M2, rows.inner_weights_M2
    outer_model, outer_weights = rows.outer_model_P2, rows.outer_weights_P2
    model_first, model_last = outer_model[first, 0], outer_model[end - 1, 1]
    for side in range(2):
        q = columns.outer_model_P2[x, side]
        c0, c1 = columns.inner_low_M2[q, 0], columns.inner_low_M2[q, 1]
        w0, w1 = columns.inner_weights_M2[q, 0], columns.inner_weights_M2[q, 1]
        for r in range(inner_low[model_first, 0], inner_low[model_last, 1] + 1):
            low_buffer[side, r] = _blend(w0, L[r, c0], w1, L[r, c1])
    w0, w1 = columns.outer_weights_P2[x, 0], columns.outer_weights_P2[x, 1]
    for p in range(model_first, model_last + 1):
        r0, r1 = inner_low[p, 0], inner_low[p, 1]
        v0, v1 = inner_weights[p, 0], inner_weights[p, 1]
        left = _blend(v0, low_buffer[0, r0], v1, low_buffer[0, r1])
        right = _blend(v0, low_buffer[1, r0], v1, low_buffer[1, r1])
        model_buffer[p] = _blend(w0, left, w1, right)
    for y in range(first, end):
        upper, lower = model_buffer[outer_model[y, 0]], model_buffer[outer_model[y, 1]]
        out[y] = _blend(outer_weights[y, 0], upper, outer_weights[y, 1], lower)


@numba.njit(cache=True, nogil=True)
def _scan(L, rows, columns, origin_xy, image_height, offset):  # type: ignore[no-untyped-def]  # noqa: C901, PLR0912, PLR0915
    """Find the run boundaries of a mask, its pixel counts above +offset, 0 and -offset, and its inclusive box."""
    # Allocate the buffers
    height, width = len(rows.outer_model_P2), len(columns.outer_model_P2)
    edges = np.empty(4096 + height, np.int64)
    n = 0
    high = mid = low = 0
    left, top, right, bottom = width, height, -1, -1
    num_rows = rows.support_G2[-1, 1] + 1
    row_class = np.empty(num_rows, np.int64)
    segments = np.empty((len(rows.starts_G1), 3), np.int64)
    low_buffer = np.empty((2, num_rows), np.float32)
    model_buffer = np.empty(len(rows.inner_low_M2), np.float32)
    values = np.empty(height, np.float32)

    # Walk over groups of columns, and in each column over the stretches of rows
    for g in range(len(columns.starts_G1) - 1):
        _row_classes(L, columns.support_G2[g, 0], columns.support_G2[g, 1], num_rows, offset, row_class)
        num_segments = _segments(row_class, rows, segments)
        if num_segments == 1 and segments[0, 2] == _BELOW:
            continue
        for x in range(columns.starts_G1[g], columns.starts_G1[g + 1]):
            base = np.int64(x + origin_xy[0]) * image_height + origin_xy[1]
            if n + height + 2 > len(edges):
                longer = np.empty(2 * len(edges), np.int64)
                longer[:n] = edges[:n]
                edges = longer
            inside = False
            for s in range(num_segments):
                first, end, cls = segments[s, 0], segments[s, 1], segments[s, 2]
                if cls == _MIXED:
                    _evaluate(L, rows, columns, x, first, end, low_buffer, model_buffer, values)
                    for y in range(first, end):
                        low += values[y] > -offset
                        high += values[y] > offset
                        if (values[y] > 0) != inside:
                            edges[n] = base + y
                            n += 1
                            inside = not inside
                        if inside:
                            mid += 1
                            left, right = min(left, x), x
                            top, bottom = min(top, y), max(bottom, y)
                else:
                    if (cls == _ABOVE) != inside:
                        edges[n] = base + first
                        n += 1
                        inside = not inside
                    if inside:
                        size = end - first
                        high, mid, low = high + size, mid + size, low + size
                        left, right = min(left, x), x
                        top, bottom = min(top, first), max(bottom, end - 1)
            if inside:  # close at the window's lower edge: the image may go on below it
                edges[n] = base + height
                n += 1

    # Move the box into the image
    if right < 0:
        return edges[:0], (high, mid, low), (0, 0, 0, 0)
    x0, y0 = origin_xy
    return edges[:n].copy(), (high, mid, low), (left + x0, top + y0, right + x0, bottom + y0)
