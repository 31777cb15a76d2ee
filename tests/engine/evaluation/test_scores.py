from collections.abc import Sequence

import numpy as np
import pytest

from engine.evaluation.scores import (
    MaskScore,
    calibrate,
    difference_of_means,
    figure_values,
    mean_over_groups,
    paired_difference,
    size_of,
    summarise,
    summarise_by,
)


def score(
    image: str = "a",
    iou_after: Sequence[float] = (0.5,),
    *,
    domain: str = "d",
    area: float = 0.05,
    predicted: Sequence[float] = (0.5,),
    true: Sequence[float] | None = None,
) -> MaskScore:
    return MaskScore(
        domain=domain,
        image=image,
        annotator=0,
        area_fraction=area,
        predicted_iou_M=tuple(predicted),
        iou_M=tuple(true if true is not None else iou_after[:1]),
        iou_after=tuple(iou_after),
        boundary_iou=0.25,
        iou_box=None,
        iou_box_refined=None,
    )


def test_the_mean_is_over_masks_and_the_interval_over_photographs() -> None:
    # the answers differ between photographs and never within one: only drawing photographs again shows the spread
    scores = [score("a", (1.0,))] * 300 + [score("b", (0.0,))] * 100
    figure = summarise(scores, ["miou_1_chosen"], seed=0).figures["miou_1_chosen"]
    assert figure.value == 0.75
    assert figure.interval == (0.0, 1.0)


def test_the_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        scores = [
            score(f"photo {number}", (float(value),))
            for number, centre in enumerate(rng.normal(0.5, 0.1, size=30))
            for value in rng.normal(centre, 0.1, size=rng.integers(1, 12))
        ]
        interval = summarise(scores, ["miou_1_chosen"], seed=0).figures["miou_1_chosen"].interval
        assert interval is not None
        low, high = interval
        covered += low <= 0.5 <= high
    assert 0.87 <= covered / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_one_photograph_gives_none() -> None:
    scores = [score(name, (value,)) for name, value in zip("abcdef", np.linspace(0.1, 0.9, 6), strict=True)]
    first, again = (summarise(scores, ["miou_1_chosen"], seed=4).figures["miou_1_chosen"] for _ in range(2))
    assert first == again
    assert summarise(scores[:1] * 5, ["miou_1_chosen"], seed=4).figures["miou_1_chosen"].interval is None


def test_noc_counts_failures_as_twenty_clicks_and_reports_them() -> None:
    scores = [score("a", (0.5, 0.86, 0.91)), score("b", (0.84,) * 20), score("c", (0.95,))]
    assert figure_values(scores, "noc85").tolist() == [2, 20, 1]
    assert figure_values(scores, "noc90").tolist() == [3, 20, 1]
    summary = summarise(scores, ["noc85", "noc90"], seed=0)
    assert summary.failures == {"noc85": 1, "noc90": 1}


def test_best_of_three_and_later_clicks_are_read_from_the_scores() -> None:
    scores = [score("a", (0.4, 0.6, 0.7), true=(0.4, 0.8, 0.1))]
    assert figure_values(scores, "miou_1_best3").tolist() == [0.8]
    assert figure_values(scores, "miou_3").tolist() == [0.7]
    assert figure_values(scores, "boundary_iou").tolist() == [0.25]


@pytest.mark.parametrize("name", ["miou_5", "miou_box", "miou_box_refined", "accuracy"])
def test_a_figure_that_was_not_measured_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        figure_values([score()], name)


def test_groups_hold_their_own_masks() -> None:
    scores = [score("a", (0.2,), area=0.005), score("a", (0.4,), area=0.01), score("b", (0.9,), area=1.0)]
    groups = summarise_by(scores, size_of, ["miou_1_chosen"], seed=0)
    assert {name: (group.images, group.masks) for name, group in groups.items()} == {
        "under 1 %": (1, 1),
        "1 to 10 %": (1, 1),
        "over 10 %": (1, 1),
    }
    assert groups["over 10 %"].figures["miou_1_chosen"].value == 0.9


def test_calibration_tells_an_honest_head_from_an_overconfident_one() -> None:
    rng = np.random.default_rng(0)
    true = rng.random((200, 3)) * 0.6
    honest = calibrate([score(predicted=row, true=row) for row in true])
    boastful = calibrate([score(predicted=row + 0.3, true=row) for row in true])
    assert honest.expected_error == pytest.approx(0.0, abs=1e-9)
    assert boastful.expected_error == pytest.approx(0.3)
    assert boastful.mean_predicted_iou - boastful.mean_true_iou == pytest.approx(0.3)
    assert [honest.correlation, boastful.correlation] == pytest.approx([1.0, 1.0])
    assert honest is not None
    assert sum(one.candidates for one in honest.bins) == 600


def test_predictions_outside_0_to_1_fall_into_the_outer_bins() -> None:
    calibration = calibrate([score(predicted=(1.2, -0.1, 0.5), true=(0.9, 0.0, 0.5))])
    assert [(one.low, one.candidates) for one in calibration.bins] == [(0.0, 1), (0.5, 1), (0.9, 1)]


def test_a_segmenter_without_predictions_has_no_calibration() -> None:
    assert calibrate([score(predicted=(float("nan"),))]) is None


def test_a_paired_difference_is_sharper_than_its_two_means() -> None:
    rng = np.random.default_rng(0)
    before = [score(f"p{n}", (v,)) for n, v in enumerate(rng.random(40) * 0.8)]
    after = [score(s.image, (s.iou_after[0] + 0.05,)) for s in before]
    difference = paired_difference(before, after, "miou_1_chosen", seed=0)
    assert difference.value == pytest.approx(0.05)
    assert difference.interval == pytest.approx((0.05, 0.05))
    with pytest.raises(ValueError, match="different masks"):
        paired_difference(before, after[:-1], "miou_1_chosen", seed=0)


def test_a_difference_of_means_draws_the_same_photographs_for_both() -> None:
    """Two sets of masks of their own: what all photographs have in common is no uncertainty of the difference."""
    rng = np.random.default_rng(0)
    level = rng.random(40) * 0.8
    before = [score(f"p{n}") for n in range(40) for _ in range(3)]
    after = [score(f"p{n}") for n in range(40) for _ in range(5)]
    difference = difference_of_means(before, np.repeat(level, 3), after, np.repeat(level + 0.05, 5), seed=0)
    assert difference.value == pytest.approx(0.05)
    assert difference.interval == pytest.approx((0.05, 0.05))


def test_a_difference_of_means_leaves_out_draws_without_a_mask_and_is_none_without_any() -> None:
    before, after = [score("a"), score("b")], [score("a")]
    difference = difference_of_means(before, np.array([0.2, 0.4]), after, np.array([0.9]), seed=0)
    assert difference.value == pytest.approx(0.6)
    assert difference.interval == pytest.approx((0.6, 0.7))
    assert difference_of_means(before, np.array([0.2, 0.4]), [], np.array([]), seed=0) is None


def test_a_mean_over_groups_counts_each_group_once_and_draws_images_within_groups() -> None:
    def values(name: str, per_image: dict[str, list[float]]) -> tuple[list[MaskScore], np.ndarray]:
        members = [score(image=f"{name}/{image}") for image, each in per_image.items() for _ in each]
        return members, np.array([value for each in per_image.values() for value in each])

    many = values("many", {"a": [1.0] * 9, "b": [1.0]})
    few = values("few", {"a": [0.0], "b": [0.5]})
    estimate = mean_over_groups([many, few], seed=0)
    assert estimate.value == pytest.approx((1 + 0.25) / 2)
    assert estimate.interval is None  # fewer than 10 images of each
    wide = values("wide", {str(number): [1.0] for number in range(10)})
    varied = values("varied", {str(number): [number % 2 / 2] for number in range(10)})
    low, high = mean_over_groups([wide, varied], seed=0).interval or (0, 0)
    assert 0.5 <= low < 0.6 < 0.65 < high <= 0.75  # wide stays 1, varied lies between 0 and .5
    single = values("single", {"a": [0.5]})
    assert mean_over_groups([wide, single], seed=0).interval is None
