"""Triton backend of `nms`: a kernel compares all pairs of boxes and writes one bit for each pair.

Greedy suppression then walks over the rows of bits on the CPU. Boxes are float64 (x0, y0, x1, y1), [N, 4]. Boxes with
whole coordinates give the same bits on every device: every area is exact in float64, and a float64 division is rounded
correctly. On an H200 the bits were those of the reference. The kernel also runs in Triton's interpreter if
TRITON_INTERPRET=1 was set before the import.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

_SIDE = tl.constexpr(32)
"""Number of rows and of columns of a tile; equal to the 32 bits of a word."""


def overlaps_triton(boxes_N4: np.ndarray, threshold: float) -> list[int]:
    """Find all pairs of boxes whose IoU exceeds `threshold`.

    Returns:
        One integer for each box i. Bit j of this integer is set if j > i and the IoU of boxes i and j exceeds
        `threshold`.

    Raises:
        RuntimeError: There is no CUDA device, and Triton's interpreter is off.
    """
    if not torch.cuda.is_available() and not triton.knobs.runtime.interpret:
        raise RuntimeError("the Triton backend of box_nms needs a CUDA device, or TRITON_INTERPRET=1 before the import")
    device = "cpu" if triton.knobs.runtime.interpret else "cuda"
    count = len(boxes_N4)
    words_of_row = triton.cdiv(count, 32)
    boxes = torch.tensor(boxes_N4, device=device)
    words = torch.zeros((count, words_of_row), dtype=torch.int32, device=device)
    if count:
        limit = torch.tensor([threshold], dtype=torch.float64, device=device)  # a scalar argument would become float32
        pairs_kernel[(words_of_row, words_of_row)](boxes, limit, words, count, words_of_row)
    rows = words.cpu().numpy()
    return [int.from_bytes(row.tobytes(), "little") for row in rows.astype("<i4")]


@triton.jit(do_not_specialize=["count", "words_of_row"])
def pairs_kernel(boxes, limit, words, count, words_of_row):  # type: ignore[no-untyped-def]
    """Compare 32 boxes i with 32 boxes j, and write one 32-bit word to `words` for each box i.

    A bit of the word of box i stands for one box j. The bit is set if j > i and the IoU of boxes i and j exceeds
    `limit`.
    """
    i = tl.program_id(0) * _SIDE + tl.arange(0, _SIDE)
    j = tl.program_id(1) * _SIDE + tl.arange(0, _SIDE)
    left, top, right, bottom = _corners(boxes, i, count)
    lefts, tops, rights, bottoms = _corners(boxes, j, count)
    width = tl.minimum(right[:, None], rights[None, :]) - tl.maximum(left[:, None], lefts[None, :])
    height = tl.minimum(bottom[:, None], bottoms[None, :]) - tl.maximum(top[:, None], tops[None, :])
    shared = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
    area, areas = (right - left) * (bottom - top), (rights - lefts) * (bottoms - tops)
    union = area[:, None] + areas[None, :] - shared
    iou = tl.where(union > 0, shared / tl.where(union > 0, union, 1.0), 0.0)
    is_later = (j[None, :] > i[:, None]) & (j[None, :] < count)
    bits = tl.sum((is_later & (iou > tl.load(limit))).to(tl.int32) << tl.arange(0, _SIDE)[None, :], axis=1)
    tl.store(words + i * words_of_row + tl.program_id(1), bits, mask=i < count)


@triton.jit
def _corners(boxes, index, count):  # type: ignore[no-untyped-def]
    """Load the four coordinates of each box; load 0 for an index beyond the last box."""
    is_box = index < count
    left = tl.load(boxes + 4 * index, mask=is_box, other=0.0)
    top = tl.load(boxes + 4 * index + 1, mask=is_box, other=0.0)
    right = tl.load(boxes + 4 * index + 2, mask=is_box, other=0.0)
    bottom = tl.load(boxes + 4 * index + 3, mask=is_box, other=0.0)
    return left, top, right, bottom
