"""Cutting grids into attention windows, and joining them."""

import torch

from engine.model.windows import cut_windows, join_windows


def test_windows_join_to_the_grid_they_were_cut_from_and_are_padded_with_the_vector() -> None:
    grid = torch.randn(2, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    windows = cut_windows(grid, 4, padding=torch.tensor([1.0, 2.0, 3.0]))
    assert windows.shape == (8, 4, 4, 3)
    assert windows[3, 3, 3].tolist() == [1.0, 2.0, 3.0]
    assert torch.equal(join_windows(windows, (2, 5, 7)), grid)


def test_windows_of_a_bfloat16_grid_stay_bfloat16() -> None:
    grid = torch.zeros(1, 5, 5, 2, dtype=torch.bfloat16)
    assert cut_windows(grid, 4, padding=torch.ones(2)).dtype == torch.bfloat16
