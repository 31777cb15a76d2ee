import numpy as np
import pytest

from engine.interactive import edits
from storage import rle


def mask_of(*boxes: tuple[int, int, int, int], side: int = 40) -> rle.Rle:
    mask_HW = np.zeros((side, side), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask_HW[y0:y1, x0:x1] ^= True
    return rle.encode(mask_HW)


def test_subtracting_leaves_the_pixels_of_the_first_mask_alone() -> None:
    assert edits.subtract(mask_of((0, 0, 10, 10)), mask_of((5, 0, 20, 10))) == mask_of((0, 0, 5, 10))
    with pytest.raises(ValueError, match="expected one size"):
        edits.subtract(mask_of((0, 0, 1, 1)), mask_of((0, 0, 1, 1), side=41))


def test_splitting_gives_the_regions_largest_first_and_loses_nothing() -> None:
    mask = mask_of((0, 0, 3, 3), (10, 10, 20, 20), (30, 30, 31, 31))
    parts = edits.split(mask)
    assert [rle.area(part) for part in parts] == [100, 9, 1]
    assert rle.merge(parts) == mask
    with pytest.raises(ValueError, match="0 regions"):
        edits.split(mask_of())
    dots = np.zeros((40, 40), dtype=bool)
    dots[::2, ::2] = True
    with pytest.raises(ValueError, match="400 regions, expected 1 to 256"):
        edits.split(rle.encode(dots))


def test_holes_are_filled_up_to_their_size_and_never_at_the_border() -> None:
    with_holes = mask_of((0, 0, 20, 20), (5, 5, 7, 7), (10, 10, 15, 15), (0, 10, 1, 11))
    filled = edits.fill_holes(with_holes, max_px=4)
    assert filled == mask_of((0, 0, 20, 20), (10, 10, 15, 15), (0, 10, 1, 11))
    assert edits.fill_holes(filled, max_px=25) == mask_of((0, 0, 20, 20), (0, 10, 1, 11))


def test_islands_are_removed_but_never_the_largest_region() -> None:
    assert edits.remove_islands(mask_of((0, 0, 10, 10), (20, 20, 22, 22)), max_px=4) == mask_of((0, 0, 10, 10))
    assert edits.remove_islands(mask_of((0, 0, 2, 2), (20, 20, 21, 21)), max_px=9) == mask_of((0, 0, 2, 2))


def test_the_wand_selects_the_flat_region_under_the_point() -> None:
    image_HW3 = np.full((40, 60, 3), 200, dtype=np.uint8)
    image_HW3[10:30, 10:40] = (20, 40, 60)
    image_HW3 += np.random.default_rng(0).integers(0, 5, image_HW3.shape, dtype=np.uint8)
    region = edits.wand(image_HW3, 20.5, 20.5, tolerance=8)
    assert rle.box_xyxy(region) == (10, 10, 40, 30)
    assert rle.area(region) == 20 * 30
    assert rle.area(edits.wand(image_HW3, 59.9, 39.9, tolerance=8)) == 40 * 60 - 20 * 30
    with pytest.raises(ValueError, match="inside the 60x40 image"):
        edits.wand(image_HW3, 61, 0, tolerance=8)
    with pytest.raises(ValueError, match="expected 0 to 128"):
        edits.wand(image_HW3, 1, 1, tolerance=129)


def test_a_polygon_holds_the_pixels_whose_middle_it_holds() -> None:
    square = [(10.0, 10.0), (20.0, 10.0), (20.0, 25.0), (10.0, 25.0)]
    hole = [(12.0, 12.0), (15.0, 12.0), (15.0, 15.0), (12.0, 15.0)]
    assert edits.polygon([square], (40, 40)) == mask_of((10, 10, 20, 25))
    assert edits.polygon([square, hole], (40, 40)) == mask_of((10, 10, 20, 25), (12, 12, 15, 15))
    assert edits.polygon([[(0, 0), (40, 0), (40, 40), (0, 40)]], (40, 40)) == mask_of((0, 0, 40, 40))
    rows_HW, columns_HW = np.mgrid[:40, :40] + 0.5
    triangle = edits.polygon([[(0, 0), (40, 0), (0, 40)]], (40, 40))
    assert rle.iou(triangle, rle.encode(rows_HW + columns_HW < 40)) > 0.97
    with pytest.raises(ValueError, match="outside the 40x30 image"):
        edits.polygon([[(0, 0), (41, 0), (0, 10)]], (30, 40))
    with pytest.raises(ValueError, match="at least 3"):
        edits.polygon([[(0, 0), (4, 0)]], (30, 40))
