"""Simulated clicks and boxes."""

import numpy as np
import pytest
import torch

from engine.training.annotator import BOX_NOISE_MAX_PX, correction_clicks, first_click, noisy_box


def ring() -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[5:35, 10:50] = 1
    mask[12:28, 20:40] = 0
    return mask


def test_first_clicks_fall_on_the_mask_even_when_its_middle_is_a_hole() -> None:
    mask = ring()
    for seed in range(200):
        x, y = first_click(mask, np.random.default_rng(seed))
        assert mask[int(y), int(x)]


def test_first_clicks_lie_deeper_than_uniform_ones() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[10:50, 10:50] = 1
    clicks = np.array([first_click(mask, np.random.default_rng(seed)) for seed in range(400)])
    from_centre = np.abs(clicks - 30).max(1).mean()
    assert from_centre < 11, "uniform clicks would lie at 13.3 on average"


def test_clicking_into_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="empty mask of 4 x 5 px"):
        first_click(np.zeros((4, 5), np.uint8), np.random.default_rng(0))
    with pytest.raises(ValueError, match="empty mask"):
        noisy_box(np.zeros((4, 5), np.uint8), np.random.default_rng(0))


def test_noisy_boxes_scatter_by_a_tenth_of_the_side_and_never_by_more_than_twenty_pixels() -> None:
    mask = np.zeros((320, 320), np.uint8)
    mask[100:140, 10:310] = 1
    boxes = np.stack([noisy_box(mask, np.random.default_rng(seed)) for seed in range(600)])
    offsets = boxes - np.array([10, 100, 310, 140])
    assert offsets[:, [1, 3]].std() == pytest.approx(4, rel=0.1)
    assert np.abs(offsets).max() <= BOX_NOISE_MAX_PX
    assert np.abs(offsets.mean(0)).max() < 2


def test_noisy_boxes_of_specks_keep_a_size() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 4] = 1
    for seed in range(50):
        x0, y0, x1, y1 = noisy_box(mask, np.random.default_rng(seed))
        assert x1 - x0 >= 1 - 1e-5
        assert y1 - y0 >= 1 - 1e-5


def _uniforms(prompts: int) -> torch.Tensor:
    return torch.rand(prompts, 3, generator=torch.Generator().manual_seed(1))


def test_corrections_fall_into_the_error_region_and_say_which_kind_of_error_it_is() -> None:
    targets = torch.zeros(300, 32, 48)
    targets[:, 8:24, 8:24] = 1
    logits = -torch.ones(300, 32, 48)
    logits[:, 8:24, 16:40] = 1  # misses columns 8 to 15, has 24 to 39 too much
    points, labels = correction_clicks(logits, targets, _uniforms(300), cell_px=2)
    column, row = (points[:, 0] / 2).int(), (points[:, 1] / 2).int()
    assert ((row >= 8) & (row < 24)).all()
    missed, extra = labels == 1, labels == 0
    assert missed.any()
    assert extra.any()
    assert ((column[missed] >= 8) & (column[missed] < 16)).all()
    assert ((column[extra] >= 24) & (column[extra] < 40)).all()
    assert extra.sum() > missed.sum(), "the larger error should be clicked more often"


def test_corrections_prefer_a_region_to_scattered_cells_of_the_same_number() -> None:
    targets = torch.zeros(200, 64, 64)
    logits = -torch.ones(200, 64, 64)
    logits[:, 40:48, 40:48] = 1
    logits[:, 0:32:4, 0:32:4] = 1
    points, labels = correction_clicks(logits, targets, _uniforms(200), cell_px=1)
    assert (labels == 0).all()
    assert (points > 40).all(1).float().mean() > 0.9


def test_a_perfect_answer_gets_a_positive_click_on_the_target() -> None:
    targets = torch.zeros(50, 16, 16)
    targets[:, 3:6, 9:12] = 1
    points, labels = correction_clicks(targets * 2 - 1, targets, _uniforms(50), cell_px=1)
    assert (labels == 1).all()
    assert ((points[:, 0] >= 9) & (points[:, 0] <= 12) & (points[:, 1] >= 3) & (points[:, 1] <= 6)).all()


def test_the_highest_random_number_still_hits_an_error() -> None:
    targets = torch.zeros(1, 8, 8)
    targets[0, 2, 2] = 1
    points, labels = correction_clicks(-torch.ones(1, 8, 8), targets, torch.tensor([[1 - 2**-24, 0.5, 0.5]]), 1)
    assert points.int().tolist() == [[2, 2]]
    assert labels.tolist() == [1]
