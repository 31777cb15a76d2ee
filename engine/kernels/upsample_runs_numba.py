"""The fast twin of `upsample_runs.scan_reference`: one pass over low-resolution logits, no full-resolution mask.

Output columns are walked in groups that read the same low-resolution columns. For a group each low-resolution row is
classed as surely above +offset, surely below -offset, or mixed; stretches of output rows of one sure class are counted
without a look, mixed ones are evaluated with the roundings of torch's kernels, so that the bits are the same. The loop
releases the GIL: callers may run several masks in threads. Compiled code is cached beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
import torch

from engine.images import Frame
from engine.kernels.upsample_runs import ScannedMask, linear_taps
from storage import rle

_BELOW, _ABOVE, _MIXED = 0, 1, 2
_MARGIN = np.float32(1e-3)  # logits; far above the rounding of a blend of same-signed values


def scan_numba(logits_RC: torch.Tensor, frame: Frame, low_side: int, offset: float) -> ScannedMask:
    """Same result as `scan_reference`."""
    (scaled_height, scaled_width), (height, width) = frame.scaled_hw, frame.crop_hw
    rows = axis(low_side, frame.model_side, scaled_height, height)
    columns = axis(low_side, frame.model_side, scaled_width, width)
    logits = np.ascontiguousarray(logits_RC.numpy())
    x0, y0 = frame.crop_xyxy[:2]
    image_height, image_width = frame.image_hw
    edges, counts, box = _scan(
        logits,
        rows.low_P4, rows.weights_P6, rows.starts_G1, rows.support_G2,
        columns.low_P4, columns.weights_P6, columns.starts_G1, columns.support_G2,
        x0, y0, image_height, np.float32(offset),
    )  # fmt: skip
    return ScannedMask(
        rle=rle.from_edges(edges, height=image_height, width=image_width),
        box_4=(int(box[0]), int(box[1]), int(box[2]), int(box[3])),
        area_px=int(counts[1]),
        above_high_px=int(counts[0]),
        above_low_px=int(counts[2]),
    )


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Both resizes along one axis: the low-resolution positions and weights behind each of P output positions."""

    low_P4: np.ndarray
    """int64: the two low positions behind the first model position, then those behind the second."""
    weights_P6: np.ndarray
    """float32: the weights of those four, then of the two model positions."""
    starts_G1: np.ndarray
    """int64 [G + 1]: where groups of outputs that read the same low positions begin; the last is P."""
    support_G2: np.ndarray
    """int64: first and last low position a group reads."""


@lru_cache(maxsize=256)
def axis(low_side: int, model_side: int, scaled: int, size: int) -> Axis:
    """The tables for `low_side` -> `model_side`, cut to `scaled`, -> `size`."""
    inner, outer = linear_taps(low_side, model_side), linear_taps(scaled, size)
    first_P, second_P = outer.first_P, outer.second_P
    low_P4 = np.stack([table[tap] for tap in (first_P, second_P) for table in (inner.first_P, inner.second_P)], axis=1)
    weights = [table[tap] for tap in (first_P, second_P) for table in (inner.weight0_P, inner.weight1_P)]
    starts = np.flatnonzero((np.diff(low_P4[:, 0]) != 0) | (np.diff(low_P4[:, 3]) != 0)) + 1
    starts_G = np.concatenate([[0], starts])
    return Axis(
        low_P4=np.ascontiguousarray(low_P4, dtype=np.int64),
        weights_P6=np.stack([*weights, outer.weight0_P, outer.weight1_P], axis=1).astype(np.float32),
        starts_G1=np.append(starts_G, size).astype(np.int64),
        support_G2=np.ascontiguousarray(low_P4[starts_G][:, [0, 3]], dtype=np.int64),
    )


@numba.njit(inline="always")
def _blend(w0, a, w1, b):  # type: ignore[no-untyped-def]
    """w0 * a + w1 * b with the second product fused into the sum, as torch's compiled kernels have it."""
    return np.float32(np.float64(w1) * np.float64(b) + np.float64(np.float32(w0 * a)))


@numba.njit(inline="always")
def _model_value(L, ra, rb, wa, wb, ca, cb, va, vb):  # type: ignore[no-untyped-def]
    """The first resize at one model position."""
    return _blend(wa, _blend(va, L[ra, ca], vb, L[ra, cb]), wb, _blend(va, L[rb, ca], vb, L[rb, cb]))


@numba.njit(cache=True, nogil=True)
def _value(L, r, v, c, w):  # type: ignore[no-untyped-def]
    """Both resizes at one output pixel; r, c four low positions, v, w six weights of its row and column."""
    top = _blend(
        w[4], _model_value(L, r[0], r[1], v[0], v[1], c[0], c[1], w[0], w[1]),
        w[5], _model_value(L, r[0], r[1], v[0], v[1], c[2], c[3], w[2], w[3]),
    )  # fmt: skip
    bottom = _blend(
        w[4], _model_value(L, r[2], r[3], v[2], v[3], c[0], c[1], w[0], w[1]),
        w[5], _model_value(L, r[2], r[3], v[2], v[3], c[2], c[3], w[2], w[3]),
    )  # fmt: skip
    return _blend(v[4], top, v[5], bottom)


@numba.njit(cache=True, nogil=True)
def _row_classes(L, c0, c1, num_rows, offset, out):  # type: ignore[no-untyped-def]
    """Class of each low row over columns c0..c1; a NaN is neither above nor below, hence mixed."""
    high, low = offset + _MARGIN, -offset - _MARGIN
    for r in range(num_rows):
        above = below = True
        for c in range(c0, c1 + 1):
            above &= L[r, c] > high
            below &= L[r, c] < low
        out[r] = _ABOVE if above else (_BELOW if below else _MIXED)


@numba.njit(cache=True, nogil=True)
def _segments(row_class, starts, support, out):  # type: ignore[no-untyped-def]
    """Stretches (first, end, class) of output rows of one class; returns how many."""
    n = 0
    for g in range(len(starts) - 1):
        cls = row_class[support[g, 0]]
        for r in range(support[g, 0] + 1, support[g, 1] + 1):
            if row_class[r] != cls:
                cls = _MIXED
        if n > 0 and out[n - 1, 2] == cls:
            out[n - 1, 1] = starts[g + 1]
        else:
            out[n, 0], out[n, 1], out[n, 2] = starts[g], starts[g + 1], cls
            n += 1
    return n


@numba.njit(cache=True, nogil=True)
def _scan(L, ri, rw, rstarts, rsupport, ci, cw, cstarts, csupport, x0, y0, image_height, offset):  # type: ignore[no-untyped-def]
    """Edges (start, end, ...; column-major image positions), counts above +offset, 0 and -offset, inclusive box."""
    height = len(ri)
    edges = np.empty(2048, np.int64)
    n = 0
    high = mid = low = 0
    left, top, right, bottom = len(ci), height, -1, -1
    row_class = np.empty(L.shape[0], np.int64)
    segments = np.empty((len(rstarts), 3), np.int64)
    num_rows = rsupport[-1, 1] + 1
    for g in range(len(cstarts) - 1):
        _row_classes(L, csupport[g, 0], csupport[g, 1], num_rows, offset, row_class)
        num_segments = _segments(row_class, rstarts, rsupport, segments)
        if num_segments == 1 and segments[0, 2] == _BELOW:
            continue
        for x in range(cstarts[g], cstarts[g + 1]):
            base = np.int64(x + x0) * image_height + y0
            if n + height + 2 > len(edges):
                longer = np.empty(2 * len(edges) + height + 2, np.int64)
                longer[:n] = edges[:n]
                edges = longer
            inside = False
            for s in range(num_segments):
                first, end, cls = segments[s, 0], segments[s, 1], segments[s, 2]
                if cls == _MIXED:
                    for y in range(first, end):
                        value = _value(L, ri[y], rw[y], ci[x], cw[x])
                        low += value > -offset
                        high += value > offset
                        if (value > 0) != inside:
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
    if right < 0:
        return edges[:0], (high, mid, low), (0, 0, 0, 0)
    return edges[:n].copy(), (high, mid, low), (left + x0, top + y0, right + x0, bottom + y0)
