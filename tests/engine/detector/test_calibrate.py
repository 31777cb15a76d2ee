"""Calibration of scores: after it, a score is the fraction of boxes that are right."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.detector.calibrate import BoxVerdicts, fold_calibration, judge_boxes
from engine.detector.weights import Detector
from engine.labelled import LabelledImage
from storage import rle
from tests.engine.detector.square_detector import square_card, square_image, square_model, trained_head


def square_images(folder: Path, count: int) -> list[LabelledImage]:
    images = []
    for number in range(count):
        image_HW3, mask_HW = square_image(np.random.default_rng([60, number]))
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), image_HW3)
        images.append(
            LabelledImage(
                domain="squares",
                stem=path.stem,
                origin=str(path),
                read_bytes=path.read_bytes,
                image_id=number,
                height=mask_HW.shape[0],
                width=mask_HW.shape[1],
                masks_by_annotator={0: (rle.encode(mask_HW),)},
            )
        )
    return images


def test_folding_makes_scores_of_real_detections_probabilities(tmp_path: Path) -> None:
    model, images = square_model(), square_images(tmp_path, 30)
    head = copy.deepcopy(trained_head()[0])
    with torch.no_grad():
        head.out.weight[0].mul_(10.0)  # overconfident on any machine, as on images unlike those of the training
    detector = Detector(detector_id="squares-0", head=head, card=square_card())
    before = judge_boxes(model, detector, images)
    described = fold_calibration(head, before)
    after = judge_boxes(model, detector, images)
    assert described["images"] == 30
    assert 0 < described["slope"] < 1
    assert (np.argsort(-after.scores_N[:5]) == np.argsort(-before.scores_N[:5])).all(), "the order stays"
    assert after.expected_error < before.expected_error
    assert after.scores_N.mean() == pytest.approx(after.good_N.mean(), abs=0.01)


def test_verdicts_are_listed_by_tenths() -> None:
    verdicts = BoxVerdicts(
        scores_N=np.array([0.05, 0.08, 0.95, 1.0]), good_N=np.array([False, True, True, True]), images=2
    )
    assert verdicts.table() == [
        {"from": 0.0, "boxes": 2, "mean_score": 0.065, "good": 0.5},
        {"from": 0.9, "boxes": 2, "mean_score": 0.975, "good": 1.0},
    ]
    assert verdicts.expected_error == pytest.approx((2 * 0.435 + 2 * 0.025) / 4)


def test_the_threshold_is_where_four_in_five_boxes_are_good() -> None:
    scores = np.linspace(0.99, 0.0, 100)
    assert BoxVerdicts(scores_N=scores, good_N=np.arange(100) < 40, images=1).threshold == pytest.approx(scores[49])
    assert BoxVerdicts(scores_N=scores, good_N=np.arange(100) >= 40, images=1).threshold == 1.0


def test_scores_that_rank_nothing_are_refused(tmp_path: Path) -> None:
    verdicts = BoxVerdicts(
        scores_N=np.array([0.1, 0.2, 0.8, 0.9]), good_N=np.array([True, True, False, False]), images=1
    )
    with pytest.raises(ValueError, match="do not rank them"):
        fold_calibration(copy.deepcopy(trained_head()[0]), verdicts)
    detector = Detector(detector_id="squares-0", head=trained_head()[0], card=square_card())
    with pytest.raises(ValueError, match="got 0 images in which no box can be judged"):
        judge_boxes(square_model(), detector, [])
