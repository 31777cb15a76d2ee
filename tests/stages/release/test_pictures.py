"""Images as they leave a dataset."""

import io

import numpy as np
import pytest
from PIL import Image

from stages.release import jpeg, profiles
from stages.release.pictures import make_picture
from tests.stages.release import photos
from tests.stages.release.photos import HEIGHT, SECRET, SRGB, WIDTH, other_profile, with_metadata

SIZE = (HEIGHT, WIDTH)


def profile_in(data: bytes) -> bytes | None:
    return jpeg.profile_of(jpeg.segments(data))


def test_a_jpeg_leaves_with_its_pixels_bit_by_bit() -> None:
    copied = make_picture(photos.jpeg(1), "jpg", SIZE)
    assert (copied.data, copied.change) == (photos.jpeg(1), "copied")
    stripped = make_picture(with_metadata(photos.jpeg(1)), "jpg", SIZE)
    assert (stripped.data, stripped.change) == (photos.jpeg(1), "metadata_removed")
    assert SECRET not in stripped.data


def test_a_png_leaves_as_a_jpeg_that_looks_the_same() -> None:
    picture = make_picture(photos.png(1), "png", SIZE)
    assert picture.change == "encoded_from_png"
    opened = Image.open(io.BytesIO(picture.data))
    assert opened.format == "JPEG"
    difference = np.asarray(opened).astype(int) - np.asarray(photos.pixels(1)).astype(int)
    assert np.abs(difference).mean() < 2


def test_grey_images_stay_grey() -> None:
    buffer = io.BytesIO()
    photos.pixels(1).convert("L").save(buffer, "PNG")
    assert Image.open(io.BytesIO(make_picture(buffer.getvalue(), "png", SIZE).data)).mode == "L"


def test_a_known_profile_is_built_again_and_stays() -> None:
    rebuilt = profiles.rebuild(SRGB)
    data = photos.jpeg(1, icc_profile=rebuilt)
    picture = make_picture(data, "jpg", SIZE)
    assert (picture.data, picture.change, picture.has_profile) == (data, "copied", True)
    picture = make_picture(photos.jpeg(1, icc_profile=SRGB), "jpg", SIZE)
    assert (picture.data, picture.change, picture.has_profile) == (data, "metadata_removed", True)
    buffer = io.BytesIO()
    photos.pixels(1).save(buffer, "PNG", icc_profile=SRGB)
    assert profile_in(make_picture(buffer.getvalue(), "png", SIZE).data) == rebuilt


def test_an_unknown_profile_goes_and_its_colours_become_srgb() -> None:
    picture = make_picture(photos.jpeg(1, icc_profile=other_profile()), "jpg", SIZE)
    assert (picture.change, picture.has_profile, profile_in(picture.data)) == ("converted_to_srgb", False, None)
    before, after = (np.asarray(Image.open(io.BytesIO(data))) for data in (photos.jpeg(1), picture.data))
    assert np.abs(before.astype(int) - after.astype(int)).mean() < 2  # the strange profile has sRGB's colours


def test_a_known_profile_with_a_private_tag_is_an_unknown_one() -> None:
    start = SRGB.index(b"desc", 128)
    private = SRGB[:start] + SRGB[start:].replace(b"chad", b"mmod", 1)
    assert private != SRGB
    assert make_picture(photos.jpeg(1, icc_profile=private), "jpg", SIZE).change == "converted_to_srgb"


def test_an_unreadable_profile_goes_and_is_told() -> None:
    picture = make_picture(photos.jpeg(1, icc_profile=b"no profile at all"), "jpg", SIZE)
    assert (picture.data, picture.lost_profile) == (photos.jpeg(1), True)


def test_an_image_of_another_size_than_its_row_says_is_refused() -> None:
    with pytest.raises(ValueError, match="48 x 64 px, its row says 48 x 65"):
        make_picture(photos.jpeg(1), "jpg", (HEIGHT, WIDTH + 1))
