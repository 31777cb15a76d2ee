import numpy as np
import pytest

from engine.evaluation.annotator import iou
from stages.simulated.behaviour import POLICIES, Behaviour, TimeModel, in_mind


def disc(radius: float, side: int = 200) -> np.ndarray:
    rows_HW, columns_HW = np.mgrid[:side, :side]
    inside_HW: np.ndarray = np.hypot(rows_HW - side / 2, columns_HW - side / 2) < radius
    return inside_HW


@pytest.mark.parametrize("radius", [8, 30, 80])
@pytest.mark.parametrize("wanted", [0.85, 0.91])
def test_masks_in_mind_agree_with_ground_truth_as_people_do(radius: float, wanted: float) -> None:
    truth_HW = disc(radius)
    found = [iou(in_mind(truth_HW, wanted, np.random.default_rng(seed)), truth_HW) for seed in range(5)]
    assert np.mean(found) == pytest.approx(wanted, abs=0.02)


def test_masks_in_mind_differ_from_annotator_to_annotator_but_not_from_run_to_run() -> None:
    truth_HW = disc(30)
    one, same, other = (in_mind(truth_HW, 0.88, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert iou(one, other) < 0.95


def test_specks_and_masks_at_the_border_are_kept_in_mind() -> None:
    speck_HW = np.zeros((20, 20), dtype=bool)
    speck_HW[3, 4] = True
    assert np.array_equal(in_mind(speck_HW, 0.85, np.random.default_rng(0)), speck_HW)
    full_HW = np.ones((30, 40), dtype=bool)
    assert in_mind(full_HW, 0.9, np.random.default_rng(0)).mean() > 0.8


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_clicks_inside_the_region(policy: str) -> None:
    region_HW = disc(20)
    for seed in range(20):
        x, y = POLICIES[policy](region_HW, np.random.default_rng(seed))
        assert region_HW[int(y), int(x)]


def test_simulated_seconds_scatter_around_their_mean() -> None:
    rng, times = np.random.default_rng(0), TimeModel()
    drawn = [times.draw(2.0, rng) for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(2.0, rel=0.03)
    assert min(drawn) > 0


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of centre, uniform, human-like"):
        Behaviour(policy="random")
    with pytest.raises(ValueError, match="pace above 0"):
        Behaviour(pace=0)
