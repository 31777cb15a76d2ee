from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.evaluation.clicked import evaluate
from engine.evaluation.config import EvaluationConfig
from engine.images import Frame
from engine.interactive.segment import Candidates, Click, ObjectPrompt, SamSegmenter
from engine.interactive.zoom import (
    NEVER,
    WINDOW_HANDICAP,
    ZoomedImage,
    ZoomingSegmenter,
    best_three,
    is_cut,
    make_segmenter,
    to_whole,
)
from engine.labelled import load_folder, read_pixels
from engine.model.card import ModelCard
from engine.model.weights import Model, load_model
from tests.paths import PHOTOS
from tests.tiny_network import tiny_model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(zooms_in=True)


@pytest.fixture(scope="module")
def picture(model: Model) -> ZoomedImage:
    image = next(image for image in load_folder(PHOTOS) if image.domain == "coco")
    return ZoomedImage(model, read_pixels(image))


def candidates(masks_MHW: np.ndarray, predicted: list[float], crop: tuple[int, int, int, int]) -> Candidates:
    logits_MLL = torch.arange(len(predicted)).float()[:, None, None].expand(-1, 4, 4)
    return Candidates(
        masks_MHW=masks_MHW,
        predicted_iou_M=np.array(predicted, np.float32),
        logits_MLL=logits_MLL,
        chosen=int(np.argmax(predicted)),
        crops_M=(crop,) * len(predicted),
    )


def crops_of(picture: ZoomedImage, layer: int) -> list[tuple[int, int, int, int]]:
    return [window.xyxy for window in picture.windows if window.layer == layer]


def boxed(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    masks = np.zeros((len(boxes), 40, 60), dtype=bool)
    for mask_HW, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask_HW[y0:y1, x0:x1] = True
    return masks


@pytest.mark.parametrize("layer", [1, 2])
def test_the_windows_cover_the_photograph_and_are_encoded_as_they_are_alone(
    model: Model, picture: ZoomedImage, layer: int
) -> None:
    covered = np.zeros(picture.whole.frame.image_hw, dtype=bool)
    image = next(image for image in load_folder(PHOTOS) if image.domain == "coco")
    crops = crops_of(picture, layer)
    for x0, y0, x1, y1 in crops:
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    assert len(crops) == 4**layer
    x0, y0, x1, y1 = crops[2]
    alone = SamSegmenter(model=model).open(np.ascontiguousarray(read_pixels(image)[y0:y1, x0:x1]))
    torch.testing.assert_close(alone.embeddings_1CEE, picture.view(crops[2]).embeddings_1CEE, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("small_fraction", [0.0, 1.0])
def test_a_lone_click_gets_the_best_three_of_its_views_the_nearest_only_for_what_is_small(
    picture: ZoomedImage, small_fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.interactive.zoom.SMALL_FRACTION", small_fraction)
    prompts = [ObjectPrompt(clicks=(Click(x=x, y=y),)) for x, y in ((100.5, 90.5), (600.5, 400.5))]
    for prompt, corner, answer in zip(prompts, (0, -1), picture.segment(prompts), strict=True):
        expected = picture.whole.segment([prompt])[0]
        for layer in (1, 2) if small_fraction else (1,):
            expected = best_three(expected, picture.view(crops_of(picture, layer)[corner]).segment([prompt])[0])
        assert answer.masks_MHW.shape == (3, 480, 640)
        assert answer.predicted_iou_M == pytest.approx(expected.predicted_iou_M, abs=1e-5)
        assert answer.crops_M == expected.crops_M
        assert answer.chosen == 0


def test_ranking_takes_the_handicap_off_and_drops_what_a_window_cuts() -> None:
    whole = candidates(boxed((0, 0, 50, 30), (0, 0, 20, 20), (0, 0, 9, 9)), [0.5, 0.4, 0.3], (0, 0, 60, 40))
    window = candidates(boxed((0, 0, 30, 20), (1, 1, 9, 9), (2, 2, 9, 9)), [0.9, 0.52, 0.45], (0, 0, 30, 20))
    assert is_cut(window.masks_MHW, (0, 0, 30, 20)).tolist() == [True, False, False]
    best = best_three(whole, window)
    assert best.predicted_iou_M == pytest.approx([0.5, 0.52 - WINDOW_HANDICAP, 0.45 - WINDOW_HANDICAP])
    assert best.crops_M == ((0, 0, 60, 40), (0, 0, 30, 20), (0, 0, 30, 20))
    assert best.logits_MLL[:, 0, 0].tolist() == [0, 1, 2]
    assert best.masks_MHW.sum((1, 2)).tolist() == [1500, 64, 49]


def test_a_mask_is_cut_only_by_borders_inside_the_photograph() -> None:
    crop = (20, 0, 60, 25)
    cases = {(20, 5, 30, 9): True, (50, 5, 60, 9): False, (30, 0, 40, 9): False, (30, 20, 40, 25): True}
    assert is_cut(boxed(*cases), crop).tolist() == list(cases.values())


def test_corrections_are_asked_where_the_mask_was_found(picture: ZoomedImage) -> None:
    first = Click(x=100.5, y=90.5)
    window = picture.view(crops_of(picture, 1)[0])
    found = window.segment([ObjectPrompt(clicks=(first,))])[0]
    crop, logits_LL = window.frame.crop_xyxy, found.logits_MLL[1]
    inside = ObjectPrompt(clicks=(first, Click(x=120.5, y=95.5)), previous_logits_LL=logits_LL, previous_crop_xyxy=crop)
    assert torch.equal(picture.segment([inside])[0].logits_MLL, window.segment([inside])[0].logits_MLL)
    assert picture.segment([inside])[0].crops_M == (crop,)
    outside = replace(inside, clicks=(first, Click(x=630.5, y=470.5)))
    answer = picture.segment([outside])[0]
    assert answer.crops_M == ((0, 0, 640, 480),)
    laid_LL = to_whole(logits_LL, window.frame, picture.whole.frame)
    expected = picture.whole.segment([replace(outside, previous_logits_LL=laid_LL, previous_crop_xyxy=None)])[0]
    assert torch.equal(answer.logits_MLL, expected.logits_MLL)


def test_logits_of_a_window_lie_at_its_place_in_the_whole() -> None:
    whole = Frame.whole((40, 80), 64)
    window = replace(whole, crop_xyxy=(40, 0, 80, 20))
    logits_LL = torch.full((16, 16), 5.0)
    laid_LL = to_whole(logits_LL, window, whole)
    assert (laid_LL[:4, 8:] == 5).all()
    assert (laid_LL == NEVER).sum() == 16 * 16 - 4 * 8


def test_a_box_is_asked_in_a_window_that_leaves_room_around_it(picture: ZoomedImage) -> None:
    boxes = [(30, 30, 90, 80), (30, 30, 290, 180), (30, 30, 600, 400)]
    answers = picture.segment([ObjectPrompt(box_xyxy=box) for box in boxes])
    expected = [crops_of(picture, 2)[0], crops_of(picture, 1)[0], (0, 0, 640, 480)]
    assert [answer.crops_M[0] for answer in answers] == expected


def test_a_box_outside_the_photograph_is_refused(picture: ZoomedImage) -> None:
    with pytest.raises(ValueError, match=r"inside the 640x480 image"):
        picture.segment([ObjectPrompt(box_xyxy=(700, 10, 720, 20))])


def test_logits_of_an_unknown_window_are_refused(picture: ZoomedImage) -> None:
    click, logits_LL = Click(x=100.5, y=90.5), torch.zeros(32, 32)
    prompt = ObjectPrompt(clicks=(click,), previous_logits_LL=logits_LL, previous_crop_xyxy=(1, 2, 30, 40))
    with pytest.raises(ValueError, match=r"\(1, 2, 30, 40\), which is none of this image's windows"):
        picture.segment([prompt])


def test_a_photograph_of_one_pixel_is_answered(model: Model) -> None:
    tiny = ZoomedImage(model, np.full((1, 1, 3), 90, dtype=np.uint8))
    prompt = ObjectPrompt(clicks=(Click(x=0.5, y=0.5),))
    (answer,) = tiny.segment([prompt])
    assert len(answer.masks_MHW) == 3
    assert set(answer.crops_M) == {(0, 0, 1, 1)}


def test_the_card_says_how_a_model_is_asked(model: Model) -> None:
    assert isinstance(make_segmenter(model), ZoomingSegmenter)
    plain = replace(model, card=replace(model.card, zooms_in=False))
    assert isinstance(make_segmenter(plain), SamSegmenter)
    assert ModelCard.from_json(model.card.to_json()) == model.card


@pytest.mark.slow
def test_on_small_objects_the_seed_gains_by_zooming_in() -> None:
    seed = load_model("seed")
    images = [image for image in load_folder(PHOTOS) if image.domain == "nuclei"]
    config = EvaluationConfig(clicks=(1, 2), boxes=True, max_masks_per_image=12)
    plain, zoomed = (
        evaluate(segmenter, images, config).overall.figures
        for segmenter in (SamSegmenter(model=seed), ZoomingSegmenter(model=seed))
    )
    assert zoomed["miou_1_best3"].value > plain["miou_1_best3"].value
    assert zoomed["miou_box"].value > plain["miou_box"].value
