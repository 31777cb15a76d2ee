"""Prompts, point grids and crop windows."""

import numpy as np
import pytest
import torch

from engine.prompts import Prompts, crop_windows, point_grid


def test_a_grid_holds_the_centres_of_its_cells_row_by_row() -> None:
    assert point_grid(1).tolist() == [[0.5, 0.5]]
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    grid = point_grid(32)
    assert grid.shape == (1024, 2)
    assert grid.dtype == np.float64
    assert np.allclose(np.diff(grid[:32, 0]), 1 / 32)
    assert np.allclose(grid[:32, 1], 1 / 64)


def test_a_grid_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        point_grid(0)


def test_without_layers_there_is_the_whole_photograph_alone() -> None:
    (window,) = crop_windows((534, 800), 0, 512 / 1500)
    assert (window.xyxy, window.layer) == ((0, 0, 800, 534), 0)


def test_the_papers_preset_has_one_four_and_sixteen_windows() -> None:
    windows = crop_windows((1500, 2250), 2, 512 / 1500)
    assert [window.layer for window in windows] == [0] + [1] * 4 + [2] * 16


def test_windows_of_a_1500_x_2250_photograph_are_the_papers() -> None:
    """512 px of overlap in the first layer, half of it in the second, every window cut off at the photograph's edge."""
    windows = crop_windows((1500, 2250), 2, 512 / 1500)
    assert [window.xyxy for window in windows[1:5]] == [
        (0, 0, 1381, 1006),
        (0, 494, 1381, 1500),
        (869, 0, 2250, 1006),
        (869, 494, 2250, 1500),
    ]
    assert windows[5].xyxy == (0, 0, 755, 567)
    assert windows[6].xyxy == (0, 311, 755, 878)
    assert windows[-1].xyxy == (1497, 933, 2250, 1500)


@pytest.mark.parametrize("image_hw", [(1500, 2250), (534, 800), (800, 534), (101, 37), (9, 9)])
def test_the_windows_of_a_layer_cover_the_photograph(image_hw: tuple[int, int]) -> None:
    windows = crop_windows(image_hw, 3, 0.3)
    for layer in (1, 2, 3):
        seen = np.zeros(image_hw, dtype=bool)
        for window in windows:
            if window.layer == layer:
                x0, y0, x1, y1 = window.xyxy
                seen[y0:y1, x0:x1] = True
        assert seen.all()


@pytest.mark.parametrize("image_hw", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_photographs_of_a_few_pixels_get_no_empty_window(image_hw: tuple[int, int]) -> None:
    for window in crop_windows(image_hw, 3, 512 / 1500):
        x0, y0, x1, y1 = window.xyxy
        assert 0 <= x0 < x1 <= image_hw[1]
        assert 0 <= y0 < y1 <= image_hw[0]


@pytest.mark.parametrize(("layers", "overlap"), [(-1, 0.3), (1, 1.0), (1, -0.1)])
def test_senseless_layers_and_overlaps_are_refused(layers: int, overlap: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        crop_windows((10, 10), layers, overlap)


def test_prompts_whose_parts_do_not_fit_together_are_refused() -> None:
    points, labels = torch.zeros(3, 1, 2), torch.ones(3, 1, dtype=torch.int64)
    assert len(Prompts(points_PK2=points, labels_PK=labels)) == 3
    for wrong in (
        {"labels_PK": labels[:2]},
        {"labels_PK": labels * 7},
        {"boxes_P4": torch.zeros(2, 4)},
        {"mask_logits_P1LL": torch.zeros(3, 2, 8, 8)},
    ):
        with pytest.raises(ValueError, match="expected"):
            Prompts(**{"points_PK2": points, "labels_PK": labels} | wrong)
