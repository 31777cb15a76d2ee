"""Hand-overs between the steps of a flow: the first result of a step is the one that everybody finds."""

from pathlib import Path

import pytest

from storage.dataset import Dataset
from storage.errors import Corrupt


def test_a_step_is_recorded_once_and_found_by_its_key(dataset: Dataset) -> None:
    assert dataset.handovers.find("train:s1:seed-1") is None
    first = dataset.handovers.record("train:s1:seed-1", {"model_id": "child-2"})
    assert dataset.handovers.record("train:s1:seed-1", {"model_id": "other-3"}) == first
    assert dataset.handovers.find("train:s1:seed-1") == first
    assert first.result == {"model_id": "child-2"}
    assert dataset.handovers.find("train:s2:seed-1") is None
    assert dataset.maintenance.verify().faults == ()


def test_a_damaged_hand_over_is_refused(dataset: Dataset) -> None:
    dataset.handovers.record("train:s1:seed-1", {"model_id": "child-2"})
    (path,) = (Path(dataset.uri) / "handovers").iterdir()
    path.chmod(0o644)
    path.write_text(path.read_text().replace("s1:seed", "s9:seed"))
    with pytest.raises(Corrupt, match="is the hand-over 'train:s9:seed-1', expected 'train:s1:seed-1'"):
        dataset.handovers.find("train:s1:seed-1")
