from typing import Any

import numpy as np
import pytest

from engine.evaluation.classical import CHOSEN_SCALE, FelzenszwalbImage, FelzenszwalbSegmenter, ranked_segments
from engine.evaluation.clicked import evaluate
from engine.evaluation.config import EvaluationConfig
from engine.interactive.segment import Click, ObjectPrompt
from engine.labelled import load_folder
from storage import rle
from tests.paths import PHOTOS


@pytest.fixture
def nested() -> FelzenszwalbImage:
    """40x40, cut into columns of 10, 20 and 40 pixels."""
    columns = np.tile(np.arange(40), (40, 1))
    return FelzenszwalbImage(labels_SHW=np.stack([columns // 10, columns // 20, columns // 40]))


def mask_of(picture: FelzenszwalbImage, **prompt: Any) -> np.ndarray:
    (answer,) = picture.segment([ObjectPrompt(**prompt)])
    assert len(answer.masks_MHW) == 1
    return answer.masks_MHW[answer.chosen]


def columns_of(mask_HW: np.ndarray) -> list[int]:
    assert (mask_HW == mask_HW[:1]).all()
    return np.flatnonzero(mask_HW[0]).tolist()


def test_a_click_gets_the_segment_under_it_at_each_scale_and_the_middle_one_first(nested: FelzenszwalbImage) -> None:
    (answer,) = nested.segment([ObjectPrompt(clicks=(Click(x=12.5, y=3.5),))])
    assert [columns_of(mask) for mask in answer.masks_MHW] == [list(range(10, 20)), list(range(20)), list(range(40))]
    assert answer.chosen == CHOSEN_SCALE
    assert np.isnan(answer.predicted_iou_M).all()


def test_a_second_positive_click_adds_its_segment(nested: FelzenszwalbImage) -> None:
    clicks = (Click(x=2.5, y=2.5), Click(x=30.5, y=2.5))
    assert columns_of(mask_of(nested, clicks=clicks)) == list(range(40))


def test_a_negative_click_in_the_same_segment_takes_the_finer_one_away(nested: FelzenszwalbImage) -> None:
    clicks = (Click(x=2.5, y=2.5), Click(x=12.5, y=2.5, positive=False))
    assert columns_of(mask_of(nested, clicks=clicks)) == list(range(10))


def test_clicks_of_both_signs_in_the_finest_segment_share_it_by_distance(nested: FelzenszwalbImage) -> None:
    clicks = (Click(x=1.5, y=20.5), Click(x=7.5, y=20.5, positive=False))
    assert columns_of(mask_of(nested, clicks=clicks)) == list(range(4))


def test_a_box_gets_the_segments_mostly_inside_it(nested: FelzenszwalbImage) -> None:
    assert columns_of(mask_of(nested, box_xyxy=(0, 0, 25, 40))) == list(range(20))


def test_a_click_on_the_far_corner_is_inside_and_one_beyond_is_refused(nested: FelzenszwalbImage) -> None:
    assert columns_of(nested.segment([ObjectPrompt(clicks=(Click(x=40, y=40),))])[0].masks_MHW[0])[0] == 30
    with pytest.raises(ValueError, match=r"x 40\.5.*inside the 40x40 image"):
        nested.segment([ObjectPrompt(clicks=(Click(x=40.5, y=3),))])


def test_it_finds_nuclei_in_a_real_photograph() -> None:
    (image,) = [image for image in load_folder(PHOTOS) if image.stem == "nuc_670ebd9d674b"]
    figures = evaluate(FelzenszwalbSegmenter(), [image], EvaluationConfig()).overall.figures
    assert figures["miou_1_best3"].value > 0.7
    assert figures["miou_1_best3"].value >= figures["miou_1_chosen"].value


def test_segments_are_proposed_coarse_and_large_first_without_specks_the_whole_and_the_same_box_again() -> None:
    labels_SHW = np.zeros((3, 40, 40), dtype=np.int32)  # the coarse scale is one segment, the whole picture
    labels_SHW[0, :, 30:] = 1  # 30 and 10 columns, the first without a corner of 25 px
    labels_SHW[0, :5, :5] = 2
    labels_SHW[1, :, 12:] = 1  # 12 and 28 columns: the box of the 30 is nearly that of the 28
    proposed = ranked_segments(labels_SHW)
    assert [rle.box_xyxy(mask) for mask in proposed] == [
        (12, 0, 40, 40),
        (0, 0, 12, 40),
        (0, 0, 30, 40),
        (30, 0, 40, 40),
    ]
    labels_SHW[1] = np.arange(40) >= 28  # now 28 and 12 columns
    proposed = ranked_segments(labels_SHW)
    assert [rle.area(mask) for mask in proposed] == [40 * 28, 40 * 12]  # 30 and 10 columns have nearly their boxes


def test_a_picture_of_one_segment_has_nothing_to_propose() -> None:
    assert ranked_segments(np.zeros((3, 40, 40), dtype=np.int32)) == []
