"""One-to-one matching of boundary pixels that lie near each other; not exactly that of the benchmark of BSDS500.

Two pixels can be matched where their distance is at most `max_distance_px`; each pixel is in at most one pair. The
matching has the largest possible number of pairs. The benchmark's own program (Martin et al. 2004, "Learning to detect
natural image boundaries"; Arbelaez et al. 2011) looks for the least sum of distances, and lets a pixel without a
partner cost much more than any pair. This matching ignores distances: where several largest matchings exist, it takes
an arbitrary one. So it may match other pixels than the benchmark's program does, and the set of pixels that are matched
to at least one of several people may be larger or smaller.

The pairs that are possible are listed once for all predicted pixels of an image, and each threshold takes its own
pixels.

Shape letters: H/W the image, A predicted pixels that may be matched, B pixels of the ground truth, E possible pairs.
"""

from __future__ import annotations

import numpy as np


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
        truth_E, candidate_E = _possible_pairs(self._candidates_HW, self._truth_HW, max_distance_px)
        by_truth_E = np.argsort(truth_E, kind="stable")
        self._neighbours_E = candidate_E[by_truth_E]
        degree_B = np.bincount(truth_E, minlength=np.count_nonzero(self._truth_HW))
        self._start_B1 = np.concatenate([[0], np.cumsum(degree_B)])

    def match(self, predicted_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Match a subset of the predicted pixels; return the matched pixels of both maps, bool [H, W] each.

        Both results have as many pixels as there are pairs.

        Raises:
            ValueError: A predicted pixel is not among the candidates.
        """
        from engine.kernels.match_boundaries_numba import largest_matching  # engine imports without numba

        predicted_HW = predicted_HW.astype(bool)
        if (predicted_HW & ~self._candidates_HW).any():
            raise ValueError("got a predicted pixel that is no candidate, expected a subset of the candidates")
        is_active_A = predicted_HW[self._candidates_HW]
        partner_B = largest_matching(self._start_B1, self._neighbours_E, is_active_A)
        is_matched_A = np.zeros(len(is_active_A), dtype=bool)
        is_matched_A[partner_B[partner_B >= 0]] = True
        matched_HW, found_HW = np.zeros_like(predicted_HW), np.zeros_like(predicted_HW)
        matched_HW[self._candidates_HW] = is_matched_A
        found_HW[self._truth_HW] = partner_B >= 0
        return matched_HW, found_HW


def _possible_pairs(
    candidates_HW: np.ndarray, truth_HW: np.ndarray, max_distance_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """List the pairs of at most the distance: numbers of truth pixels and of candidates, int64 [E] each."""
    reach = int(max_distance_px)
    number_of_HW = np.full(truth_HW.shape, -1)
    number_of_HW[truth_HW] = np.arange(np.count_nonzero(truth_HW))
    padded = np.pad(number_of_HW, reach, constant_values=-1)
    y_A, x_A = np.nonzero(candidates_HW)
    truth, candidates = [], []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx <= max_distance_px**2:
                near_A = padded[y_A + dy + reach, x_A + dx + reach]
                truth.append(near_A[near_A >= 0])
                candidates.append(np.flatnonzero(near_A >= 0))
    return np.concatenate(truth), np.concatenate(candidates)
