"""Greedy non-maximum suppression of boxes, as in Fast R-CNN and the automatic mask generator of Segment Anything.

The reference is vectorised over the remaining boxes, so its cost is (boxes kept) x (boxes): 4 ms for 400 boxes and
100 ms for 3,000 on a CPU core, where the network takes minutes. A GPU spends less than that on a whole image, so its
Triton backend compares all pairs at once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np


def box_nms(
    boxes_N4: np.ndarray,
    scores_N: np.ndarray,
    threshold: float,
    *,
    backend: Literal["reference", "triton"] = "reference",
) -> np.ndarray:
    """Suppress overlapping boxes; returns the indices of the survivors, best score first, int64 [K].

    A box is dropped if its IoU with a better-scored survivor exceeds `threshold`; equal scores keep their order. Widths
    are x1 - x0 without a pixel added: boxes with inclusive maxima reproduce the decisions of the original code.

    Args:
        boxes_N4: xyxy, any number type; areas are exact up to 2^53.
        scores_N: ranks, best highest.
        threshold: IoU in [0, 1]; above 1 nothing is dropped.
        backend: "triton" compares boxes on the GPU, with the same survivors for boxes of whole pixels.

    Raises:
        ValueError: boxes and scores do not fit, or the backend is unknown.
        RuntimeError: the backend is "triton" and Triton or a GPU is missing.
    """
    if boxes_N4.shape != (len(scores_N), 4):
        raise ValueError(f"got boxes {boxes_N4.shape} and {len(scores_N)} scores, expected [N, 4] and [N]")
    order = np.argsort(-np.asarray(scores_N, dtype=np.float64), kind="stable")
    boxes_N4 = np.asarray(boxes_N4, dtype=np.float64)[order]
    if backend == "reference":
        return order[survivors_reference(boxes_N4, threshold)]
    if backend == "triton":
        return order[_survivors_triton(boxes_N4, threshold)]
    raise ValueError(f"got backend {backend!r}, expected 'reference' or 'triton'")


def survivors_reference(boxes_N4: np.ndarray, threshold: float) -> np.ndarray:
    """Decide which of these boxes, sorted best first, survive; bool [N]."""
    alive_N = np.ones(len(boxes_N4), dtype=bool)
    for i in range(len(boxes_N4)):
        if alive_N[i]:
            later = i + 1 + np.flatnonzero(alive_N[i + 1 :])
            alive_N[later] = box_iou(boxes_N4[i], boxes_N4[later]) <= threshold
    return alive_N


def _survivors_triton(boxes_N4: np.ndarray, threshold: float) -> np.ndarray:
    try:
        from engine.kernels.nms_triton import overlaps_triton
    except ImportError as error:
        raise RuntimeError(f"the Triton backend of box_nms cannot run: {error}; install triton") from error
    alive_N = np.ones(len(boxes_N4), dtype=bool)
    dropped = 0
    for i, overlaps in enumerate(overlaps_triton(boxes_N4, threshold)):
        alive_N[i] = not dropped >> i & 1
        if alive_N[i]:
            dropped |= overlaps
    return alive_N


def box_iou(box_4: np.ndarray, boxes_N4: np.ndarray) -> np.ndarray:
    """Compute the IoU of one box with each of N; float64 [N], 0 where the union is empty."""
    low_N2, high_N2 = np.maximum(box_4[:2], boxes_N4[:, :2]), np.minimum(box_4[2:], boxes_N4[:, 2:])
    shared_N = np.clip(high_N2 - low_N2, 0, None).prod(axis=1)
    union_N = (box_4[2:] - box_4[:2]).prod() + (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(axis=1) - shared_N
    return np.divide(shared_N, union_N, out=np.zeros(len(boxes_N4)), where=union_N > 0)
