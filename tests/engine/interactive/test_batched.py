from collections.abc import Callable

import numpy as np
import pytest
import torch

from engine.interactive.batched import ImageViews, along_scribble, predict_many, windows_of
from engine.interactive.segment import Click, ObjectPrompt
from engine.interactive.zoom import ZoomedImage
from engine.labelled import load_folder, read_pixels
from engine.model.weights import Model, load_model
from storage import rle
from tests.paths import PHOTOS
from tests.tiny_network import tiny_model

Opened = tuple[ZoomedImage, ImageViews]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("seed")


@pytest.fixture(scope="module")
def opened(model: Model) -> list[Opened]:
    """Two images, each for the evaluation's segmenter and for the batched one, with the same embeddings."""
    pairs = []
    for image in load_folder(PHOTOS)[:2]:
        pixels_HW3 = read_pixels(image)
        zoomed = ZoomedImage(model, pixels_HW3)
        pairs.append((zoomed, views_of(model, zoomed, (pixels_HW3.shape[0], pixels_HW3.shape[1]))))
    return pairs


def views_of(model: Model, zoomed: ZoomedImage, image_hw: tuple[int, int]) -> ImageViews:
    return ImageViews(
        image_hw=image_hw,
        windows=windows_of(model, image_hw),
        embed=lambda crop: zoomed.view(crop).embeddings_1CEE,
    )


PROMPTS: list[Callable[[int, int], ObjectPrompt]] = [
    lambda h, w: ObjectPrompt(clicks=(Click(x=w / 3, y=h / 2),)),
    lambda h, w: ObjectPrompt(clicks=(Click(x=w / 5, y=h / 4),)),
    lambda h, w: ObjectPrompt(clicks=(Click(x=w / 3, y=h / 2), Click(x=w / 2, y=h / 2, positive=False))),
    lambda h, w: ObjectPrompt(box_xyxy=(w / 4, h / 4, w / 2, h / 2)),
    lambda h, w: ObjectPrompt(box_xyxy=(w / 20, h / 20, w / 10, h / 10)),
]


def test_prompts_of_several_images_together_get_the_masks_of_the_zooming_segmenter(
    model: Model, opened: list[Opened]
) -> None:
    requests, expected = [], []
    for zoomed, views in opened:
        for make in PROMPTS:
            prompt = make(*views.image_hw)
            requests.append((views, prompt))
            expected.append(zoomed.segment([prompt])[0])
    for found, wanted in zip(predict_many(model, requests), expected, strict=True):
        assert [mask.predicted_iou for mask in found] == pytest.approx(
            sorted(wanted.predicted_iou_M, reverse=True), abs=1e-4
        )
        order = np.argsort(-wanted.predicted_iou_M, kind="stable")
        for mask, number in zip(found, order, strict=True):
            truth = rle.encode(wanted.masks_MHW[number])
            assert rle.iou(mask.rle, truth) > 0.999
            assert mask.crop_xyxy == wanted.crop_of(int(number))
            assert 0 <= mask.stability <= 1


def test_logits_of_a_window_are_fed_back_as_the_zooming_segmenter_does(model: Model, opened: list[Opened]) -> None:
    zoomed, views = opened[0]
    height, width = views.image_hw
    (small,) = predict_many(model, [(views, ObjectPrompt(box_xyxy=(width / 20, height / 20, width / 10, height / 10)))])
    assert small[0].crop_xyxy != views.windows[0].xyxy
    for click in (Click(x=width / 15, y=height / 15), Click(x=width * 0.9, y=height * 0.9, positive=False)):
        prompt = ObjectPrompt(
            clicks=(click,), previous_logits_LL=small[0].logits_LL, previous_crop_xyxy=small[0].crop_xyxy
        )
        ((found,),) = predict_many(model, [(views, prompt)])
        (wanted,) = zoomed.segment([prompt])
        assert found.predicted_iou == pytest.approx(float(wanted.predicted_iou_M[0]), abs=1e-4)
        wanted_HW = wanted.masks_MHW[0]
        assert wanted_HW.any() or not click.positive
        assert np.sum(rle.decode(found.rle) != wanted_HW) <= 0.001 * wanted_HW.sum()


def test_a_model_that_does_not_zoom_decodes_on_the_whole_image_alone() -> None:
    model = tiny_model(zooms_in=False)
    views = ImageViews(image_hw=(60, 80), windows=windows_of(model, (60, 80)), embed=lambda _: torch.zeros(1, 32, 8, 8))
    (found,) = predict_many(model, [(views, ObjectPrompt(clicks=(Click(x=5, y=5),)))])
    assert len(found) == 3
    assert {mask.crop_xyxy for mask in found} == {(0, 0, 80, 60)}


def test_a_prompt_outside_its_image_is_refused(model: Model, opened: list[Opened]) -> None:
    views = opened[0][1]
    with pytest.raises(ValueError, match="expected it inside"):
        predict_many(model, [(views, ObjectPrompt(clicks=(Click(x=1e6, y=0),)))])


def test_a_scribble_becomes_clicks_at_equal_distances() -> None:
    clicks = along_scribble([(0, 0), (40, 0), (40, 60)], positive=False)
    assert np.allclose([(c.x, c.y) for c in clicks], [(0, 0), (20, 0), (40, 0), (40, 20), (40, 40), (40, 60)])
    assert not any(click.positive for click in clicks)
    assert len(along_scribble([(0, 0), (9000, 0)], positive=True)) == 6
    assert along_scribble([(3, 4)], positive=True) == (Click(x=3, y=4),)
    with pytest.raises(ValueError, match="without points"):
        along_scribble([], positive=True)
