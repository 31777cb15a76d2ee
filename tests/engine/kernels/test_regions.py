"""Clean-up of small regions against the definition on the whole image."""

import cv2
import numpy as np
import pytest

from engine.kernels.regions import CleanedMask, clean_small_regions
from storage import rle


def cleaned_by_the_book(mask: np.ndarray, min_px: int) -> np.ndarray:
    """Region by region over the whole image: holes, then islands; the largest island stays if all are small."""
    mask = mask.copy()
    count, labels = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=8)
    for label in range(1, count):
        if (labels == label).sum() < min_px:
            mask[labels == label] = True
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    sizes = [(labels == label).sum() for label in range(1, count)]
    for label, size in enumerate(sizes, start=1):
        if size < min_px and not (max(sizes) < min_px and label == int(np.argmax(sizes)) + 1):
            mask[labels == label] = False
    return mask


@pytest.mark.parametrize("min_px", [1, 5, 40, 300])
@pytest.mark.parametrize("shape", [(60, 80), (7, 90), (90, 7), (1, 50), (50, 1), (64, 64)])
def test_the_window_around_a_mask_decides_as_the_whole_image_would(shape: tuple[int, int], min_px: int) -> None:
    rng = np.random.default_rng(min_px)
    for smoothness in (1, 3, 7):
        noise = cv2.blur(rng.normal(size=shape).astype(np.float32), (smoothness, smoothness))
        mask = noise > np.quantile(noise, rng.choice([0.2, 0.5, 0.9]))
        cleaned = clean_small_regions(rle.encode(mask), min_px)
        expected = cleaned_by_the_book(mask, min_px)
        assert np.array_equal(rle.decode(cleaned.rle), expected)
        assert cleaned.is_changed == (not np.array_equal(mask, expected))


def test_a_hole_is_filled_a_speck_removed_and_what_is_large_stays() -> None:
    mask = np.zeros((100, 120), dtype=bool)
    mask[10:60, 10:60] = True
    mask[20:25, 20:25] = False  # 25 px: a hole
    mask[30:45, 30:45] = False  # 225 px: an opening
    mask[80:84, 90:94] = True  # 16 px: a speck
    cleaned = clean_small_regions(rle.encode(mask), 100)
    assert cleaned.is_changed
    assert cleaned.largest_island_px == 50 * 50 - 225
    assert rle.area(cleaned.rle) == 50 * 50 - 225


def test_regions_touch_over_corners() -> None:
    diagonal = rle.encode(np.eye(12, dtype=bool))
    assert clean_small_regions(diagonal, 12) == CleanedMask(rle=diagonal, is_changed=False, largest_island_px=12)


def test_of_small_islands_alone_the_largest_is_reported() -> None:
    mask = np.zeros((50, 50), dtype=bool)
    mask[2:5, 2:5] = mask[20:26, 20:26] = True
    cleaned = clean_small_regions(rle.encode(mask), 100)
    assert cleaned.largest_island_px == 36
    assert rle.box_xyxy(cleaned.rle) == (20, 20, 26, 26)


@pytest.mark.parametrize("fill", [False, True])
def test_empty_and_full_masks_are_left_as_they_are(fill: bool) -> None:
    runs = rle.encode(np.full((30, 20), fill))
    cleaned = clean_small_regions(runs, 100)
    assert cleaned.rle == runs
    assert not cleaned.is_changed
    assert cleaned.largest_island_px == (600 if fill else 0)
