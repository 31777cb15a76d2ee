"""The permutation test between groups, against cases that a hand can count and against its nominal rate."""

import numpy as np
import pytest

from engine.evaluation.groups import compare_domains, permute
from engine.evaluation.scores import MaskScore


def score(domain: str, image: str, iou: float) -> MaskScore:
    return MaskScore(
        domain=domain,
        image=image,
        annotator=0,
        area_fraction=0.1,
        predicted_iou_M=(iou,) * 3,
        iou_M=(iou,) * 3,
        iou_after=(iou, iou, iou),
        boundary_iou=iou,
        iou_box=None,
        iou_box_refined=None,
    )


def test_two_groups_of_two_images_reach_the_observed_difference_in_a_third_of_all_permutations() -> None:
    difference, p = permute(list("abcd"), list("xxyy"), np.array([0.0, 0.0, 1.0, 1.0]), seed=0, permutations=4000)
    assert difference == 1
    assert p == pytest.approx(8 / 24, abs=0.03)


def test_masks_of_one_image_move_together() -> None:
    images, groups = ["a"] * 50 + ["b"] * 50 + ["c", "d"], ["x"] * 50 + ["y"] * 50 + ["x", "y"]
    values = np.array([0.0] * 50 + [1.0] * 50 + [0.0, 1.0])
    _, p = permute(images, groups, values, seed=0)
    assert p == pytest.approx(8 / 24, abs=0.04)  # four images, though 102 masks


def test_without_a_difference_few_tests_are_below_their_level() -> None:
    rng = np.random.default_rng(1)
    images, groups = [str(place) for place in range(30)], ["x"] * 10 + ["y"] * 20
    found = [permute(images, groups, rng.random(30), seed, permutations=99)[1] for seed in range(200)]
    assert 0.01 < np.mean(np.array(found) <= 0.05) < 0.1


def test_domains_that_differ_are_told_with_the_number_of_comparisons() -> None:
    scores = [score(domain, f"{domain}/{n}", iou) for domain, iou in (("a", 0.5), ("b", 0.9)) for n in range(12)]
    lonely = score("c", "c/0", 0.1)
    one, three = compare_domains([*scores, lonely], ["miou_1_chosen", "miou_3"], seed=0)
    assert (one.metric, three.metric) == ("miou_1_chosen", "miou_3")
    assert (one.groups, one.comparisons) == (2, 2)
    assert one.largest_difference == pytest.approx(0.4)
    assert one.p < 0.01
    assert one.p_adjusted == 2 * one.p
    assert compare_domains([score("a", "a/0", 0.5), lonely], ["miou_3"], seed=0) == []
