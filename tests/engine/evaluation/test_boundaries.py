import cv2
import numpy as np
import pytest

from engine.evaluation.boundaries import boundary_iou, inner_band


def square(side: int, x0: int, x1: int, y0: int, y1: int) -> np.ndarray:
    mask_HW = np.zeros((side, side), dtype=bool)
    mask_HW[y0:y1, x0:x1] = True
    return mask_HW


def blobs(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 6) > 0


def taken_by_erosions(mask_HW: np.ndarray, times: int) -> np.ndarray:
    padded = np.pad(mask_HW.astype(np.uint8), 1)
    return mask_HW & ~cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=times)[1:-1, 1:-1].astype(bool)


@pytest.mark.parametrize("band_px", [1, 2, 5, 40])
def test_the_band_is_what_so_many_erosions_take_away(band_px: int) -> None:
    rng = np.random.default_rng(band_px)
    for shape in ((60, 90), (90, 61)):
        mask_HW = blobs(rng, shape)
        assert mask_HW[0].any()  # the picture's border is an edge too
        assert np.array_equal(inner_band(mask_HW, band_px), taken_by_erosions(mask_HW, band_px))


def test_it_is_the_iou_of_two_bands_two_hundredths_of_the_diagonal_wide() -> None:
    # 200x200: the diagonal is 283 px, the band 6 px; frames of squares of 100 and 88 px that do not touch each other
    outer, inner = square(200, 40, 140, 40, 140), square(200, 46, 134, 46, 134)
    assert np.count_nonzero(outer & inner) / np.count_nonzero(outer | inner) > 0.77
    assert boundary_iou(outer, inner) == 0.0
    # one column further to the right: two bands of 2256 px each
    moved = square(200, 41, 141, 40, 140)
    band, moved_band = taken_by_erosions(outer, 6), taken_by_erosions(moved, 6)
    expected = np.count_nonzero(band & moved_band) / np.count_nonzero(band | moved_band)
    assert np.count_nonzero(band) == 100**2 - 88**2
    assert boundary_iou(moved, outer) == boundary_iou(outer, moved) == expected


def test_thin_masks_get_their_plain_iou_and_equal_masks_1() -> None:
    line, longer = square(200, 10, 12, 0, 100), square(200, 10, 12, 0, 200)
    assert boundary_iou(line, longer) == 0.5
    assert boundary_iou(line, line) == 1.0


def test_empty_masks_score_0() -> None:
    nothing, something = square(50, 0, 0, 0, 0), square(50, 3, 9, 3, 9)
    assert boundary_iou(nothing, something) == boundary_iou(something, nothing) == boundary_iou(nothing, nothing) == 0.0
