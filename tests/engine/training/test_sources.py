"""Sources that training windows are cut from."""

import numpy as np
import pytest

from engine.training.sources import Cut, MixedSource, WindowConfig

WINDOW = WindowConfig(side_px=32)


def test_mixed_sources_are_drawn_by_weight() -> None:
    class Plain:
        def __init__(self, grey: int) -> None:
            self.grey = grey

        def cut(self, rng: np.random.Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
            return Cut(image_HW3=np.full((8, 8, 3), self.grey, np.uint8), masks_NHW=np.ones((prompts, 8, 8), np.uint8))

        def cut_all(self, rng: np.random.Generator, step: int, window: WindowConfig) -> Cut:
            return self.cut(rng, step, window, 1)

        def prepare(self, step: int) -> None:
            pass

    mixed = MixedSource([(Plain(0), 3.0), (Plain(1), 1.0)])
    rng = np.random.default_rng(0)
    greys = [mixed.cut(rng, 0, WINDOW, 1).image_HW3[0, 0, 0] for _ in range(2000)]
    assert np.mean(greys) == pytest.approx(0.25, abs=0.03)
    all_greys = [mixed.cut_all(rng, 0, WINDOW).image_HW3[0, 0, 0] for _ in range(2000)]
    assert np.mean(all_greys) == pytest.approx(0.25, abs=0.03)
    with pytest.raises(ValueError, match="above 0"):
        MixedSource([(Plain(0), 0.0)])
