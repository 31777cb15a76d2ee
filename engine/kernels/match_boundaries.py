"""One-to-one matching of boundary pixels that lie near each other, as in the benchmark of BSDS500.

Two pixels can be matched where their distance is at most `max_distance_px`; each pixel is in at most one pair. The
matching has the least total cost. A pair costs its distance, in hundredths of a pixel, rounded as in the benchmark's
program. Each pair that is missing costs 100 times the largest distance, so that nearly always the matching is a largest
one, and among the largest one of the least sum of distances. Sources: Martin, Fowlkes and Malik 2004, "Learning to
detect natural image boundaries"; Arbelaez et al. 2011, "Contour detection and hierarchical image segmentation".

The result is exact. The benchmark's program links each pixel to 6 random outliers only, so that its cost can be
higher. Where several matchings cost the same, both take an arbitrary one, which can be another.

The pairs that are possible are listed once for all predicted pixels of an image, and each threshold takes its own
pixels.

Shape letters: H/W the image, A predicted pixels that may be matched, B pixels of the ground truth, E possible pairs.
"""

from __future__ import annotations

import math

import numpy as np

COST_OF_PIXEL = 100
"""Cost of a pair for each pixel of its distance; costs are rounded to integers."""
OUTLIER_COST = 100
"""Cost of a missing pair, as a multiple of the cost of a pair at the largest distance."""


class BoundaryMatcher:
    """All pairs that are possible between predicted pixels and one ground truth; it matches any subset of the former.

    Needs numba.
    """

    def __init__(self, candidates_HW: np.ndarray, truth_HW: np.ndarray, max_distance_px: float) -> None:
        """List the possible pairs.

        Args:
            candidates_HW: bool; every predicted pixel that a later call may match.
            truth_HW: bool; boundary pixels of the ground truth.
            max_distance_px: largest Euclidean distance of two matched pixels; at least 0.

        Raises:
            ValueError: The shapes differ, or the distance is negative.
        """
        if candidates_HW.shape != truth_HW.shape or candidates_HW.ndim != 2:
            raise ValueError(f"got maps of {candidates_HW.shape} and {truth_HW.shape}, expected one shape [H, W]")
        if max_distance_px < 0:
            raise ValueError(f"got a distance of {max_distance_px}, expected at least 0")
        self._candidates_HW, self._truth_HW = candidates_HW.astype(bool), truth_HW.astype(bool)
        self._outlier_cost = max(1, math.ceil(OUTLIER_COST * max_distance_px * COST_OF_PIXEL))
        truth_E, candidate_E, cost_E = _possible_pairs(self._candidates_HW, self._truth_HW, max_distance_px)
        num_candidates, num_truth = int(self._candidates_HW.sum()), int(self._truth_HW.sum())
        self._by_candidate = _sorted_edges(candidate_E, truth_E, cost_E, num_candidates)
        self._by_truth = _sorted_edges(truth_E, candidate_E, cost_E, num_truth)

    def match(self, predicted_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Match a subset of the predicted pixels; return the matched pixels of both maps, bool [H, W] each.

        Both results have as many pixels as there are pairs.

        Raises:
            ValueError: A predicted pixel is not among the candidates.
        """
        from engine.kernels.match_boundaries_numba import Graph, cheapest_matching  # engine imports without numba

        predicted_HW = predicted_HW.astype(bool)
        if (predicted_HW & ~self._candidates_HW).any():
            raise ValueError("got a predicted pixel that is no candidate, expected a subset of the candidates")
        is_active_A, is_active_B = predicted_HW[self._candidates_HW], np.ones(int(self._truth_HW.sum()), dtype=bool)
        # fewer rows than columns leave fewer rows without a partner, whose paths are the longest to search
        by_truth = len(is_active_B) < np.count_nonzero(is_active_A)
        edges = self._by_truth if by_truth else self._by_candidate
        active = (is_active_B, is_active_A) if by_truth else (is_active_A, is_active_B)
        columns_R = cheapest_matching(Graph(*edges, active[0], active[1], self._outlier_cost))
        is_matched_C = np.zeros(len(active[1]), dtype=bool)
        is_matched_C[columns_R[columns_R >= 0]] = True
        is_matched_B, is_matched_A = (columns_R >= 0, is_matched_C) if by_truth else (is_matched_C, columns_R >= 0)
        matched_HW, found_HW = np.zeros_like(predicted_HW), np.zeros_like(predicted_HW)
        matched_HW[self._candidates_HW] = is_matched_A
        found_HW[self._truth_HW] = is_matched_B
        return matched_HW, found_HW


def _sorted_edges(
    row_E: np.ndarray, column_E: np.ndarray, cost_E: np.ndarray, num_rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the possible pairs by one side, the rows: where the pairs of each row start, and their columns and costs."""
    order_E = np.argsort(row_E, kind="stable")
    start_R1 = np.concatenate([[0], np.cumsum(np.bincount(row_E, minlength=num_rows))])
    return start_R1, column_E[order_E], cost_E[order_E]


def _possible_pairs(
    candidates_HW: np.ndarray, truth_HW: np.ndarray, max_distance_px: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the pairs of at most the distance: numbers of truth pixels and of candidates, and costs; int64 [E] each."""
    reach = int(max_distance_px)
    number_of_HW = np.full(truth_HW.shape, -1)
    number_of_HW[truth_HW] = np.arange(np.count_nonzero(truth_HW))
    padded = np.pad(number_of_HW, reach, constant_values=-1)
    y_A, x_A = np.nonzero(candidates_HW)
    truth, candidates, costs = [], [], []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx <= max_distance_px**2:
                near_A = padded[y_A + dy + reach, x_A + dx + reach]
                truth.append(near_A[near_A >= 0])
                candidates.append(np.flatnonzero(near_A >= 0))
                costs.append(np.full(len(truth[-1]), round(math.hypot(dy, dx) * COST_OF_PIXEL)))
    return np.concatenate(truth), np.concatenate(candidates), np.concatenate(costs)
