"""Recall of boxes by budget."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.evaluation.boxes import BoxesOfMasks, BoxEvaluation, difference, evaluate_boxes, match_boxes
from engine.evaluation.classical import FelzenszwalbSegmenter
from engine.labelled import LabelledImage, load_folder
from tests.engine.evaluation.test_automatic import box, labelled
from tests.paths import PHOTOS


@dataclass(frozen=True)
class GivenBoxes:
    """Proposes boxes made beforehand, by the image's grey."""

    by_grey: dict[int, list[tuple[int, int, int, int]]]
    name: str = "given"

    def propose_boxes(self, image_HW3: np.ndarray) -> np.ndarray:
        return np.array(self.by_grey[int(image_HW3[0, 0, 0])], dtype=np.float64).reshape(-1, 4)


FAR = (50, 50, 58, 58)
TRUTH = [(0, 0, 20, 20), (30, 30, 50, 50)]


def two_boxes(folder: Path, number: int) -> LabelledImage:
    return labelled(folder, number, {0: [box(*each) for each in TRUTH]})


def test_recall_counts_what_the_budget_reaches(tmp_path: Path) -> None:
    boxes = [TRUTH[0], *[FAR] * 9, *[FAR] * 20, (29, 29, 50, 50), *[FAR] * 100]
    evaluation = evaluate_boxes(GivenBoxes({0: boxes, 10: [], 20: boxes}), [two_boxes(tmp_path, n) for n in range(3)])
    assert [evaluation.recall(budget).value for budget in (10, 30, 100)] == pytest.approx([2 / 6, 2 / 6, 4 / 6])
    assert evaluation.recall(100).interval == pytest.approx((0.0, 1.0), abs=0.35)
    content = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert content["overall"]["recall_100"] == pytest.approx(4 / 6, abs=1e-4)
    assert set(content["domains"]) == {tmp_path.name}


def test_a_box_finds_one_box_of_an_annotator_and_any_number_of_annotators() -> None:
    truth = np.array([TRUTH[0], (0, 0, 20, 21), TRUTH[0]], dtype=np.float64)
    ranks = match_boxes(truth[:1], truth, np.array([0, 0, 1]))
    assert sorted(ranks[:2], key=str) == [0, None], "annotator 0 drew two boxes and one was found"
    assert ranks[2] == 0
    assert match_boxes(np.empty((0, 4)), truth, np.array([0, 0, 1])) == [None, None, None]


def test_boxes_that_overlap_too_little_find_nothing() -> None:
    truth = np.array([[0, 0, 10, 10]], dtype=np.float64)
    assert match_boxes(np.array([[0, 0, 10, 19.9]]), truth, np.zeros(1)) == [0]
    assert match_boxes(np.array([[0, 0, 10, 20.1]]), truth, np.zeros(1)) == [None]


def test_differences_are_paired_and_refuse_other_masks(tmp_path: Path) -> None:
    images = [two_boxes(tmp_path, number) for number in range(3)]
    everything = {10 * number: list(TRUTH) for number in range(3)}
    nothing = {10 * number: [FAR] for number in range(3)}
    before, after = (evaluate_boxes(GivenBoxes(given), images) for given in (nothing, everything))
    changed = difference(before, after, 10)
    assert (changed.value, changed.interval) == (1.0, (1.0, 1.0))
    with pytest.raises(ValueError, match="different masks"):
        difference(before, evaluate_boxes(GivenBoxes(everything), images[:2]), 10)


def test_felzenszwalbs_boxes_are_measured_on_a_real_photograph() -> None:
    images = [image for image in load_folder(PHOTOS) if image.stem == "nuc_670ebd9d674b"]
    evaluation: BoxEvaluation = evaluate_boxes(BoxesOfMasks(proposer=FelzenszwalbSegmenter()), images)
    assert evaluation.recall(100).value > evaluation.recall(10).value > 0
    assert evaluation.recall(10).interval is None, "one photograph: nothing to draw again"
    assert evaluation.boxes_per_image > 10
