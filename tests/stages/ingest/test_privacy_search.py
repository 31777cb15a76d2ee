import numpy as np
import pytest

from stages.ingest.privacy_search import OVERLAP_PX, TILE_PX, search, without_doubles


def _bright(tile_HW3: np.ndarray) -> np.ndarray:
    """Find the box around the bright pixels of a tile, unless it is as small as a speck or touches a border."""
    rows, columns = np.nonzero(tile_HW3[:, :, 0] > 128)
    if len(rows) < 4:
        return np.zeros((0, 5), np.float32)
    y0, x0, y1, x1 = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    if min(y0, x0) == 0 or y1 == len(tile_HW3) or x1 == tile_HW3.shape[1] or max(y1 - y0, x1 - x0) > OVERLAP_PX:
        return np.zeros((0, 5), np.float32)
    return np.array([[x0, y0, x1, y1, 0.9]], np.float32)


@pytest.mark.parametrize("size", [8, 60, 200, 600])
@pytest.mark.parametrize("place", [(10, 20), (1000, 1010), (900, 1500)])
def test_an_object_of_any_size_is_found_anywhere_in_a_large_photograph(size: int, place: tuple[int, int]) -> None:
    image = np.zeros((1700, 2300, 3), np.uint8)
    y, x = place
    image[y : y + size, x : x + size] = 255
    found = search(image, _bright)
    assert len(found) >= 1
    np.testing.assert_allclose(found[0, :4], [x, y, x + size, y + size], atol=8)


def test_no_tile_is_larger_than_the_limit_and_small_sizes_are_seen_whole() -> None:
    sizes = set[tuple[int, ...]]()

    def note(tile_HW3: np.ndarray) -> np.ndarray:
        sizes.add(tile_HW3.shape[:2])
        return np.zeros((0, 5), np.float32)

    assert search(np.zeros((1500, 2250, 3), np.uint8), note).shape == (0, 5)
    assert max(max(size) for size in sizes) == TILE_PX
    assert {(375, 563), (188, 282)} <= sizes
    sizes.clear()
    search(np.zeros((300, 400, 3), np.uint8), note)
    assert sizes == {(600, 800), (300, 400), (150, 200)}, "a small image at twice its size, too"


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 4000), (33, 1)])
def test_strange_sizes_are_searched(size_hw: tuple[int, int]) -> None:
    assert search(np.zeros((*size_hw, 3), np.uint8), _bright).shape == (0, 5)


def test_of_boxes_over_the_same_object_the_best_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10, 0.5], [1, 0, 11, 10, 0.9], [20, 20, 30, 30, 0.4]], np.float32)
    np.testing.assert_array_equal(without_doubles(boxes), boxes[[1, 2]])
