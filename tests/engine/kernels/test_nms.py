"""Box NMS against a plain double loop, and its conventions."""

import sys

import numpy as np
import pytest

from engine.kernels.nms import box_iou, box_nms


def nms_by_the_book(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        x0, y0, x1, y1 = (float(v) for v in boxes[i])
        for k in kept:
            u0, v0, u1, v1 = (float(v) for v in boxes[k])
            shared = max(0, min(x1, u1) - max(x0, u0)) * max(0, min(y1, v1) - max(y0, v0))
            union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared
            if union and shared / union > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.01])
@pytest.mark.parametrize("seed", range(3))
def test_the_survivors_and_their_order_are_those_of_the_plain_definition(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 60, (200, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 40, (200, 2))], axis=1)
    scores = rng.integers(0, 20, 200) / 20  # many ties
    assert box_nms(boxes, scores, threshold).tolist() == nms_by_the_book(boxes, scores, threshold)


def test_equal_scores_keep_their_order() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    assert box_nms(boxes, np.ones(3), 0.7).tolist() == [0, 2]


def test_a_threshold_is_exceeded_not_met() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]])
    assert box_iou(boxes[0].astype(float), boxes[1:])[0] == 0.5
    assert len(box_nms(boxes, np.array([1.0, 0.5]), 0.5)) == 2
    assert len(box_nms(boxes, np.array([1.0, 0.5]), 0.49)) == 1


def test_boxes_without_area_never_suppress_each_other() -> None:
    assert box_nms(np.zeros((3, 4)), np.arange(3.0), 0.1).tolist() == [2, 1, 0]


def test_no_boxes_leave_none() -> None:
    assert box_nms(np.empty((0, 4)), np.empty(0), 0.7).tolist() == []


def test_boxes_and_scores_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        box_nms(np.zeros((3, 4)), np.zeros(2), 0.7)


def test_asking_for_triton_where_it_cannot_run_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "engine.kernels.nms_triton", None)
    with pytest.raises(RuntimeError, match="triton"):
        box_nms(np.zeros((3, 4)), np.zeros(3), 0.7, backend="triton")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'reference' or 'triton'"):
        box_nms(np.zeros((3, 4)), np.zeros(3), 0.7, backend="cuda")
