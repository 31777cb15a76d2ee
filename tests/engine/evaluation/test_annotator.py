from collections.abc import Sequence

import numpy as np
import pytest
import torch

from engine.evaluation.annotator import centre_click, iou, jittered_click, next_click, simulate_clicks
from engine.interactive.segment import Candidates, Click, ObjectPrompt
from engine.labelled import load_folder
from storage import rle
from tests.paths import PHOTOS

RNG = np.random.default_rng(0)


def region(*slices: tuple[slice, slice], size: int = 40) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    for rows_columns in slices:
        mask[rows_columns] = True
    return mask


def test_the_centre_click_is_the_pixel_farthest_from_everything_outside() -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((23, 31)) > 0.1
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded)
    inside = np.argwhere(padded)
    nearest = np.sqrt(((inside[:, None] - outside[None]) ** 2).sum(-1)).min(axis=1)
    x, y = centre_click(mask, RNG)
    clicked = inside.tolist().index([int(y) + 1, int(x) + 1])
    assert nearest[clicked] == nearest.max()
    assert (x % 1, y % 1) == (0.5, 0.5)


def test_the_border_of_the_picture_counts_as_an_edge() -> None:
    assert centre_click(np.ones((5, 9), dtype=bool), RNG)[1] == 2.5


def test_clicks_are_the_same_every_time_though_opencv_is_not() -> None:
    # on these masks OpenCV's distances differ in their last bit from call to call, and deepest pixels are tied
    image = next(image for image in load_folder(PHOTOS) if image.stem == "nuc_815524d88283")
    for mask in image.masks_by_annotator[0]:
        truth = rle.decode(mask)
        assert len({centre_click(truth, RNG) for _ in range(30)}) == 1


def test_jittered_clicks_stay_in_the_region_scatter_and_follow_the_seed() -> None:
    mask = region(np.s_[10:31, 5:36])
    points = [jittered_click(mask, np.random.default_rng(seed)) for seed in range(200)]
    assert all(mask[int(y), int(x)] for x, y in points)
    assert len(set(points)) > 50
    assert points[7] == jittered_click(mask, np.random.default_rng(7))
    assert np.mean(points, axis=0) == pytest.approx(centre_click(mask, RNG), abs=3)


def test_a_one_pixel_region_is_clicked_by_everyone() -> None:
    mask = region(np.s_[7:8, 3:4])
    assert centre_click(mask, RNG) == jittered_click(mask, RNG) == (3.5, 7.5)


def test_the_next_click_is_positive_in_the_larger_missing_part() -> None:
    truth = region(np.s_[0:20, 0:20])
    shown = region(np.s_[0:20, 0:5], np.s_[30:34, 30:34])
    click = next_click(truth, shown, [Click(x=2.5, y=2.5)], centre_click, RNG)
    assert click.positive
    assert truth[int(click.y), int(click.x)]
    assert not shown[int(click.y), int(click.x)]


def test_the_next_click_is_negative_in_the_larger_surplus() -> None:
    truth = region(np.s_[0:10, 0:10])
    click = next_click(truth, region(np.s_[0:10, 0:9], np.s_[20:35, 20:35]), [], centre_click, RNG)
    assert click == Click(x=27.5, y=27.5, positive=False)


def test_a_clicked_pixel_is_not_clicked_again_while_there_is_another_error() -> None:
    truth, nothing = region(np.s_[4:7, 4:7]), region()
    first = next_click(truth, nothing, [], centre_click, RNG)
    assert first == Click(x=5.5, y=5.5)
    second = next_click(truth, nothing, [first], centre_click, RNG)
    assert (second.x, second.y) != (5.5, 5.5)
    assert second.positive


def test_a_perfect_mask_gets_its_last_click_again() -> None:
    truth = region(np.s_[4:7, 4:7])
    assert next_click(truth, truth, [Click(x=5.5, y=5.5)], centre_click, RNG) == Click(x=5.5, y=5.5)


def test_iou_counts_pixels() -> None:
    assert iou(region(np.s_[0:10, 0:10]), region(np.s_[0:10, 5:15])) == pytest.approx(50 / 150)
    assert iou(region(), region()) == 0.0


class ColumnByColumn:
    """Shows two more columns of a 20-pixel square with every click, starting at its left edge."""

    def __init__(self) -> None:
        self.clicks_seen: list[list[int]] = []

    def segment(self, prompts: Sequence[ObjectPrompt]) -> list[Candidates]:
        self.clicks_seen.append([len(prompt.clicks) for prompt in prompts])
        masks = [region(np.s_[0:20, 0 : 2 * len(prompt.clicks)])[None] for prompt in prompts]
        iou_M = np.array([0.5], dtype=np.float32)
        return [
            Candidates(masks_MHW=m, predicted_iou_M=iou_M, logits_MLL=torch.zeros(1, 4, 4), chosen=0) for m in masks
        ]


def test_a_session_records_the_iou_after_each_click_and_stops_at_its_goal() -> None:
    truth = region(np.s_[0:20, 0:20])
    (session,) = simulate_clicks(
        ColumnByColumn(), [truth], centre_click, RNG, min_clicks=3, max_clicks=20, until_iou=0.65
    )
    assert session.iou_after == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert len(session.clicks) == 7


def test_clicks_asked_for_are_made_even_beyond_the_goal() -> None:
    truth = region(np.s_[0:20, 0:20])
    (session,) = simulate_clicks(
        ColumnByColumn(), [truth], centre_click, RNG, min_clicks=5, max_clicks=20, until_iou=0.2
    )
    assert len(session.iou_after) == 5


def test_finished_objects_are_not_asked_for_again() -> None:
    picture = ColumnByColumn()
    easy, hard = region(np.s_[0:20, 0:4]), region(np.s_[0:20, 0:20])
    simulate_clicks(picture, [easy, hard], centre_click, RNG, min_clicks=1, max_clicks=5, until_iou=0.9)
    assert picture.clicks_seen == [[1, 1], [2, 2], [3], [4], [5]]
