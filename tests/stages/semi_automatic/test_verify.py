"""Training of the verifier on given verdicts, published as a version of the dataset."""

from pathlib import Path

import pytest

from engine.verifier.verifier import load_verifier
from stages.semi_automatic.verify import train_verifier
from storage.dataset import Dataset
from tests.engine.detector.square_detector import square_model
from tests.engine.verifier.test_verifier import verdicts


def test_a_verifier_is_published_with_its_gate(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "dataset")
    given = verdicts(helps=True)
    trained = train_verifier(
        given, square_model(), tmp_path, name="mine", described={"verdicts": "drawn"}, dataset=dataset
    )
    assert dataset.models.ids() == [trained.verifier_id]
    loaded = load_verifier(dataset.models.fetch(trained.verifier_id, tmp_path / "copies"))
    assert loaded.verifier_id == trained.verifier_id
    assert loaded.card.gate.is_open == trained.gate_open
    assert loaded.card.gate.reason == trained.gate
    assert loaded.card.model_id == square_model().model_id
    assert loaded.card.training["verdicts"] == "drawn"
    assert trained.difference == pytest.approx(trained.auroc - trained.auroc_predicted_iou)
    assert trained.difference_interval is not None
    assert trained.brier < trained.brier_constant
    assert (trained.photographs, trained.masks, trained.good) == (40, 800, int(given.good_N.sum()))


def test_too_few_photographs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got masks of 4 photographs, expected at least 5"):
        train_verifier(verdicts(helps=True, photographs=4), square_model(), tmp_path)
