"""Photographs with people's masks as training data."""

from pathlib import Path

import numpy as np
import pytest

from engine.labelled import LabelledImage, load_folder
from engine.training.photos import PhotoSource, cut_photo
from engine.training.sources import WindowConfig
from tests.paths import PHOTOS


def test_windows_show_masks_where_the_photograph_has_them() -> None:
    source = PhotoSource(load_folder(PHOTOS))
    window = WindowConfig(side_px=96, zoom=(0.3, 1.0))
    for seed in range(5):
        cut = source.cut(np.random.default_rng(seed), 0, window, 3)
        assert cut.image_HW3.shape == (96, 96, 3)
        assert cut.masks_NHW.shape == (3, 96, 96)
        areas = cut.masks_NHW.sum((1, 2))
        assert (areas >= window.min_mask_px).all()
        assert (areas <= window.max_mask_fraction * 96 * 96).all()


def test_image_and_masks_are_cut_scaled_and_mirrored_together() -> None:
    image = np.zeros((80, 80, 3), np.uint8)
    image[20:50, 10:40] = 255
    mask = (image[None, :, :, 0] > 0).astype(np.uint8)
    for seed in range(20):
        cut = cut_photo(image, mask, np.random.default_rng(seed), WindowConfig(side_px=32, zoom=(0.5, 1.0)), 1)
        if cut is not None:
            assert np.array_equal(cut.image_HW3[:, :, 0] > 127, cut.masks_NHW[0] == 1)


def test_fewer_masks_than_prompts_are_asked_for_again() -> None:
    image, masks = np.zeros((64, 64, 3), np.uint8), np.zeros((2, 64, 64), np.uint8)
    masks[0, :20], masks[1, 30:50] = 1, 1
    window = WindowConfig(side_px=64, zoom=(1.0, 1.0))
    cut = cut_photo(image, masks, np.random.default_rng(0), window, 5)
    assert cut is not None
    assert len(cut.masks_NHW) == 5
    assert len(np.unique(cut.masks_NHW.reshape(5, -1), axis=0)) == 2


def test_every_mask_of_a_window_is_cut_once_where_all_are_asked_for() -> None:
    image, masks = np.zeros((64, 64, 3), np.uint8), np.zeros((3, 64, 64), np.uint8)
    masks[0, :20], masks[1, 30:50], masks[2, :2, :2] = 1, 1, 1
    window = WindowConfig(side_px=64, zoom=(1.0, 1.0))
    cut = cut_photo(image, masks, np.random.default_rng(0), window, None)
    assert cut is not None
    assert sorted(cut.masks_NHW.sum((1, 2)).tolist()) == [20 * 64, 20 * 64], "the third is too small to train on"
    every = PhotoSource(load_folder(PHOTOS)).cut_all(np.random.default_rng(0), 0, WindowConfig(side_px=96))
    assert len(np.unique(every.masks_NHW.reshape(len(every.masks_NHW), -1), axis=0)) == len(every.masks_NHW)


def test_photographs_without_masks_are_refused() -> None:
    empty = LabelledImage(
        domain="d",
        stem="s",
        origin="s.jpg",
        read_bytes=Path("s.jpg").read_bytes,
        image_id=1,
        height=8,
        width=8,
        masks_by_annotator={},
    )
    with pytest.raises(ValueError, match="1 photos without masks"):
        PhotoSource([empty])
