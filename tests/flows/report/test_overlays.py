"""Masks drawn over photographs."""

import io

import numpy as np
import pytest
from PIL import Image

from flows.report.overlays import LONGEST_SIDE_PX, PALETTE_RGB, SHORTEST_SIDE_PX, draw_overlay, flatten, label_masks
from storage import rle
from storage.records import MaskRecord, Provenance
from tests.paths import PHOTOS

COLOURS = len(PALETTE_RGB)


def mask_of(mask_HW: np.ndarray, mask_id: int = 1) -> MaskRecord:
    runs = rle.encode(mask_HW)
    return MaskRecord(
        mask_id=mask_id,
        image_id=1,
        rle=runs,
        box_xyxy=rle.box_xyxy(runs),
        area_px=rle.area(runs),
        predicted_iou=0.9,
        stability_score=0.9,
        point_xy=(0.0, 0.0),
        crop_xyxy=(0, 0, mask_HW.shape[1], mask_HW.shape[0]),
        provenance=Provenance(),
    )


def box_mask(size_hw: tuple[int, int], x0: int, y0: int, x1: int, y1: int, mask_id: int = 1) -> MaskRecord:
    mask_HW = np.zeros(size_hw, np.bool_)
    mask_HW[y0:y1, x0:x1] = True
    return mask_of(mask_HW, mask_id)


def colour_at(labels_HW: np.ndarray, x: int, y: int) -> int:
    """Palette index of the pixel's mask, whether fill or outline; -1 where there is none."""
    label = int(labels_HW[y, x])
    return (label - 1) % COLOURS if label else -1


def test_a_small_mask_lies_above_the_large_one_around_it_in_whatever_order_they_come() -> None:
    large, small = box_mask((100, 120), 10, 10, 110, 90, 1), box_mask((100, 120), 40, 40, 60, 60, 2)
    for masks in ([large, small], [small, large]):
        labels_HW = label_masks(masks, (100, 120))
        assert colour_at(labels_HW, 50, 50) != colour_at(labels_HW, 20, 20) >= 0
        assert colour_at(labels_HW, 50, 50) >= 0
        assert labels_HW[5, 5] == 0


def test_touching_masks_differ_in_colour() -> None:
    size_hw = (120, 120)
    tiles = [box_mask(size_hw, x, y, x + 20, y + 20, x * 200 + y) for x in range(0, 120, 20) for y in range(0, 120, 20)]
    labels_HW = label_masks(tiles, size_hw)
    centres = np.array([[colour_at(labels_HW, x, y) for x in range(10, 120, 20)] for y in range(10, 120, 20)])
    assert (centres >= 0).all()
    assert (centres[:, 1:] != centres[:, :-1]).all()
    assert (centres[1:] != centres[:-1]).all()


def test_a_mask_is_filled_inside_and_outlined_at_its_border_but_not_along_the_picture() -> None:
    labels_HW = label_masks([box_mask((100, 100), 0, 0, 60, 100)], (100, 100))
    assert labels_HW[50, 30] <= COLOURS < labels_HW[50, 59]
    assert labels_HW[50, 0] <= COLOURS
    assert labels_HW[0, 30] <= COLOURS


def test_a_mask_of_one_pixel_of_a_large_photograph_stays_visible() -> None:
    mask = box_mask((2000, 3000), 1500, 1000, 1501, 1001)
    assert (label_masks([mask], (683, 1024)) > 0).any()


def test_an_empty_mask_draws_nothing() -> None:
    assert not label_masks([mask_of(np.zeros((40, 50), np.bool_))], (40, 50)).any()


@pytest.mark.parametrize(
    ("stored_wh", "drawn_wh"),
    [
        ((3000, 1500), (LONGEST_SIDE_PX, LONGEST_SIDE_PX // 2)),
        ((800, 600), (800, 600)),
        ((320, 240), (640, SHORTEST_SIDE_PX)),
        ((2000, 20), (LONGEST_SIDE_PX, 10)),
        ((300, 32), (LONGEST_SIDE_PX, 109)),
    ],
)
def test_photographs_are_drawn_at_a_size_for_the_screen(stored_wh: tuple[int, int], drawn_wh: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", stored_wh, (90, 120, 60)).save(buffer, "JPEG")
    overlay = draw_overlay(buffer.getvalue(), [])
    assert (overlay.width, overlay.height) == drawn_wh
    for layer in (overlay.image_jpeg, overlay.masks_png):
        assert Image.open(io.BytesIO(layer)).size == drawn_wh


def test_bare_pixels_keep_the_photograph_and_masked_ones_are_tinted() -> None:
    photo = (PHOTOS / "nuts" / "nuts_0.jpg").read_bytes()
    overlay = draw_overlay(photo, [box_mask((600, 800), 100, 100, 300, 300)])
    plain = np.asarray(Image.open(io.BytesIO(overlay.image_jpeg)).convert("RGB"), np.int32)
    both = np.asarray(flatten(overlay), np.int32)
    assert np.array_equal(plain[:, 400:], both[:, 400:])
    tinted = np.asarray(PALETTE_RGB[label_masks([box_mask((600, 800), 100, 100, 300, 300)], (600, 800))[200, 200] - 1])
    assert np.abs(both[200, 200] - (0.58 * plain[200, 200] + 0.42 * tinted)).max() <= 2


def test_grey_and_palette_photographs_can_be_drawn() -> None:
    for mode in ("L", "P", "RGBA"):
        buffer = io.BytesIO()
        Image.new(mode, (60, 50)).save(buffer, "PNG")
        assert Image.open(io.BytesIO(draw_overlay(buffer.getvalue(), []).image_jpeg)).mode == "RGB"
