"""The detector's training: it learns, and the seed decides everything."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.detector.card import encoder_id
from engine.detector.train import DetectorTraining, train_head
from engine.detector.windows import DESCRIPTION_NAME, boxes_of, encode_windows
from engine.training.scene_bank import SceneBank
from engine.training.sources import WindowConfig
from tests.engine.detector.square_detector import SIZES, TRAINING, square_model, square_windows, trained_head
from tests.engine.training.tiny import TINY_BANK, square_scenes

SHORT = replace(TRAINING, windows=16, passes=1)


def test_the_loss_falls_to_a_fraction() -> None:
    _, losses = trained_head()
    assert len(losses.of_steps) == TRAINING.total_steps == 200
    assert losses.mean_of_last(10) < 0.4 * float(np.mean(losses.of_steps[:10]))


def test_equal_seeds_give_equal_weights() -> None:
    windows = square_windows(square_model().sam, SHORT.windows)
    first, second = (train_head(SIZES, SHORT, windows).state_dict() for _ in range(2))
    other = train_head(SIZES, replace(SHORT, seed=4), windows).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_boxes_of_masks_are_half_open() -> None:
    masks = np.zeros((2, 10, 12), np.uint8)
    masks[0, 2:5, 3:9] = 1
    masks[1, 9, 11] = 1
    assert boxes_of(masks).tolist() == [[3, 2, 9, 5], [11, 9, 12, 10]]


def test_windows_are_encoded_once_and_their_boxes_follow_the_scaling(tmp_path: Path) -> None:
    sam = square_model().sam
    bank = SceneBank(tmp_path / "bank", TINY_BANK, square_scenes)
    window = WindowConfig(side_px=64, zoom=(1.0, 1.0), min_mask_px=100)
    told: list[int] = []

    def encode() -> object:
        windows = encode_windows(
            sam,
            encoder_id(sam),
            bank,
            window,
            count=6,
            seed=1,
            folder=tmp_path / "windows",
            made_of={"squares": 1},
            on_progress=lambda done, total: told.append(done),
        )
        assert len(windows) == 6
        assert (windows.ends_N == 4 * np.arange(1, 7)).all(), "ground, ring, inner square and the whole square"
        assert windows.embeddings(np.array([3, 1])).shape == (2, 32, 8, 8)
        sides = {int(box[2] - box[0]) for boxes in windows.boxes(np.arange(6)) for box in boxes}
        assert sides == {64, 32, 16}
        return windows

    encode()
    counted = len(told)
    encode()
    assert len(told) == counted, "the second call read what the first wrote"
    (folder,) = (tmp_path / "windows").iterdir()
    (folder / DESCRIPTION_NAME).unlink()
    encode()
    assert len(told) == 2 * counted, "a folder without a description was left unfinished and is filled again"


@pytest.mark.parametrize("change", [{"passes": 0}, {"photo_scale": (0.5, 2.0)}, {"windows": 4, "batch_size": 8}])
def test_settings_that_cannot_train_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected whole numbers of at least 1"):
        DetectorTraining(**change)
