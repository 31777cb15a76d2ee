"""Measurement of a verifier on photographs it was not fitted on: AUROC with intervals over photographs, calibration.

Shape letters: N examples, I photographs, B bootstrap draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.evaluation.scores import BOOTSTRAP_DRAWS, CALIBRATION_BINS, Estimate
from engine.logistic import fit_logistic

FOLDS = 5
"""Number of groups of photographs of which one is held out at a time."""


@dataclass(frozen=True, kw_only=True)
class VerifierMetrics:
    """Metrics of a verifier on held-out photographs, beside predicted IoU alone."""

    photographs: int
    masks: int
    good: int
    """Number of masks whose verdict is "good"."""
    auroc: Estimate
    """Area under the ROC curve: the probability that a good mask ranks above a bad one."""
    auroc_predicted_iou: Estimate
    """The same of predicted IoU alone."""
    difference: Estimate
    """`auroc` minus `auroc_predicted_iou`, both on the same draws of photographs."""
    brier: float
    """Mean squared difference of probability and verdict."""
    brier_constant: float
    """The same of a verifier that always says the fraction of good masks."""
    expected_calibration_error: float
    """Difference of mean probability and fraction of good masks in tenths of the range, averaged over masks."""

    def to_json(self) -> dict[str, Any]:
        """Make a flat JSON object; an interval stands under `<name>_interval`."""
        content: dict[str, Any] = {"photographs": self.photographs, "masks": self.masks, "good": self.good}
        for name in ("auroc", "auroc_predicted_iou", "difference"):
            figure: Estimate = getattr(self, name)
            content[name] = round(figure.value, 4)
            content[f"{name}_interval"] = [round(edge, 4) for edge in figure.interval] if figure.interval else None
        for name in ("brier", "brier_constant", "expected_calibration_error"):
            content[name] = round(getattr(self, name), 4)
        return content


def cross_validate(
    features_NF: np.ndarray, yes_N: np.ndarray, photograph_N: np.ndarray, *, l2: float, seed: int
) -> np.ndarray:
    """Compute the probability of each example by a model fitted without the example's photograph; float64 [N].

    Raises:
        ValueError: There are too few photographs, or a fold leaves verdicts of one kind alone.
    """
    names = np.unique(photograph_N)
    if len(names) < FOLDS:
        raise ValueError(f"got masks of {len(names)} photographs, expected at least {FOLDS} to hold some out")
    fold_I = np.random.default_rng(seed).permutation(len(names)) % FOLDS
    fold_N = fold_I[np.searchsorted(names, photograph_N)]
    probability_N = np.zeros(len(yes_N))
    for fold in range(FOLDS):
        others_N = fold_N != fold
        model = fit_logistic(features_NF[others_N], yes_N[others_N], l2)
        probability_N[~others_N] = model.probability(features_NF[~others_N])
    return probability_N


def measure_verifier(
    probability_N: np.ndarray, predicted_iou_N: np.ndarray, yes_N: np.ndarray, photograph_N: np.ndarray, *, seed: int
) -> VerifierMetrics:
    """Compare held-out probabilities with verdicts, beside predicted IoU alone."""
    names, image_N = np.unique(photograph_N, return_inverse=True)
    rng = np.random.default_rng(seed)
    draws_BI = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=BOOTSTRAP_DRAWS)
    ours_B, theirs_B = (
        np.array([weighted_auroc(score_N, yes_N, draw_I[image_N]) for draw_I in draws_BI])
        for score_N in (probability_N, predicted_iou_N)
    )
    usable_B = np.isfinite(ours_B) & np.isfinite(theirs_B)  # a draw may have verdicts of one kind alone
    ours_B, theirs_B = ours_B[usable_B], theirs_B[usable_B]
    ones_N = np.ones(len(yes_N))
    ours = weighted_auroc(probability_N, yes_N, ones_N)
    theirs = weighted_auroc(predicted_iou_N, yes_N, ones_N)
    return VerifierMetrics(
        photographs=len(names),
        masks=len(yes_N),
        good=int(yes_N.sum()),
        auroc=_estimate(ours, ours_B),
        auroc_predicted_iou=_estimate(theirs, theirs_B),
        difference=_estimate(ours - theirs, ours_B - theirs_B),
        brier=float(np.mean((probability_N - yes_N) ** 2)),
        brier_constant=float(yes_N.mean() * (1 - yes_N.mean())),
        expected_calibration_error=calibration_error(probability_N, yes_N),
    )


def weighted_auroc(score_N: np.ndarray, yes_N: np.ndarray, weight_N: np.ndarray) -> float:
    """Compute the area under the ROC curve of weighted examples, ties as half; NaN without examples of both kinds."""
    _, place_N = np.unique(score_N, return_inverse=True)
    good_K = np.bincount(place_N, weights=weight_N * yes_N)
    bad_K = np.bincount(place_N, weights=weight_N * (1 - np.asarray(yes_N, dtype=np.float64)))
    pairs = good_K.sum() * bad_K.sum()
    if pairs == 0:
        return float("nan")
    worse_K = bad_K.cumsum() - bad_K
    return float((good_K * (worse_K + bad_K / 2)).sum() / pairs)


def calibration_error(probability_N: np.ndarray, yes_N: np.ndarray) -> float:
    """Compute the expected calibration error over ten bins of equal width."""
    bin_N = np.clip((probability_N * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    gap_K = np.bincount(bin_N, weights=probability_N - yes_N)
    return float(np.abs(gap_K).sum() / len(yes_N))


def _estimate(value: float, values_B: np.ndarray) -> Estimate:
    low, high = np.percentile(values_B, [2.5, 97.5])
    return Estimate(value=value, interval=(float(low), float(high)))
