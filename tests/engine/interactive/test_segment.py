from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.evaluation.clicked import evaluate
from engine.evaluation.config import EvaluationConfig
from engine.images import Frame
from engine.interactive import segment as interact_module
from engine.interactive.segment import (
    Candidates,
    Click,
    ObjectPrompt,
    SamImage,
    SamSegmenter,
    interact,
    interact_many,
    masks_at_image_size,
)
from engine.labelled import load_folder, read_pixels
from engine.model.weights import Model
from engine.prompts import Prompts
from tests.paths import PHOTOS
from tests.tiny_network import tiny_model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(zooms_in=False)


@pytest.fixture(scope="module")
def picture(model: Model) -> SamImage:
    image = next(image for image in load_folder(PHOTOS) if image.domain == "coco")
    return SamSegmenter(model=model).open(read_pixels(image))


def ask(picture: SamImage, **prompt: Any) -> Candidates:
    return interact(picture.model, picture.embeddings_1CEE, picture.frame, **prompt)


def test_a_lone_click_gets_three_candidates_ranked_by_predicted_iou(picture: SamImage) -> None:
    answer = ask(picture, clicks=[Click(x=320.5, y=200.5)])
    assert answer.masks_MHW.shape == (3, 480, 640)
    assert answer.masks_MHW.dtype == bool
    assert answer.logits_MLL.shape == (3, 32, 32)
    assert answer.predicted_iou_M[answer.chosen] == answer.predicted_iou_M.max()


@pytest.mark.parametrize(
    "prompt",
    [
        {"clicks": [Click(x=320.5, y=200.5), Click(x=10.5, y=10.5, positive=False)]},
        {"box_xyxy": (100, 100, 300, 250)},
        {"clicks": [Click(x=320.5, y=200.5)], "box_xyxy": (100, 100, 400, 250)},
        {"clicks": [Click(x=320.5, y=200.5)], "previous_logits_LL": torch.ones(32, 32)},
    ],
)
def test_anything_more_than_a_lone_click_gets_one_mask(picture: SamImage, prompt: dict[str, Any]) -> None:
    assert ask(picture, **prompt).masks_MHW.shape == (1, 480, 640)


def test_the_answer_is_what_the_network_says_in_picture_pixels(model: Model, picture: SamImage) -> None:
    answer = ask(picture, clicks=[Click(x=320.5, y=200.5)])
    # 640x480 on a side of 128: a fifth of the size, 96 rows of picture above the padding
    prompts = Prompts(points_PK2=torch.tensor([[[64.1, 40.1]]]), labels_PK=torch.ones(1, 1, dtype=torch.int64))
    with torch.no_grad():
        decoded = model.sam.decode(picture.embeddings_1CEE, prompts, outputs="multimask")
        at_input = F.interpolate(decoded.logits_PMLL, (128, 128), mode="bilinear")[..., :96, :]
        expected = F.interpolate(at_input, (480, 640), mode="bilinear")[0] > 0
    assert answer.predicted_iou_M == pytest.approx(decoded.iou_PM[0].numpy(), rel=1e-5)
    assert (answer.masks_MHW == expected.numpy()).mean() > 0.9999
    assert 0 < answer.masks_MHW.mean() < 1


def test_objects_asked_together_get_the_answers_they_get_alone(model: Model, picture: SamImage) -> None:
    clicks = [Click(x=100.5, y=100.5), Click(x=500.5, y=400.5), Click(x=20.5, y=470.5)]
    together = interact_many(model, picture.embeddings_1CEE, picture.frame, [ObjectPrompt(clicks=(c,)) for c in clicks])
    for click, answer in zip(clicks, together, strict=True):
        alone = ask(picture, clicks=[click])
        assert answer.predicted_iou_M == pytest.approx(alone.predicted_iou_M, abs=1e-5)
        torch.testing.assert_close(answer.logits_MLL, alone.logits_MLL, atol=1e-4, rtol=1e-4)


def test_the_order_of_questions_does_not_matter(picture: SamImage) -> None:
    first = ask(picture, clicks=[Click(x=320.5, y=200.5)])
    ask(picture, clicks=[Click(x=20.5, y=20.5)], previous_logits_LL=first.logits_MLL[0])
    again = ask(picture, clicks=[Click(x=320.5, y=200.5)])
    assert torch.equal(first.logits_MLL, again.logits_MLL)


def test_the_previous_mask_is_seen_by_the_network(picture: SamImage) -> None:
    clicks = [Click(x=320.5, y=200.5), Click(x=100.5, y=100.5)]
    first = ask(picture, clicks=clicks[:1])
    without = ask(picture, clicks=clicks)
    with_previous = ask(picture, clicks=clicks, previous_logits_LL=first.logits_MLL[first.chosen])
    assert not torch.allclose(without.logits_MLL, with_previous.logits_MLL)


def test_upsampling_in_parts_gives_the_same_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_NLL = torch.randn(7, 32, 32, generator=torch.Generator().manual_seed(0))
    frame = Frame.whole((90, 61), 128)
    at_once = masks_at_image_size(logits_NLL, frame)
    monkeypatch.setattr(interact_module, "FLOATS_AT_ONCE", 2 * (128 * 128 + 90 * 61))
    assert np.array_equal(at_once, masks_at_image_size(logits_NLL, frame))
    assert at_once.shape == (7, 90, 61)


def test_a_window_of_the_picture_fills_only_its_own_part() -> None:
    frame = Frame(crop_xyxy=(20, 10, 60, 40), image_hw=(50, 80), model_side=64)
    masks_NHW = masks_at_image_size(torch.ones(1, 16, 16), frame)
    assert masks_NHW.sum() == 40 * 30
    assert masks_NHW[0, 10:40, 20:60].all()


def test_no_prompts_get_no_answers(model: Model, picture: SamImage) -> None:
    assert interact_many(model, picture.embeddings_1CEE, picture.frame, []) == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "without clicks and without a box"),
        ({"clicks": [Click(x=641, y=3)]}, "x 641, y 3, expected it inside the 640x480 image"),
        ({"clicks": [Click(x=float("nan"), y=3)]}, "x nan"),
        ({"box_xyxy": (30, 10, 20, 40)}, "expected x0 < x1"),
        ({"box_xyxy": (0, 0, 20, 481)}, "inside the 640x480 image"),
        ({"clicks": [Click(x=3, y=3)], "previous_logits_LL": torch.zeros(16, 16)}, r"\[16, 16\], expected \[32, 32\]"),
    ],
)
def test_prompts_that_make_no_sense_are_refused(picture: SamImage, prompt: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(picture, **prompt)


def test_prompts_of_different_kinds_in_one_call_are_refused(picture: SamImage) -> None:
    prompts = [ObjectPrompt(clicks=(Click(x=3, y=3),)), ObjectPrompt(box_xyxy=(0, 0, 9, 9))]
    with pytest.raises(ValueError, match="2 kinds in one call"):
        picture.segment(prompts)


def test_a_network_goes_through_the_whole_evaluation(model: Model) -> None:
    images = [image for image in load_folder(PHOTOS) if image.domain in ("nuts", "coco")]
    config = EvaluationConfig(clicks=(1, 3, 5), noc=True, boxes=True, max_masks_per_image=1)
    evaluation = evaluate(SamSegmenter(model=model), images, config)
    figures = evaluation.overall.figures
    assert evaluation.overall.masks == 4
    assert figures["miou_1_chosen"].value <= figures["miou_1_best3"].value
    assert all(len(score.iou_after) == 20 for score in evaluation.scores if score.clicks_to(0.9) is None)
    assert evaluation.calibration.candidates == 12
    again = evaluate(SamSegmenter(model=model), images, config)
    assert [score.iou_after for score in again.scores] == [score.iou_after for score in evaluation.scores]
