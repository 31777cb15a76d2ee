"""The decisions of the automatic generator's filters at their edges."""

import numpy as np
import pytest

from engine.automatic.diagnostics import Diagnostics
from engine.automatic.filters import Filter, is_confident, is_stable, is_whole

IMAGE_HW = (300, 400)


def test_predicted_iou_must_exceed_its_threshold_and_stability_only_reach_it() -> None:
    scores = np.array([0.875, 0.8750001, 0.5], dtype=np.float32)
    assert is_confident(scores, 0.875).tolist() == [False, True, False]
    assert is_stable(scores, 0.875).tolist() == [True, True, False]


def test_a_threshold_of_zero_keeps_even_negative_scores() -> None:
    scores = np.array([-0.1, 0.0], dtype=np.float32)
    assert is_confident(scores, 0.0).all()
    assert is_stable(scores, 0.0).all()


def test_a_score_that_is_no_number_fails() -> None:
    scores = np.array([np.nan], dtype=np.float32)
    assert not is_confident(scores, 0.5).any()
    assert not is_stable(scores, 0.5).any()


def test_masks_near_an_inner_crop_edge_are_cut_and_those_near_the_photographs_edge_are_not() -> None:
    crop = (0, 0, 200, 150)  # upper left: its right and lower edges lie inside the photograph
    boxes = np.array(
        [
            [0, 0, 50, 50],  # at the photograph's corner
            [100, 50, 179, 100],  # 21 px from the right edge
            [100, 50, 180, 100],  # 20 px from it
            [100, 50, 199, 100],
            [50, 100, 90, 131],  # 19 px from the lower edge
            [185, 40, 190, 60],  # its left side is near the right edge
        ]
    )
    assert is_whole(boxes, crop, IMAGE_HW).tolist() == [True, True, False, False, False, False]


def test_in_the_whole_photograph_nothing_is_cut() -> None:
    boxes = np.array([[0, 0, 399, 299], [0, 0, 5, 5], [390, 290, 399, 299]])
    assert is_whole(boxes, (0, 0, 400, 300), IMAGE_HW).all()


def test_diagnostics_keep_the_names_that_commit_records_carry() -> None:
    assert list(Diagnostics().to_json()) == [
        *("candidates", "failed_predicted_iou", "failed_stability", "cut_by_crop_edge", "empty", "covers_image"),
        *("too_small", "too_large", "duplicate_in_crop", "duplicate_across_crops", "dissolved"),
        *("duplicate_after_cleanup", "kept", "cleaned", "best_predicted_iou", "best_stability"),
    ]


def test_diagnostics_of_a_document_with_another_field_are_refused() -> None:
    with pytest.raises(TypeError, match="mistyped"):
        Diagnostics.from_json({"mistyped": 1})


def test_every_filter_says_what_it_is_and_what_to_change() -> None:
    for each in Filter:
        assert all((each.label, each.loss, each.meaning, each.advice)), each
