"""Numba backend of `clean_small_regions`: regions of column spans by union-find, without a bitmap.

The runs are cut at the columns' ends, so that each column is a row of spans of alternating colour (foreground or
background). Spans of one colour in neighbouring columns that touch, over sides or corners, belong to one region. Time
and memory grow with the number of runs and columns. The loop releases the GIL, so callers may clean several masks in
threads. Compiled code is cached beside this file.

Shape suffixes: S spans, C columns. A region is known by the index of its first span, its root.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from engine.kernels.regions import CleanedMask, window_xyxy
from storage import rle
from storage.rle import Rle


def clean_numba(runs: Rle, min_region_px: int) -> CleanedMask:
    """Clean a mask that is not empty as `clean_reference` does, with the same result."""
    x0, y0 = window_xyxy(runs, min_region_px)[:2]
    edges, is_changed, largest_px = _clean(runs.counts, runs.height, runs.width, min_region_px, (x0, y0))
    if is_changed:
        runs = rle.from_edges(edges, height=runs.height, width=runs.width)
    return CleanedMask(rle=runs, is_changed=bool(is_changed), largest_island_px=int(largest_px))


class _Spans(NamedTuple):
    """Spans of all columns, in each column from top to bottom without gaps; neighbours differ in colour.

    The class is a tuple because numba's compiled code accepts tuples.
    """

    ends_S: np.ndarray
    """Rows where the spans end, exclusive, int64; a span begins where the one above it ends."""
    is_foreground_S: np.ndarray
    """Colours of the spans, bool."""
    first_C1: np.ndarray
    """Index of the first span of each column, then the number of spans, int64."""


@numba.njit(cache=True, nogil=True)
def _clean(counts, height, width, min_px, origin_xy):  # type: ignore[no-untyped-def]
    """Find the run boundaries of the cleaned mask, whether it changed, and the area of its largest island."""
    # Fill small holes
    spans = _split(counts, height, width)
    root_S = _connect(spans, False)
    area_S = _areas(spans, root_S)
    is_small_S = ~spans.is_foreground_S & (area_S[root_S] < min_px)
    is_changed = is_small_S.any()
    if is_changed:
        spans = _recolour(spans, is_small_S)

    # Remove small islands except for the largest
    root_S = _connect(spans, True)
    area_S = _areas(spans, root_S)
    largest = _largest(spans, root_S, area_S, origin_xy)
    is_small_S = spans.is_foreground_S & (area_S[root_S] < min_px) & (root_S != largest)
    if is_small_S.any():
        is_changed = True
        spans = _recolour(spans, is_small_S)
    return _edges(spans, height), is_changed, area_S[largest]


@numba.njit(cache=True, nogil=True)
def _split(counts, height, width):  # type: ignore[no-untyped-def]
    """Cut run lengths at the columns' ends; empty runs disappear."""
    ends_S = np.empty(len(counts) + width, np.int64)
    is_foreground_S = np.empty(len(counts) + width, np.bool_)
    first_C1 = np.zeros(width + 1, np.int64)
    n = x = row = 0
    for i in range(len(counts)):
        is_foreground = i % 2 == 1
        left = np.int64(counts[i])
        while left > 0:
            taken = min(left, height - row)
            row, left = row + taken, left - taken
            if n > first_C1[x] and is_foreground_S[n - 1] == is_foreground:  # an empty run came between
                n -= 1
            ends_S[n], is_foreground_S[n] = row, is_foreground
            n += 1
            if row == height:
                x, row = x + 1, 0
                first_C1[x] = n
    return _Spans(ends_S[:n], is_foreground_S[:n], first_C1)


@numba.njit(cache=True, nogil=True)
def _connect(spans, is_foreground):  # type: ignore[no-untyped-def]
    """Find the root of each span of a colour, int64; spans of the other colour keep their own index."""
    ends_S, is_other_S, first_C1 = spans.ends_S, spans.is_foreground_S != is_foreground, spans.first_C1
    parent_S = np.arange(len(ends_S))
    for x in range(1, len(first_C1) - 1):
        a, b = first_C1[x - 1], first_C1[x]
        while a < first_C1[x]:  # both columns end at the same row
            if not (is_other_S[a] or is_other_S[b]):
                _join(parent_S, a, b)
            if ends_S[a] < ends_S[b]:
                a += 1
            elif ends_S[a] > ends_S[b]:
                b += 1
            else:
                if is_other_S[a] != is_other_S[b] and a + 1 < first_C1[x]:  # the spans below swap: a corner touches
                    _join(parent_S, a + is_other_S[a], b + is_other_S[b])
                a, b = a + 1, b + 1
    for s in range(len(parent_S)):
        parent_S[s] = parent_S[parent_S[s]]  # a parent has the lower index, so it knows its root by now
    return parent_S


@numba.njit(cache=True, nogil=True)
def _join(parent_S, a, b):  # type: ignore[no-untyped-def]
    """Join the regions of two spans; the lower root stays."""
    while parent_S[a] != a:
        parent_S[a] = parent_S[parent_S[a]]
        a = parent_S[a]
    while parent_S[b] != b:
        parent_S[b] = parent_S[parent_S[b]]
        b = parent_S[b]
    parent_S[max(a, b)] = min(a, b)


@numba.njit(cache=True, nogil=True)
def _areas(spans, root_S):  # type: ignore[no-untyped-def]
    """Add up the pixels of each region at its root, int64."""
    area_S = np.zeros(len(root_S), np.int64)
    for x in range(len(spans.first_C1) - 1):
        top = 0
        for s in range(spans.first_C1[x], spans.first_C1[x + 1]):
            area_S[root_S[s]] += spans.ends_S[s] - top
            top = spans.ends_S[s]
    return area_S


@numba.njit(cache=True, nogil=True)
def _largest(spans, root_S, area_S, origin_xy):  # type: ignore[no-untyped-def]
    """Find the root of the largest foreground region.

    Of equally large regions, it is the first in OpenCV's numbering: blocks of 2 x 2 pixels from the window's origin,
    row by row.
    """
    width = len(spans.first_C1) - 1
    best = best_area = best_block = -1
    for x in range(width):
        top = 0
        for s in range(spans.first_C1[x], spans.first_C1[x + 1]):
            area = area_S[root_S[s]]
            if spans.is_foreground_S[s] and area >= best_area:
                block = (top - origin_xy[1]) // 2 * width + (x - origin_xy[0]) // 2
                if area > best_area or block < best_block:
                    best, best_area, best_block = root_S[s], area, block
            top = spans.ends_S[s]
    return best


@numba.njit(cache=True, nogil=True)
def _recolour(spans, is_swapped_S):  # type: ignore[no-untyped-def]
    """Give the marked spans the other colour, and join spans that now have their neighbour's."""
    ends_S, is_foreground_S = np.empty_like(spans.ends_S), np.empty_like(spans.is_foreground_S)
    first_C1 = np.zeros_like(spans.first_C1)
    n = 0
    for x in range(len(first_C1) - 1):
        for s in range(spans.first_C1[x], spans.first_C1[x + 1]):
            is_foreground = spans.is_foreground_S[s] != is_swapped_S[s]
            if n > first_C1[x] and is_foreground_S[n - 1] == is_foreground:
                n -= 1
            ends_S[n], is_foreground_S[n] = spans.ends_S[s], is_foreground
            n += 1
        first_C1[x + 1] = n
    return _Spans(ends_S[:n], is_foreground_S[:n], first_C1)


@numba.njit(cache=True, nogil=True)
def _edges(spans, height):  # type: ignore[no-untyped-def]
    """List the column-major positions start, end, start, end, ... of the foreground spans, int64."""
    edges = np.empty(2 * len(spans.ends_S), np.int64)
    n = 0
    for x in range(len(spans.first_C1) - 1):
        top = 0
        for s in range(spans.first_C1[x], spans.first_C1[x + 1]):
            if spans.is_foreground_S[s]:
                edges[n], edges[n + 1] = x * height + top, x * height + spans.ends_S[s]
                n += 2
            top = spans.ends_S[s]
    return edges[:n]
