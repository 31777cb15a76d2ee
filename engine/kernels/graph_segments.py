"""Segments of an image at several scales by Felzenszwalb and Huttenlocher's graph method, equal to scikit-image's.

Neighbouring pixels, over sides and corners, are joined in the order of their difference in colour. Two segments are
joined where that difference is below what each of them tolerates: the largest difference inside it plus `scale / size`.
The differences and their order, which take most of the memory, are computed once for all scales. scikit-image computes
them for each scale, and its forest without path compression needs seconds for an image with large even areas.

The loop releases the GIL, so callers may segment several images in threads. Compiled code is cached beside this file.
Source: "Efficient Graph-Based Image Segmentation", IJCV 2004. Shape letters: S scales, E edges, N pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np


def graph_segments(smooth_HW3: np.ndarray, scales: Sequence[float], *, min_segment_px: int) -> np.ndarray:
    """Segment an image at each scale; return the number of each pixel's segment, int32 [S, H, W].

    The numbers of a scale count the segments in the order of their first pixels, row by row, from 0.

    Args:
        smooth_HW3: The smoothed image, float64, RGB in [0, 1].
        scales: Scales of the segmentation, for colours in [0, 255]; a larger scale gives larger segments.
        min_segment_px: Area, in pixels, below which a segment is joined to the neighbour of the most similar edge.
    """
    height, width = smooth_HW3.shape[:2]
    cost_E, one_E, other_E = _edges(smooth_HW3)
    order_E = np.argsort(cost_E)  # the sort that scikit-image calls, so that equal costs keep its order
    cost_E, one_E, other_E = cost_E[order_E], one_E[order_E], other_E[order_E]
    labels = [_segment(cost_E, one_E, other_E, height * width, k / 255.0, min_segment_px) for k in scales]
    return np.stack(labels).reshape(len(scales), height, width)


@numba.njit(cache=True, nogil=True)
def _edges(image_HW3):  # type: ignore[no-untyped-def]
    """Find the difference in colour and the two pixels of each edge: to the right, down, and along both diagonals."""
    height, width = image_HW3.shape[:2]
    count = height * (width - 1) + (height - 1) * width + 2 * (height - 1) * (width - 1)
    cost_E, one_E, other_E = np.empty(count), np.empty(count, np.int32), np.empty(count, np.int32)
    edge = 0
    for down, left, right in ((0, 0, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0)):
        for row in range(height - down):
            for column in range(width - left - right):
                x0, x1 = column + left, column + right
                red = image_HW3[row + down, x1, 0] - image_HW3[row, x0, 0]
                green = image_HW3[row + down, x1, 1] - image_HW3[row, x0, 1]
                blue = image_HW3[row + down, x1, 2] - image_HW3[row, x0, 2]
                cost_E[edge] = np.sqrt(red * red + green * green + blue * blue)
                one_E[edge], other_E[edge] = row * width + x0, (row + down) * width + x1
                edge += 1
    return cost_E, one_E, other_E


@numba.njit(cache=True, nogil=True)
def _segment(cost_E, one_E, other_E, pixels, scale, min_px):  # type: ignore[no-untyped-def]
    """Join the pixels in the order of the edges; return the number of each pixel's segment, int32 [N]."""
    forest_N, size_N = np.arange(pixels).astype(np.int32), np.ones(pixels, np.int32)
    tolerated_N = np.full(pixels, np.float32(scale))  # in single precision, as in scikit-image

    # Join alike segments, and remember the edges between others
    between_E, between = np.empty(len(cost_E), np.int32), 0
    for edge in range(len(cost_E)):
        one, other = _root(forest_N, one_E[edge]), _root(forest_N, other_E[edge])
        if one == other:
            continue
        if cost_E[edge] < min(tolerated_N[one], tolerated_N[other]):
            root = _join(forest_N, size_N, one, other)
            tolerated_N[root] = np.float32(cost_E[edge] + scale / size_N[root])
        else:
            between_E[between] = edge
            between += 1

    # Join small segments to a neighbour
    for edge in between_E[:between]:
        one, other = _root(forest_N, one_E[edge]), _root(forest_N, other_E[edge])
        if one != other and (size_N[one] < min_px or size_N[other] < min_px):
            _join(forest_N, size_N, one, other)

    return _number(forest_N)


@numba.njit(cache=True, nogil=True)
def _number(forest_N):  # type: ignore[no-untyped-def]
    """Number the segments in the order of their first pixels, their roots; int32 [N]."""
    number_N, count = np.empty(len(forest_N), np.int32), 0
    for pixel in range(len(forest_N)):
        root = _root(forest_N, pixel)
        if root == pixel:
            number_N[pixel] = count
            count += 1
        else:
            number_N[pixel] = number_N[root]
    return number_N


@numba.njit(cache=True, nogil=True)
def _root(forest_N, pixel):  # type: ignore[no-untyped-def]
    """Find the first pixel of a pixel's segment, and halve the path to it."""
    while forest_N[pixel] != pixel:
        forest_N[pixel] = forest_N[forest_N[pixel]]
        pixel = forest_N[pixel]
    return pixel


@numba.njit(cache=True, nogil=True)
def _join(forest_N, size_N, one, other):  # type: ignore[no-untyped-def]
    """Join two segments, given by their roots; return the root of the joined segment."""
    first, second = min(one, other), max(one, other)
    forest_N[second] = first
    size_N[first] += size_N[second]
    return first
