"""Box NMS: the Triton backend against the reference."""

import numpy as np
import pytest

from engine.kernels.nms import box_nms


def boxes_of(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping boxes with inclusive maxima, some without area, and scores with many ties."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 60, (count, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 40, (count, 2))], axis=1)
    return boxes, rng.integers(0, 20, count) / 20


@pytest.mark.parametrize("threshold", [0.0, 0.7, 1.01])
@pytest.mark.parametrize("count", [0, 1, 32, 70])
def test_triton_leaves_the_same_boxes_in_the_same_order(count: int, threshold: float) -> None:
    boxes, scores = boxes_of(count, seed=count)
    plain = box_nms(boxes, scores, threshold)
    assert box_nms(boxes, scores, threshold, backend="triton").tolist() == plain.tolist()


def test_a_threshold_is_exceeded_not_met_to_the_last_bit() -> None:
    boxes, scores = np.array([[0, 0, 10, 10], [0, 0, 10, 7]]), np.array([1.0, 0.5])
    for threshold, kept in ((0.7, 2), (np.nextafter(0.7, 0), 1)):
        assert len(box_nms(boxes, scores, threshold, backend="triton")) == kept
