"""Detection of squares, on whole images and in windows."""

import numpy as np
import pytest

from engine.detector.config import DetectConfig, DetectorConfig
from engine.detector.detect import detect
from engine.images import Frame
from engine.interactive.segment import SamImage
from engine.interactive.zoom import SamOpened, ZoomedImage, open_with_sam
from engine.kernels.nms import box_iou
from storage import rle
from tests.engine.detector.square_detector import square_detector, square_image, square_model


def opened_square(seed: int, height: int = 64, width: int = 64) -> tuple[SamOpened, np.ndarray]:
    image_HW3, mask_HW = square_image(np.random.default_rng([50, seed]), height, width)
    return open_with_sam(square_model(), image_HW3), np.array(rle.box_xyxy(rle.encode(mask_HW)), dtype=np.float64)


def test_squares_that_it_never_saw_are_found_by_the_best_box() -> None:
    found = []
    for seed in range(20):
        opened, truth_4 = opened_square(seed)
        boxes = detect(square_detector(), opened)
        found.append(box_iou(truth_4, boxes.boxes_N4[:1].astype(np.float64))[0])
    assert np.mean(np.array(found) >= 0.5) >= 0.9, found


def test_boxes_lie_inside_the_image_and_are_ranked_and_distinct() -> None:
    opened, _ = opened_square(1, height=40, width=64)
    found = detect(square_detector(), opened, DetectConfig(nms_threshold=0.5, max_boxes=7))
    assert 0 < len(found) <= 7
    assert (np.diff(found.scores_N) <= 0).all()
    assert (found.boxes_N4 >= 0).all()
    assert (found.boxes_N4 <= [64, 40, 64, 40]).all()
    for rank, box_4 in enumerate(found.boxes_N4.astype(np.float64)):
        assert (box_iou(box_4, found.boxes_N4[:rank].astype(np.float64)) <= 0.5 + 1e-6).all()


def test_boxes_below_the_lowest_score_are_left_out() -> None:
    opened, _ = opened_square(2)
    every, some = detect(square_detector(), opened), detect(square_detector(), opened, DetectConfig(min_score=0.5))
    assert 0 < len(some) < len(every)
    assert some.scores_N.min() >= 0.5


def test_windows_find_small_squares_and_leave_cut_ones_to_others() -> None:
    """A square of 20 px in 256 px has 5 model pixels on the whole image, and 15 in a window of layer 2."""
    model = square_model()
    image_HW3 = np.full((256, 256, 3), 40, np.uint8)
    image_HW3[100:120, 60:80] = 220
    opened = ZoomedImage(model, image_HW3)
    truth_4 = np.array([60.0, 100, 80, 120])
    best = {
        layers: box_iou(truth_4, detect(square_detector(), opened, DetectConfig(crop_layers=layers)).boxes_N4).max()
        for layers in (0, 2)
    }
    assert best[2] >= 0.5 > best[0]

    cut = SamImage(
        model=model,
        embeddings_1CEE=opened.view(opened.windows[1].xyxy).embeddings_1CEE,
        frame=Frame(crop_xyxy=opened.windows[1].xyxy, image_hw=(256, 256), model_side=64),
    )
    x1, y1 = opened.windows[1].xyxy[2:]
    inner = detect(square_detector(), cut).boxes_N4
    assert (inner[:, 2] < x1).all()
    assert (inner[:, 3] < y1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_layers": 3}, "detect.crop_layers: got 3"),
        ({"nms_threshold": 0.0}, "detect.nms_threshold: got 0.0"),
        ({"max_boxes": 0}, "detect.max_boxes: got 0"),
        ({"min_score": 2.0}, "detect.min_score: got 2.0"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectConfig(**change)


@pytest.mark.parametrize("change", [{"width": 12}, {"levels": 6}, {"embedding_side": 7}, {"tower_depth": 0}])
def test_sizes_that_contradict_each_other_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="detector sizes"):
        DetectorConfig(**({"embedding_width": 8, "embedding_side": 16, "input_side": 128} | change))
