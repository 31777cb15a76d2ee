"""Measures of a verifier: AUROC, calibration, and cross-validation that keeps photographs together."""

import numpy as np
import pytest

from engine.verifier.measure import FOLDS, calibration_error, cross_validate, measure_verifier, weighted_auroc


def test_auroc_is_the_fraction_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    score, yes = rng.integers(0, 12, 60) / 12, rng.random(60) < 0.3
    good, bad = score[yes][:, None], score[~yes][None]
    expected = ((good > bad) + 0.5 * (good == bad)).mean()
    assert weighted_auroc(score, yes, np.ones(60)) == pytest.approx(expected)


def test_weights_are_repetitions() -> None:
    rng = np.random.default_rng(1)
    score, yes, times = rng.random(40), rng.random(40) < 0.5, rng.integers(0, 4, 40)
    repeated = weighted_auroc(score.repeat(times), yes.repeat(times), np.ones(times.sum()))
    assert weighted_auroc(score, yes, times) == pytest.approx(repeated)
    assert np.isnan(weighted_auroc(score, np.ones(40), np.ones(40)))


def test_calibration_error_is_the_gap_of_each_tenth() -> None:
    probability = np.array([0.91, 0.99, 0.05])
    assert calibration_error(probability, np.array([1.0, 1.0, 0.0])) == pytest.approx((0.09 + 0.01 + 0.05) / 3)


def test_a_photograph_is_never_judged_by_a_model_fitted_on_it() -> None:
    """Each photograph has a constant of its own that tells its verdict: it helps only a model that has seen it."""
    rng = np.random.default_rng(2)
    names = np.array([f"p{number}" for number in range(20)]).repeat(30)
    verdict_of = rng.random(20) < 0.5
    features = np.eye(20).repeat(30, axis=0)
    yes = verdict_of.repeat(30).astype(float)
    held_out = cross_validate(features, yes, names, l2=1.0, seed=0)
    assert weighted_auroc(held_out, yes, np.ones(600)) < 0.6
    with pytest.raises(ValueError, match=f"got masks of {FOLDS - 1} photographs"):
        cross_validate(features[: 30 * (FOLDS - 1)], yes[: 30 * (FOLDS - 1)], names[: 30 * (FOLDS - 1)], l2=1.0, seed=0)


def test_the_difference_is_paired_over_photographs() -> None:
    """Two scores swing together from photograph to photograph; their difference does not."""
    rng = np.random.default_rng(3)
    photograph = np.arange(40).repeat(25)
    yes = rng.random(1000) < 0.4
    noise = rng.normal(size=1000) + rng.normal(size=40).repeat(25) * 1.5
    theirs = yes + noise
    ours = theirs + 0.5 * (yes - 0.5)
    metrics = measure_verifier(1 / (1 + np.exp(-ours)), theirs, yes, photograph, seed=0)
    assert metrics.difference.value == pytest.approx(metrics.auroc.value - metrics.auroc_predicted_iou.value)

    def width(interval: tuple[float, float]) -> float:
        return interval[1] - interval[0]

    assert width(metrics.difference.interval) < width(metrics.auroc.interval) / 2
    assert metrics.difference.interval[0] > 0
    assert metrics.to_json()["auroc_interval"] is not None
    assert (metrics.photographs, metrics.masks, metrics.good) == (40, 1000, int(yes.sum()))
