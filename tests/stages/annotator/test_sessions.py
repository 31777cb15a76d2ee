import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from engine.interactive import batched
from engine.interactive.batched import Predicted
from engine.interactive.segment import Click, ObjectPrompt
from engine.interactive.zoom import ZoomedImage
from stages.annotator import decoding
from stages.annotator.config import SessionsConfig
from stages.annotator.decoding import Busy
from stages.annotator.sessions import AskedPrompt, Continued, Prediction, Scribble, Sessions, merge
from storage import rle
from storage.dataset import Dataset
from storage.errors import NotFound

CLICK = Click(x=40.5, y=30.5)


def ask(sessions: Sessions, image_id: int, **prompt: object) -> Prediction:
    return sessions.predict(image_id, AskedPrompt(**prompt)).result(60)


def test_a_lone_click_gets_three_masks_with_the_hashes_they_belong_to(
    sessions: Sessions, annotated: Dataset, image_ids: list[int]
) -> None:
    answer = ask(sessions, image_ids[0], clicks=(CLICK,))
    assert len(answer.candidates) == 3
    assert [c.predicted_iou for c in answer.candidates] == sorted(
        (c.predicted_iou for c in answer.candidates), reverse=True
    )
    assert {(c.rle.height, c.rle.width) for c in answer.candidates} == {(64, 96)}
    assert all(0 <= c.stability <= 1 for c in answer.candidates)
    row = annotated.query(f"SELECT stored_sha256 FROM images WHERE image_id = {image_ids[0]}").to_pylist()[0]
    assert answer.image_sha256 == row["stored_sha256"]
    assert answer.model_id == sessions.models.ids()[0]
    assert answer.basis == "none"


def test_a_second_click_continues_the_chosen_candidate(seed_sessions: Sessions, image_ids: list[int]) -> None:
    first = ask(seed_sessions, image_ids[0], clicks=(CLICK,))
    clicks = (CLICK, Click(x=10.5, y=10.5, positive=False))
    answers = [
        ask(
            seed_sessions,
            image_ids[0],
            clicks=clicks,
            continued=Continued(prediction_id=first.prediction_id, candidate=k),
        )
        for k in range(3)
    ]
    assert {answer.basis for answer in answers} == {"logits"}
    assert all(len(answer.candidates) == 1 for answer in answers)
    assert len({answer.candidates[0].predicted_iou for answer in answers}) > 1
    with pytest.raises(ValueError, match="got candidate 3, expected 0 to 2"):
        ask(
            seed_sessions,
            image_ids[0],
            clicks=clicks,
            continued=Continued(prediction_id=first.prediction_id, candidate=3),
        )


def test_a_prediction_of_another_image_cannot_be_continued(sessions: Sessions, image_ids: list[int]) -> None:
    first = ask(sessions, image_ids[0], clicks=(CLICK,))
    with pytest.raises(ValueError, match="begin anew or send the mask"):
        ask(
            sessions, image_ids[1], clicks=(CLICK,), continued=Continued(prediction_id=first.prediction_id, candidate=0)
        )


def test_where_the_logits_are_gone_the_mask_is_refined_and_the_answer_says_so(
    sessions: Sessions, image_ids: list[int]
) -> None:
    gone = Continued(prediction_id="gone", candidate=0)
    with pytest.raises(NotFound, match="send the mask with it"):
        ask(sessions, image_ids[0], clicks=(CLICK,), continued=gone)
    mask_HW = np.zeros((64, 96), dtype=bool)
    mask_HW[20:40, 20:40] = True
    answer = ask(sessions, image_ids[0], clicks=(CLICK,), continued=gone, mask=rle.encode(mask_HW))
    assert answer.basis == "mask"
    local, whole = answer.candidates
    assert local.predicted_iou == whole.predicted_iou
    # away from the click the local change is the mask as it was
    again = ask(
        sessions, image_ids[0], clicks=(CLICK,), continued=Continued(prediction_id=answer.prediction_id, candidate=1)
    )
    assert again.basis == "logits"


def test_scribbles_and_boxes_are_prompts_too(sessions: Sessions, image_ids: list[int]) -> None:
    scribble = Scribble(points=((10, 10), (60, 10)))
    assert len(ask(sessions, image_ids[0], scribbles=(scribble,)).candidates) == 1
    assert len(ask(sessions, image_ids[0], box_xyxy=(10, 10, 40, 40)).candidates) == 1
    strokes = (scribble,) * 30
    with pytest.raises(ValueError, match="got 90 clicks"):
        ask(sessions, image_ids[0], scribbles=strokes)


def test_prompts_that_cannot_be_used_are_refused_at_once(sessions: Sessions, image_ids: list[int]) -> None:
    with pytest.raises(ValueError, match="expected it inside the 96x64 image"):
        sessions.predict(image_ids[0], AskedPrompt(clicks=(Click(x=97, y=1),)))
    with pytest.raises(ValueError, match="without clicks and without a box"):
        sessions.predict(image_ids[0], AskedPrompt())
    with pytest.raises(NotFound, match="expected the id of an image"):
        sessions.predict(1, AskedPrompt(clicks=(CLICK,)))
    with pytest.raises(NotFound, match="got model 'gone'"):
        sessions.predict(image_ids[0], AskedPrompt(clicks=(CLICK,)), "gone")


def test_prompts_of_many_annotators_together_get_the_masks_they_get_alone(
    sessions: Sessions, image_ids: list[int]
) -> None:
    prompts = [
        (image_ids[k % 3], AskedPrompt(clicks=tuple(Click(x=5.5 + 7 * k + n, y=20.5) for n in range(1 + k % 2))))
        for k in range(12)
    ]
    alone = [sessions.predict(image_id, prompt).result(60) for image_id, prompt in prompts]
    together = [future.result(60) for future in [sessions.predict(image_id, prompt) for image_id, prompt in prompts]]
    assert max(answer.batch for answer in together) > 1
    for one, other in zip(alone, together, strict=True):
        assert [c.predicted_iou for c in one.candidates] == pytest.approx(
            [c.predicted_iou for c in other.candidates], abs=1e-4
        )
        assert [c.rle for c in one.candidates] == [c.rle for c in other.candidates]


def test_a_full_queue_refuses_and_what_waits_is_still_answered(
    annotated: Dataset, image_ids: list[int], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    real = batched.predict_many

    def held(*arguments: object) -> list[list[Predicted]]:
        go.wait(30)
        return real(*arguments)

    monkeypatch.setattr(decoding, "predict_many", held)
    config = SessionsConfig(decode_threads=1, max_batch=1, max_waiting=2, max_wait_ms=0)
    sessions = Sessions(annotated, [str(tiny_model)], tmp_path, config)
    waiting: list[Future[Prediction]] = []

    def fill() -> None:
        for _ in range(4):
            waiting.append(sessions.predict(image_ids[0], AskedPrompt(clicks=(CLICK,))))

    with pytest.raises(Busy, match="2 others wait, which is the limit; try again"):
        fill()
    go.set()
    assert all(len(future.result(60).candidates) == 3 for future in waiting)
    sessions.close()


def test_logits_of_old_predictions_make_room(
    annotated: Dataset, image_ids: list[int], tiny_model: Path, tmp_path: Path
) -> None:
    sessions = Sessions(annotated, [str(tiny_model)], tmp_path, SessionsConfig(prediction_bytes=4000))
    first = ask(sessions, image_ids[0], clicks=(CLICK,))
    newest = [ask(sessions, image_ids[0], clicks=(CLICK,)) for _ in range(3)][-1]
    with pytest.raises(NotFound, match="gone"):
        ask(
            sessions, image_ids[0], clicks=(CLICK,), continued=Continued(prediction_id=first.prediction_id, candidate=0)
        )
    ask(sessions, image_ids[0], clicks=(CLICK,), continued=Continued(prediction_id=newest.prediction_id, candidate=0))
    sessions.close()


def test_images_are_encoded_ahead_of_their_first_click(
    annotated: Dataset, image_ids: list[int], tiny_model: Path, tmp_path: Path
) -> None:
    sessions = Sessions(annotated, [str(tiny_model)], tmp_path, SessionsConfig())
    assert sessions.prepare(image_ids[0]) is False
    encoded = sessions.open(image_ids[0])
    for _ in range(400):
        if sessions.encoder.is_ready(encoded.picture, encoded.model):
            break
        threading.Event().wait(0.02)
    assert sessions.prepare(image_ids[0]) is True
    sessions.close()
    again = Sessions(annotated, [str(tiny_model)], tmp_path, SessionsConfig())
    assert again.prepare(image_ids[0]) is True  # from the disk, after a restart
    again.close()


def test_half_precision_of_the_cache_hardly_changes_a_mask(seed_sessions: Sessions, image_ids: list[int]) -> None:
    encoded = seed_sessions.open(image_ids[0])
    exact = ZoomedImage(encoded.model, encoded.picture.pixels_HW3)
    box_xyxy = (10.0, 10.0, 60.0, 50.0)
    (expected,) = exact.segment([ObjectPrompt(box_xyxy=box_xyxy)])
    answer = ask(seed_sessions, image_ids[0], box_xyxy=box_xyxy)
    assert rle.iou(answer.candidates[0].rle, rle.encode(expected.masks_MHW[0])) > 0.99


def test_merging_takes_two_masks() -> None:
    mask = rle.encode(np.eye(4, dtype=bool))
    assert merge([mask, mask]) == mask
    with pytest.raises(ValueError, match="expected at least 2"):
        merge([mask])
