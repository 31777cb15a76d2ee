"""Windows taken from an image, and large-scale jitter."""

import numpy as np
import pytest

from engine.training.augment import draw_crop, draw_scale_jitter
from engine.training.sources import WindowConfig


def test_large_scale_jitter_shrinks_to_a_tenth_and_cuts_from_twice_the_window() -> None:
    window = WindowConfig(side_px=100, large_scale_jitter=(0.1, 2.0))
    longest, taken = [], []
    for seed in range(300):
        rows, columns, content_hw = draw_scale_jitter((200, 400), window, np.random.default_rng(seed))
        longest.append(content_hw[1])
        taken.append((columns.stop - columns.start) / 400)
        assert 0 <= rows.start < rows.stop <= 200
        assert 0 <= columns.start < columns.stop <= 400
        assert (rows.stop - rows.start) / content_hw[0] == pytest.approx(
            (columns.stop - columns.start) / content_hw[1], rel=0.2
        )
    assert min(longest) < 15
    assert np.mean(np.array(longest) == 100) == pytest.approx(1 / 1.9, abs=0.1), "factors over 1 fill the window"
    assert min(taken) == pytest.approx(0.5, abs=0.02), "twice as large, half of it shows"
    assert max(taken) == 1.0


def test_crops_zoom_as_far_as_the_picture_reaches() -> None:
    rows, columns = draw_crop((100, 200), (64, 64), (0.5, 0.5), np.random.default_rng(0))
    assert (rows, columns.stop - columns.start) == (slice(0, 100), 100)
