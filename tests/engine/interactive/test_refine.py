import cv2
import numpy as np
import pytest

from engine.evaluation.annotator import centre_click, next_click
from engine.images import Frame
from engine.interactive.batched import ImageViews, predict_many, windows_of
from engine.interactive.refine import change_around_clicks, mask_logits, prompt_with_mask
from engine.interactive.segment import Click, ObjectPrompt
from engine.interactive.zoom import NEVER, ZoomedImage
from engine.labelled import load_folder, read_pixels
from engine.model.weights import load_model
from storage import rle


def square(x0: int, y0: int, x1: int, y1: int, *, side: int = 64) -> rle.Rle:
    mask_HW = np.zeros((side, side), dtype=bool)
    mask_HW[y0:y1, x0:x1] = True
    return rle.encode(mask_HW)


def test_a_bitmap_becomes_logits_in_the_frame_of_its_window() -> None:
    mask_HW = rle.decode(square(0, 0, 32, 32))
    logits_LL = mask_logits(mask_HW, Frame.whole((64, 64), 128), 16, logit=5)
    assert logits_LL[:8, :8].eq(5).all()
    assert logits_LL[8:].eq(-5).all()
    wide = mask_logits(mask_HW[:32], Frame.whole((32, 64), 128), 16, logit=5)
    assert wide[8:].eq(NEVER).all()


def test_a_damaged_mask_is_repaired_by_one_click_and_keeps_what_was_far_from_it() -> None:
    model = load_model("seed")
    image = next(image for image in load_folder("tests/data/photos") if image.domain == "nuts")
    pixels_HW3 = read_pixels(image)
    zoomed = ZoomedImage(model, pixels_HW3)
    image_hw = (pixels_HW3.shape[0], pixels_HW3.shape[1])
    views = ImageViews(
        image_hw=image_hw, windows=windows_of(model, image_hw), embed=lambda crop: zoomed.view(crop).embeddings_1CEE
    )
    gains = []
    for truth in next(iter(image.masks_by_annotator.values()))[:6]:
        truth_HW = rle.decode(truth)
        damaged_HW = truth_HW.astype(np.uint8)
        x0, y0, x1, y1 = rle.box_xyxy(truth)
        cv2.circle(damaged_HW, (x0, (y0 + y1) // 2), (x1 - x0) // 3, 0, -1)
        damaged = rle.encode(damaged_HW)
        click = next_click(truth_HW, damaged_HW.astype(bool), [], centre_click, np.random.default_rng(0))
        ((found,),) = predict_many(
            model, [(views, prompt_with_mask(model, views, ObjectPrompt(clicks=(click,)), damaged))]
        )
        refined = change_around_clicks(damaged, found.rle, [click])
        gains.append(rle.iou(refined, truth) - rle.iou(damaged, truth))
    assert np.median(gains) > 0.05


def test_only_regions_with_a_click_change() -> None:
    before = square(10, 10, 30, 30)
    predicted_HW = np.zeros((64, 64), dtype=bool)
    predicted_HW[10:30, 10:40] = True  # grows to the right,
    predicted_HW[50:60, 50:60] = True  # and elsewhere,
    predicted_HW[10:15, 10:15] = False  # and loses a corner
    predicted = rle.encode(predicted_HW)
    grown = change_around_clicks(before, predicted, [Click(x=35, y=20)])
    assert rle.box_xyxy(grown) == (10, 10, 40, 30)
    assert rle.area(grown) == 600
    cut = change_around_clicks(before, predicted, [Click(x=12, y=12, positive=False)])
    assert rle.area(cut) == 400 - 25
    assert change_around_clicks(before, predicted, [Click(x=20, y=20)]) == before


def test_a_mask_that_cannot_be_refined_is_refused() -> None:
    model = load_model("seed")
    views = ImageViews(image_hw=(64, 64), windows=windows_of(model, (64, 64)), embed=lambda _: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="got an empty mask"):
        prompt_with_mask(model, views, ObjectPrompt(), square(0, 0, 0, 0))
    with pytest.raises(ValueError, match="expected its image's 64x64"):
        prompt_with_mask(model, views, ObjectPrompt(), square(0, 0, 5, 5, side=65))
    with pytest.raises(ValueError, match="expected it inside"):
        prompt_with_mask(model, views, ObjectPrompt(clicks=(Click(x=99, y=0),)), square(0, 0, 5, 5))
