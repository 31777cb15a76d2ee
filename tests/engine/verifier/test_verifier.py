"""The verifier: fit, gate, and the file it is kept in."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.verifier.features import FEATURES
from engine.verifier.verifier import (
    Gate,
    Verdicts,
    Verifier,
    VerifierCard,
    VerifierConfig,
    fit_verifier,
    load_verifier,
    save_verifier,
)


def verdicts(*, helps: bool, photographs: int = 40) -> Verdicts:
    """Verdicts that follow predicted IoU and, if another feature helps, also the stability."""
    rng = np.random.default_rng(5)
    features = rng.normal(size=(photographs * 20, len(FEATURES)))
    pull = 1.5 * features[:, 0] + (4.0 * features[:, 1] if helps else 0.0)
    good = rng.random(len(features)) < 1 / (1 + np.exp(-pull))
    return Verdicts(features_NF=features, good_N=good, photograph_N=np.arange(photographs).repeat(20))


def card_with(gate: Gate) -> VerifierCard:
    return VerifierCard(name="v", features=FEATURES, model_id="seed-1", gate=gate, metrics={}, training={})


def test_the_gate_opens_where_other_features_help_beyond_chance() -> None:
    fitted = fit_verifier(verdicts(helps=True), VerifierConfig(accept_precision=0.9))
    assert fitted.gate.is_open, fitted.gate.reason
    assert fitted.metrics.difference.interval[0] > 0
    assert fitted.metrics.expected_calibration_error < 0.06
    verifier = Verifier(verifier_id="v-0", logistic=fitted.logistic, card=card_with(fitted.gate))
    fresh = verdicts(helps=True, photographs=90)
    accepted = verifier.accepts(fresh.features_NF)
    assert 50 < accepted.sum() < len(accepted)
    assert fresh.good_N[accepted].mean() > 0.85
    assert (verifier.probability(fresh.features_NF)[accepted] >= fitted.gate.accept_probability).all()


def test_the_gate_stays_closed_where_predicted_iou_says_it_all_and_nothing_is_accepted() -> None:
    given = verdicts(helps=False)
    fitted = fit_verifier(given)
    assert not fitted.gate.is_open
    assert "not better than predicted IoU alone beyond chance" in fitted.gate.reason
    verifier = Verifier(verifier_id="v-0", logistic=fitted.logistic, card=card_with(fitted.gate))
    assert not verifier.accepts(given.features_NF).any()
    assert verifier.probability(given.features_NF).max() > 0.9, "it still orders queues"


def test_the_gate_stays_closed_without_a_probability_that_is_precise_enough() -> None:
    given = verdicts(helps=True)
    good = given.good_N.copy()
    good[given.photograph_N % 4 == 0] = False  # a quarter of all masks is bad whatever the features say
    fitted = fit_verifier(replace(given, good_N=good), VerifierConfig(accept_precision=0.99))
    assert fitted.metrics.difference.interval[0] > 0
    assert not fitted.gate.is_open
    assert "no probability at which 99%" in fitted.gate.reason


def test_a_saved_verifier_judges_as_before(tmp_path: Path) -> None:
    given = verdicts(helps=True)
    fitted = fit_verifier(given)
    verifier_id = save_verifier(tmp_path / "v.safetensors", fitted.logistic, card_with(fitted.gate))
    loaded = load_verifier(tmp_path / "v.safetensors")
    assert loaded.verifier_id == verifier_id
    assert loaded.card == card_with(fitted.gate)
    expected = fitted.logistic.probability(given.features_NF)
    assert np.allclose(loaded.probability(given.features_NF), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "detector"}, "no card of a verifier"),
        ({"features": ["predicted_iou"]}, "train it again with `gigamask verify-model`"),
        ({"weights_sha256": "0" * 64}, "the weights are damaged"),
    ],
)
def test_a_card_that_cannot_be_right_is_refused(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    fitted = fit_verifier(verdicts(helps=True))
    save_verifier(tmp_path / "v.safetensors", fitted.logistic, card_with(fitted.gate))
    path = tmp_path / "v.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ValueError, match=message):
        load_verifier(tmp_path / "v.safetensors")


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"accept_precision 1\.5"):
        VerifierConfig(accept_precision=1.5)
