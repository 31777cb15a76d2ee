"""Edge maps and their metrics, on cases counted by hand."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.evaluation.edge_maps import SamEdges, outline_strength, scale_to_one, thin_edges
from engine.evaluation.edges import (
    average_precision,
    best_f_measure,
    count_matches,
    evaluate_people,
    people_boundaries,
    precision_recall,
    recall_at_half,
    summarise,
)
from engine.labelled import LabelledImage, load_folder, read_pixels
from engine.model.weights import load_model
from storage import rle
from tests.paths import PHOTOS

COUNTS_T4 = np.array([[4, 4, 4, 8], [2, 4, 2, 2]])
"""Precision .5 at recall 1, and precision 1 at recall .5."""


def partitioned(*people: list[np.ndarray]) -> LabelledImage:
    height, width = people[0][0].shape
    return LabelledImage(
        domain="d",
        stem="s",
        origin="s.png",
        read_bytes=lambda: b"",
        image_id=0,
        height=height,
        width=width,
        masks_by_annotator={number: tuple(map(rle.encode, masks)) for number, masks in enumerate(people)},
    )


def halves(column: int, size: tuple[int, int] = (40, 60)) -> list[np.ndarray]:
    left_HW = np.zeros(size, dtype=bool)
    left_HW[:, :column] = True
    return [left_HW, ~left_HW]


def test_metrics_of_two_thresholds_by_hand() -> None:
    precision_T, recall_T = precision_recall(COUNTS_T4)
    assert (precision_T.tolist(), recall_T.tolist()) == ([0.5, 1], [1, 0.5])
    assert best_f_measure(precision_T, recall_T) == pytest.approx(0.75)  # half way between the two
    assert average_precision(precision_T, recall_T) == pytest.approx(0.01 * 51 * 0.75)  # recall .5 to 1, mean .75
    assert recall_at_half(precision_T, recall_T) == 1
    assert recall_at_half(np.array([0.6, 0.8, 0]), np.array([0.9, 0.5, 0])) == pytest.approx(0.75)  # an empty cut
    assert recall_at_half(np.array([0.2, 0.4]), np.array([1, 0.5])) == 0  # never half right


def test_ois_takes_each_images_own_threshold_and_intervals_draw_images() -> None:
    first_T4 = np.array([[10, 10, 10, 10], [0, 10, 0, 10]])
    counts_IT4 = np.stack([first_T4, first_T4[::-1]])
    figures = summarise(counts_IT4, seed=0)
    assert figures["ods"].interval is None  # below 10 images
    assert figures["ois"].value == 1
    assert figures["ods"].value == pytest.approx(0.5)
    low, high = summarise(np.tile(counts_IT4, (5, 1, 1)), seed=0)["ods"].interval or (0, 0)
    assert 0.5 <= low < 0.6 < high <= 1


def test_boundaries_lie_between_masks_and_specks_left_out_join_their_surroundings() -> None:
    (boundary_HW,) = people_boundaries(partitioned(halves(30)))
    assert np.flatnonzero(boundary_HW.any(axis=0)).tolist() == [29]
    assert boundary_HW.sum() >= 38
    left_HW, right_HW = halves(30)
    left_HW = left_HW.copy()
    left_HW[10:14, 5:9] = False
    (with_speck_HW,) = people_boundaries(partitioned([left_HW, right_HW]))
    assert (with_speck_HW == boundary_HW).all()


def test_people_agree_where_their_boundaries_meet() -> None:
    image = partitioned(halves(20), halves(20), halves(50))
    counts = evaluate_people([image, partitioned(halves(20))]).counts_IT4
    line = int(people_boundaries(image)[0].sum())
    # the first two each find one of the others' two lines and are right, the third finds none and is wrong
    assert counts.tolist() == [[[2 * line, 6 * line, 2 * line, 3 * line]]]
    with pytest.raises(ValueError, match="two people"):
        evaluate_people([partitioned(halves(20))])


def test_masks_that_do_not_divide_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        people_boundaries(partitioned([*halves(30), halves(5)[0]]))
    with pytest.raises(ValueError, match=r"masks of 50% of the image, expected at least 95%"):
        people_boundaries(partitioned(halves(30)[:1]))


def test_a_line_that_one_of_two_people_drew_is_right_and_finds_half() -> None:
    boundaries = people_boundaries(partitioned(halves(20), halves(50)))
    counts_T4 = count_matches(boundaries[0].astype(np.float32), boundaries, thresholds=9)
    assert (counts_T4 == counts_T4[0]).all()
    found, truth, right, predicted = counts_T4[0].tolist()
    assert right == predicted == found
    assert truth == 2 * found
    half_as_sure = count_matches(boundaries[0].astype(np.float32) / 2, boundaries, thresholds=9)
    assert half_as_sure[:, 3].tolist() == [predicted] * 5 + [0] * 4  # thresholds .1 to .9


def test_the_outline_of_a_mask_is_the_gradient_just_outside_it() -> None:
    probability_HW = halves(5, size=(8, 12))[1].astype(np.float32)
    strength_HW = outline_strength(probability_HW)
    assert (strength_HW[:, 4] == 4).all()
    assert not strength_HW[:, np.arange(12) != 4].any()


@pytest.mark.parametrize("transposed", [False, True])
def test_a_ridge_is_thinned_to_its_crest_and_fades_at_the_border(transposed: bool) -> None:
    ridge_HW = np.tile(np.exp(-((np.arange(41) - 20) ** 2) / 18), (41, 1)).astype(np.float32)
    thin_HW = thin_edges(ridge_HW.T.copy() if transposed else ridge_HW)
    thin_HW = thin_HW.T if transposed else thin_HW
    assert np.flatnonzero(thin_HW[20]).tolist() == [20]
    assert thin_HW[20, 20] == 1
    assert thin_HW[:6, 20] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert not scale_to_one(np.full((3, 3), 0.5, dtype=np.float32)).any()


@pytest.mark.slow
def test_edges_of_the_seed_lie_along_the_outlines_of_nuclei() -> None:
    image = next(each for each in load_folder(Path(PHOTOS)) if each.stem == "nuc_670ebd9d674b")
    edges_HW = SamEdges(model=load_model("seed")).detect(read_pixels(image))
    assert edges_HW.shape == (image.height, image.width)
    assert edges_HW.dtype == np.float32
    assert 0 <= edges_HW.min() < 0.01
    assert 0.5 < edges_HW.max() <= 1
    masks_HW = np.zeros(edges_HW.shape, dtype=np.uint8)
    for mask in image.masks_by_annotator[0]:
        masks_HW |= rle.decode(mask)
    outline_HW = cv2.morphologyEx(masks_HW, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)).astype(bool)
    assert edges_HW[outline_HW].mean() > 4 * edges_HW[~outline_HW].mean()
