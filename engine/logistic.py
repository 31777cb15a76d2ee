"""Logistic regression with L2 regularisation on standardised features, and thresholds on scores, in numpy.

Shape letters: N examples, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_NEWTON_STEPS = 100
CONVERGED = 1e-8
"""Largest change of a coefficient at which the fit ends."""


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """A fitted logistic model of a yes-or-no verdict."""

    mean_F: np.ndarray
    """Mean of each feature, float64, by which examples are standardised."""
    std_F: np.ndarray
    """Standard deviation of each feature, float64; 1 for a feature that does not vary."""
    weights_F: np.ndarray
    """Weight of each standardised feature, float64."""
    bias: float
    """Log odds of an example with average features."""

    def probability(self, features_NF: np.ndarray) -> np.ndarray:
        """Compute the probability of "yes" of each example, float64 [N]."""
        z_N = ((features_NF - self.mean_F) / self.std_F) @ self.weights_F + self.bias
        return _sigmoid(z_N)


def fit_logistic(features_NF: np.ndarray, yes_N: np.ndarray, l2: float = 1.0) -> Logistic:
    """Fit by Newton's method; the penalty is `l2` / 2 times the squared weights, and the bias is free.

    Raises:
        ValueError: All verdicts are the same, the penalty is not above 0, or a feature is not finite.
    """
    yes_N = np.asarray(yes_N, dtype=np.float64)
    if not 0 < yes_N.sum() < len(yes_N):
        raise ValueError(f"got {len(yes_N)} verdicts that are all the same, expected some of each kind")
    if l2 <= 0 or not np.isfinite(features_NF).all():
        raise ValueError(f"got a penalty of {l2} or features that are not finite, expected a penalty above 0")
    mean_F, std_F = features_NF.mean(axis=0), features_NF.std(axis=0)
    std_F = np.where(std_F > 1e-9, std_F, 1.0)
    x_NG = np.column_stack([(features_NF - mean_F) / std_F, np.ones(len(yes_N))])
    penalty_G = np.append(np.full(features_NF.shape[1], l2), 0.0)
    w_G = np.zeros(x_NG.shape[1])
    for _ in range(MAX_NEWTON_STEPS):
        p_N = _sigmoid(x_NG @ w_G)
        slope_G = x_NG.T @ (p_N - yes_N) + penalty_G * w_G
        curve_GG = (x_NG * (p_N * (1 - p_N))[:, None]).T @ x_NG + np.diag(penalty_G + 1e-9)
        step_G = np.linalg.solve(curve_GG, slope_G)
        w_G = w_G - step_G
        if np.abs(step_G).max() < CONVERGED:
            break
    return Logistic(mean_F=mean_F, std_F=std_F, weights_F=w_G[:-1], bias=float(w_G[-1]))


def lowest_score(score_N: np.ndarray, yes_N: np.ndarray, precision: float, *, min_count: int) -> float | None:
    """Find the lowest score at and above which the fraction of "yes" reaches `precision`.

    Return None where no group of at least `min_count` examples reaches it.
    """
    order = np.argsort(-score_N, kind="stable")
    count_N = np.arange(1, len(order) + 1)
    fraction_N = np.asarray(yes_N, dtype=np.float64)[order].cumsum() / count_N
    last_of_tie_N = np.append(np.diff(score_N[order]) < 0, True)
    enough = np.flatnonzero((fraction_N >= precision) & last_of_tie_N & (count_N >= min_count))
    return float(score_N[order][enough[-1]]) if len(enough) else None


def _sigmoid(z_N: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(z_N, -60, 60)))
