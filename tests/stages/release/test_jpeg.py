"""JPEG files without their metadata."""

import io

import numpy as np
import pytest
from PIL import Image

from stages.release import jpeg, profiles
from tests.stages.release import photos
from tests.stages.release.photos import SECRET, SRGB, with_metadata


def cleaned(data: bytes) -> bytes:
    found = list(jpeg.segments(data))
    return jpeg.without_metadata(found, jpeg.profile_of(found))


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("progressive", [False, True])
def test_metadata_of_every_kind_goes_and_every_pixel_stays(progressive: bool) -> None:
    plain = photos.jpeg(1, progressive=progressive)
    carrying = with_metadata(plain)
    assert carrying.count(SECRET) >= 7
    assert jpeg.metadata_in(carrying) == ["ffe1", "ffe1", "ffe2", "ffed", "ffe0", "fffe"]
    assert cleaned(carrying) == plain
    assert (decoded(cleaned(carrying)) == decoded(carrying)).all()
    opened = Image.open(io.BytesIO(cleaned(carrying)))
    assert not opened.getexif()
    assert "comment" not in opened.info


def test_a_jpeg_without_metadata_comes_out_byte_for_byte() -> None:
    for data in (photos.jpeg(1), photos.jpeg(2, icc_profile=profiles.rebuild(SRGB)), photos.jpeg(3, progressive=True)):
        assert jpeg.metadata_in(data) == []
        assert cleaned(data) == data


def test_bytes_behind_the_end_alone_are_metadata() -> None:
    assert jpeg.metadata_in(photos.jpeg(1) + SECRET) == ["bytes between or behind its segments"]


@pytest.mark.parametrize("profile", [SRGB, (profiles.rebuild(SRGB) or b"") + SECRET, b"no profile at all"])
def test_a_profile_that_was_not_built_again_is_metadata(profile: bytes) -> None:
    assert jpeg.metadata_in(photos.jpeg(1, icc_profile=profile)) == ["a colour profile that was not built again"]


def test_the_thumbnail_of_jfif_goes_and_its_density_stays() -> None:
    data = photos.jpeg(1)
    (first, *_) = jpeg.segments(data)
    with_thumbnail = jpeg.Segment(marker=first.marker, content=first.content[:12] + b"\1\1abc")
    carrying = data[:2] + with_thumbnail.to_bytes() + data[2 + len(first.to_bytes()) :]
    assert jpeg.metadata_in(carrying) == ["ffe0"]
    assert cleaned(carrying) == data


def test_restart_markers_belong_to_the_scan() -> None:
    buffer = io.BytesIO()
    photos.pixels(1).save(buffer, "JPEG", restart_marker_blocks=2)
    data = buffer.getvalue()
    assert b"\xff\xd1" in data
    assert cleaned(data) == data


def test_a_profile_in_several_pieces_is_put_together() -> None:
    large = bytes(range(256)) * 600
    data = photos.jpeg(1, icc_profile=large)
    found = list(jpeg.segments(data))
    assert jpeg.profile_of(found) == large
    assert jpeg.without_metadata(found, large) == data
    pieces = [each for each in found if each.marker == jpeg.APP2]
    with pytest.raises(ValueError, match=r"an ICC profile of 3 pieces with the pieces \[1, 2\]"):
        jpeg.profile_of(each for each in found if each is not pieces[-1])
    with pytest.raises(ValueError, match=r"an ICC profile of 3 pieces with the pieces \[1, 1, 2, 3\]"):
        jpeg.profile_of([*found, pieces[0]])


@pytest.mark.parametrize("progressive", [False, True])
def test_the_size_is_that_of_the_frame_header(progressive: bool) -> None:
    found = list(jpeg.segments(photos.jpeg(1, progressive=progressive)))
    assert jpeg.size_hw(found) == (photos.HEIGHT, photos.WIDTH)
    with pytest.raises(ValueError, match="without a frame header"):
        jpeg.size_hw(found[:2])


def test_a_jpeg_cut_anywhere_is_refused() -> None:
    data = photos.jpeg(1)
    for nbytes in range(len(data)):
        with pytest.raises(ValueError, match="JPEG"):
            cleaned(data[:nbytes])
