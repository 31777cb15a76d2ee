"""Decoding, resizing, and the mapping between photograph and model coordinates."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from engine.images import Frame, decode, resize


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_lossless_formats_decode_to_the_same_rgb_pixels(suffix: str) -> None:
    photo = data.astronaut()[:90, :70]
    params = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    buffer = cv2.imencode(suffix, cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), params)[1].tobytes()
    assert np.array_equal(decode(buffer), photo)


def test_grey_alpha_and_sixteen_bit_images_become_eight_bit_rgb() -> None:
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    deep = grey.astype(np.uint16) * 257
    with_alpha = np.dstack([grey, grey, grey, np.full_like(grey, 9)])
    for stored in (grey, deep, with_alpha):
        pixels = decode(cv2.imencode(".png", stored)[1].tobytes())
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, np.dstack([grey] * 3))


def test_exif_orientation_is_ignored_because_stored_photographs_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(data.astronaut()[:40, :90]).save(path, exif=exif)
    assert decode(path.read_bytes()).shape == (40, 90, 3)


@pytest.mark.parametrize("junk", [b"", b"not an image at all", b"\xff\xd8\xff\xe0 cut off"])
def test_bytes_that_are_no_image_are_refused_with_one_sentence(junk: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        decode(junk)


@pytest.mark.parametrize(
    ("source_hw", "size_hw"),
    [
        ((512, 512), (427, 640)),
        ((512, 512), (100, 37)),
        ((300, 451), (683, 1024)),
        ((133, 71), (1024, 547)),
        ((400, 600), (7, 11)),
        ((512, 1), (256, 1)),
        ((3, 500), (6, 1024)),
        ((512, 400), (512, 256)),
    ],
)
def test_resize_equals_pils_antialiased_bilinear_within_one_grey_level(
    source_hw: tuple[int, int], size_hw: tuple[int, int]
) -> None:
    source = data.astronaut()[: source_hw[0], : source_hw[1]]
    if source.shape[:2] != source_hw:
        source = np.random.default_rng(0).integers(0, 256, (*source_hw, 3), dtype=np.uint8)
    ours = resize(source, size_hw)
    theirs = np.asarray(Image.fromarray(source).resize(size_hw[::-1], Image.Resampling.BILINEAR))
    assert ours.dtype == np.uint8
    assert ours.shape == (*size_hw, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_resizing_to_the_same_size_returns_the_same_pixels() -> None:
    photo = data.astronaut()
    assert np.array_equal(resize(photo, (512, 512)), photo)


def test_a_float_image_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        resize(np.zeros((4, 4, 3)), (2, 2))


@pytest.mark.parametrize(("crop_hw", "side", "expected"), [
    ((1500, 2250), 1024, (683, 1024)), ((534, 800), 640, (427, 640)), ((800, 534), 640, (640, 427)),
    ((1, 5000), 1024, (1, 1024)), ((7, 7), 64, (64, 64)),
])  # fmt: skip
def test_the_longest_side_becomes_the_model_side_and_no_side_vanishes(
    crop_hw: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    assert Frame.whole(crop_hw, side).scaled_hw == expected


def test_points_and_boxes_survive_the_way_to_the_model_and_back() -> None:
    frame = Frame(crop_xyxy=(30, 40, 230, 140), image_hw=(400, 500), model_side=640)
    points = np.array([[30.0, 40.0], [230.0, 140.0], [101.25, 77.5]])
    assert np.allclose(frame.points_to_model(points), [[0, 0], [640, 320], [228, 120]])
    assert np.allclose(frame.points_to_image(frame.points_to_model(points)), points)
    boxes = np.array([[35.0, 45.0, 90.5, 120.0]])
    assert np.allclose(frame.boxes_to_image(frame.boxes_to_model(boxes)), boxes)
    assert frame.points_to_model(np.empty((0, 2))).shape == (0, 2)


def test_a_crop_is_the_windows_pixels_at_original_resolution() -> None:
    photo = data.astronaut()
    frame = Frame(crop_xyxy=(100, 20, 150, 90), image_hw=(512, 512), model_side=64)
    assert np.array_equal(frame.crop(photo), photo[20:90, 100:150])
    with pytest.raises(ValueError, match="expected"):
        frame.crop(photo[:100])


@pytest.mark.parametrize("crop", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 6, 5), (3, 3, 2, 5)])
def test_a_window_outside_the_image_or_empty_is_refused(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected a window"):
        Frame(crop_xyxy=crop, image_hw=(5, 5), model_side=64)
