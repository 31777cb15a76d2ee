"""Prefill: what fills an image, what is left out and why, and which images stay empty."""

from dataclasses import replace

import numpy as np
import pytest

from engine.automatic.config import GenerateConfig
from engine.detector.config import DetectConfig
from engine.detector.weights import Detector, load_detector
from engine.evaluation.annotator import iou
from engine.labelled import LabelledImage, load_folder, read_pixels
from engine.model.weights import Model, load_model
from stages.semi_automatic.prefill import (
    PrefillConfig,
    Removed,
    prefill_automatically,
    prefill_image,
)
from storage import rle
from tests.engine.detector.square_detector import square_detector
from tests.paths import PHOTOS

EVERYTHING = PrefillConfig(min_box_score=0.0, min_predicted_iou=0.0, min_stability=0.0, max_mask_iou=1.0)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("seed")


@pytest.fixture(scope="module")
def detector(model: Model) -> Detector:
    return load_detector("seed-detector", model)


@pytest.fixture(scope="module")
def nuts() -> LabelledImage:
    return next(image for image in load_folder(PHOTOS) if image.stem == "nuts_0")


def test_most_prefilled_masks_of_a_real_photograph_are_those_of_a_person(
    model: Model, detector: Detector, nuts: LabelledImage
) -> None:
    filled = prefill_image(model, detector, read_pixels(nuts))
    assert filled.model_id == model.model_id
    assert filled.detector_id == detector.detector_id
    truth = [rle.decode(mask) for mask in nuts.masks_by_annotator[0]]
    best = [max(iou(rle.decode(mask.rle), each) for each in truth) for mask in filled.masks]
    assert len(best) >= 3
    assert np.mean(np.array(best) >= 0.75) > 0.5, best
    for mask in filled.masks:
        assert mask.box_score is not None
        assert mask.box_score >= detector.card.score_threshold
        assert mask.predicted_iou > model.card.predicted_iou_threshold
        assert mask.stability_score >= model.card.stability_threshold
        assert mask.prompt_box_xyxy is not None
        assert mask.point_xy is None


def test_each_box_becomes_a_mask_or_is_counted_by_its_reason(
    model: Model, detector: Detector, nuts: LabelledImage
) -> None:
    image_HW3, boxes = read_pixels(nuts), DetectConfig(max_boxes=30)
    every = prefill_image(model, detector, image_HW3, replace(EVERYTHING, detect=boxes, min_region_px=0))
    assert len(every.masks) + sum(every.removed.values()) == 30
    strict = PrefillConfig(detect=boxes, min_box_score=0.6, min_predicted_iou=0.8, min_stability=0.8)
    some = prefill_image(model, detector, image_HW3, strict)
    assert len(some.masks) + sum(some.removed.values()) == 30
    assert some.removed[Removed.LOW_SCORE] > 0
    assert 0 < len(some.masks) < len(every.masks)
    iou_NN = rle.iou_matrix([mask.rle for mask in some.masks], [mask.rle for mask in some.masks])
    assert (iou_NN - np.eye(len(iou_NN)) <= 0.7).all()


def test_the_same_image_is_filled_in_the_same_way(model: Model, detector: Detector, nuts: LabelledImage) -> None:
    image_HW3 = read_pixels(nuts)
    assert prefill_image(model, detector, image_HW3) == prefill_image(model, detector, image_HW3)


def test_the_generator_is_the_alternative(model: Model, nuts: LabelledImage) -> None:
    filled = prefill_automatically(model, read_pixels(nuts), GenerateConfig(points_per_side=6))
    assert filled.masks
    assert filled.detector_id == ""
    assert all(mask.point_xy is not None and mask.box_score is None for mask in filled.masks)
    assert filled.removed["failed_predicted_iou"] > 0


def test_a_detector_of_another_encoder_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="come from another image encoder"):
        prefill_image(model, square_detector(), np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "change", [{"min_box_score": 1.5}, {"min_stability": -1.0}, {"max_mask_iou": 0.0}, {"min_region_px": -1}]
)
def test_wrong_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"prefill.{next(iter(change))}: got"):
        PrefillConfig(**change)
