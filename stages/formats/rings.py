"""Masks as polygons of pixel corners, and one polygon for a mask with holes and several parts.

A ring goes along the corners of pixels, so that filling it gives the mask pixel by pixel. All rings of a mask are
filled together by the even-odd rule; a format that knows one ring only gets them joined by bridges, which are walked
there and back and enclose nothing.
"""

import numpy as np

_PAIRS = 200_000
"""Most pairs of corners among which the shortest bridge is looked for; beyond it a ring begins at its first corner."""


def rings_of(mask_HW: np.ndarray) -> list[np.ndarray]:
    """Trace the outlines of a mask's parts and holes: int64 [N, 2] each, (x, y) of the corners in walking order.

    Corners at which two pixels touch across belong to two rings, or twice to one.
    """
    padded = np.pad(mask_HW, 1).astype(np.int8)
    # A pixel corner turns the outline where an odd number of its four pixels is set, and twice where two across are
    square = padded[:-1, :-1] + padded[:-1, 1:] + padded[1:, :-1] + padded[1:, 1:]
    across = (square == 2) & (padded[:-1, :-1] == padded[1:, 1:])
    y, x = np.nonzero((square & 1).astype(bool) | across)
    if not x.size:
        return []
    times = np.where(across[y, x], 2, 1)
    corners = np.repeat(np.stack((x, y), axis=1), times, axis=0)

    # Corners of a row are joined in pairs from left to right, those of a column from top to bottom
    beside = _partners(np.lexsort((corners[:, 0], corners[:, 1])))
    below = _partners(np.lexsort((corners[:, 1], corners[:, 0])))
    beside_list, below_list = beside.tolist(), below.tolist()
    rings: list[np.ndarray] = []
    seen = bytearray(len(corners))
    for start in range(len(corners)):
        walk = list[int]()
        at = start
        while not seen[at]:
            seen[at] = 1
            walk.append(at)
            at = beside_list[at]
            seen[at] = 1
            walk.append(at)
            at = below_list[at]
        if walk:
            rings.append(corners[walk])
    return rings


def _partners(order: np.ndarray) -> np.ndarray:
    partners = np.empty_like(order)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return partners


def join(rings: list[np.ndarray]) -> np.ndarray:
    """Join rings to one by bridges between nearest corners; int64 [N, 2], without the first corner again at its end."""
    joined = rings[0]
    for ring in rings[1:]:
        tried = ring if len(joined) * len(ring) <= _PAIRS else ring[:1]
        far_AB = ((joined[:, None] - tried[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(far_AB.argmin()), far_AB.shape)
        turned = np.roll(ring, -int(there), axis=0)
        # ... here | there ... there | here ...
        joined = np.concatenate((joined[: here + 1], turned, turned[:1], joined[here:]))
    return joined
