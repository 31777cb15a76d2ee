"""Largest matching of a bipartite graph by the algorithm of Hopcroft and Karp (1973), compiled by numba."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def largest_matching(start_B1: np.ndarray, neighbours_E: np.ndarray, is_active_A: np.ndarray) -> np.ndarray:
    """Match as many of B nodes as possible, each to one active neighbour; return the neighbour of each, or -1.

    Args:
        start_B1: int64; the neighbours of node b are `neighbours_E[start_B1[b] : start_B1[b + 1]]`.
        neighbours_E: int64 numbers of the nodes of the other side.
        is_active_A: bool; whether each node of the other side takes part.
    """
    num_b = len(start_B1) - 1
    partner_B, partner_A = np.full(num_b, -1), np.full(len(is_active_A), -1)
    depth_B, queue_B = np.empty(num_b, dtype=np.int64), np.empty(num_b, dtype=np.int64)
    path_B, taken_B = np.empty(num_b, dtype=np.int64), np.empty(num_b, dtype=np.int64)
    while _layers(start_B1, neighbours_E, is_active_A, partner_B, partner_A, depth_B, queue_B):
        next_B = start_B1[:-1].copy()
        for root in range(num_b):
            if partner_B[root] >= 0:
                continue
            path_B[0] = root
            length = _search(start_B1, neighbours_E, is_active_A, partner_A, depth_B, next_B, path_B, taken_B)
            for step in range(length):  # every node on the path takes the next one
                partner_B[path_B[step]], partner_A[taken_B[step]] = taken_B[step], path_B[step]
    return partner_B


@numba.njit(cache=True, nogil=True)
def _search(
    start_B1: np.ndarray,
    neighbours_E: np.ndarray,
    is_active_A: np.ndarray,
    partner_A: np.ndarray,
    depth_B: np.ndarray,
    next_B: np.ndarray,
    path_B: np.ndarray,
    taken_B: np.ndarray,
) -> int:
    """Search an alternating path from `path_B[0]` down the layers to a free node; return its length, 0 without one.

    The path is written to `path_B` and `taken_B`; `next_B` holds the next edge to try of each node, so that no edge is
    tried twice in a round.
    """
    top = 0
    while top >= 0:
        b = path_B[top]
        if next_B[b] == start_B1[b + 1]:
            top -= 1
            continue
        a = neighbours_E[next_B[b]]
        next_B[b] += 1
        if not is_active_A[a]:
            continue
        taken_B[top] = a
        other = partner_A[a]
        if other < 0:
            return top + 1
        if depth_B[other] == depth_B[b] + 1:
            top += 1
            path_B[top] = other
    return 0


@numba.njit(cache=True, nogil=True)
def _layers(
    start_B1: np.ndarray,
    neighbours_E: np.ndarray,
    is_active_A: np.ndarray,
    partner_B: np.ndarray,
    partner_A: np.ndarray,
    depth_B: np.ndarray,
    queue_B: np.ndarray,
) -> bool:
    """Number the layers of alternating paths from the free nodes in `depth_B`; tell whether one reaches a free node."""
    tail, reaches = 0, False
    for b in range(len(depth_B)):
        depth_B[b] = 0 if partner_B[b] < 0 else -1
        if partner_B[b] < 0:
            queue_B[tail] = b
            tail += 1
    head = 0
    while head < tail:
        b = queue_B[head]
        head += 1
        for edge in range(start_B1[b], start_B1[b + 1]):
            a = neighbours_E[edge]
            if not is_active_A[a]:
                continue
            other = partner_A[a]
            if other < 0:
                reaches = True
            elif depth_B[other] < 0:
                depth_B[other] = depth_B[b] + 1
                queue_B[tail] = other
                tail += 1
    return reaches
