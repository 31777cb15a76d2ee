"""Logistic regression."""

import numpy as np
import pytest

from engine.logistic import fit_logistic, lowest_score


def test_the_fit_is_the_minimum_of_the_penalised_loss() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3)) * [1, 10, 0.1] + [0, 5, 2]
    yes = rng.random(400) < 1 / (1 + np.exp(-(features[:, 0] - 0.1 * (features[:, 1] - 5))))
    model = fit_logistic(features, yes, l2=2.0)

    def loss(weights_F: np.ndarray, bias: float) -> float:
        z = (features - features.mean(0)) / features.std(0) @ weights_F + bias
        return float((np.logaddexp(0, z) - yes * z).sum() + weights_F @ weights_F)

    least = loss(model.weights_F, model.bias)
    for number in range(3):
        for step in (-0.01, 0.01):
            assert loss(model.weights_F + step * np.eye(3)[number], model.bias) > least
    assert loss(model.weights_F, model.bias + 0.01) > least
    assert model.probability(features).mean() == pytest.approx(yes.mean()), "the bias has no penalty"


def test_probabilities_are_those_of_the_process_that_made_the_verdicts() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(20_000, 1))
    truth = 1 / (1 + np.exp(-(2 * features[:, 0] - 1)))
    model = fit_logistic(features, rng.random(20_000) < truth, l2=1e-3)
    assert np.abs(model.probability(features) - truth).max() < 0.03


def test_separable_verdicts_and_constant_features_end_in_finite_weights() -> None:
    features = np.array([[0.0, 7.0], [1.0, 7.0], [2.0, 7.0], [3.0, 7.0]])
    model = fit_logistic(features, np.array([False, False, True, True]))
    assert np.isfinite(model.weights_F).all()
    assert model.weights_F[1] == 0
    assert (np.diff(model.probability(features)) > 0).all()


def test_what_cannot_be_fitted_is_refused() -> None:
    features = np.zeros((3, 1))
    with pytest.raises(ValueError, match="3 verdicts that are all the same"):
        fit_logistic(features, np.array([True, True, True]))
    with pytest.raises(ValueError, match="a penalty of 0"):
        fit_logistic(features, np.array([True, False, True]), l2=0)
    with pytest.raises(ValueError, match="not finite"):
        fit_logistic(np.full((3, 1), np.nan), np.array([True, False, True]))


def test_the_lowest_score_is_where_precision_last_holds() -> None:
    score = np.linspace(1, 0, 101)
    yes = np.arange(101) < 40
    assert lowest_score(score, yes, 0.8, min_count=20) == pytest.approx(score[49])
    assert lowest_score(score, yes, 1.0, min_count=20) == pytest.approx(score[39])
    assert lowest_score(score, yes, 1.0, min_count=41) is None
    assert lowest_score(score, np.zeros(101), 0.5, min_count=1) is None
    assert lowest_score(np.full(100, 0.5), yes[:100], 0.5, min_count=1) is None, "ties cannot be taken apart"
