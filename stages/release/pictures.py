"""Images as they leave: JPEG files that carry a picture, perhaps a known colour profile, and nothing else.

A stored JPEG keeps its pixels bit by bit: it is taken apart and built again from the segments that show the picture
(`stages.release.jpeg`), because encoding it once more would change the pixels that its masks were made on. One without
metadata therefore leaves as it is stored. A known colour profile is built again (`stages.release.profiles`). A stored
PNG is encoded as JPEG, as SA-1B's images are, and so is an image with an unknown colour profile, whose pixels are
converted to sRGB. Every file is parsed again before it is written.
"""

import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image, features

from stages.release import jpeg, profiles
from stages.release.profiles import UnreadableProfile

QUALITY = 95
"""JPEG quality, as at ingest; colours keep their full resolution."""

Change = Literal["copied", "metadata_removed", "encoded_from_png", "converted_to_srgb"]
"""What became of a stored image."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image as it leaves."""

    data: bytes
    """Bytes of the JPEG."""
    change: Change
    has_profile: bool
    """Whether a known colour profile is in the file."""
    lost_profile: bool
    """Whether a profile was left out because it cannot be read; the pixels stay as they are."""


def encoder() -> str:
    """Name the versions of the libraries that decide the bytes of an encoded JPEG."""
    jpeg_version = features.version_feature("libjpeg_turbo") or features.version("jpg")
    return f"pillow {features.version('pil')}, libjpeg {jpeg_version}, littlecms {features.version('littlecms2')}"


def make_picture(data: bytes, form: str, size_hw: tuple[int, int]) -> Picture:
    """Make the JPEG that leaves from the bytes of a stored image, and prove that it carries no metadata.

    Args:
        data: The stored bytes.
        form: Format of the stored image: jpg or png.
        size_hw: Height and width of the image, as its masks have it.

    Raises:
        ValueError: The bytes are no such image, or the size is another one.
    """
    picture = _from_jpeg(data) if form == "jpg" else _encoded(data, "encoded_from_png")
    carried = jpeg.metadata_in(picture.data)
    if carried:
        raise ValueError(f"the file that was made still carries {', '.join(carried)}")
    height, width = jpeg.size_hw(jpeg.segments(picture.data))
    if (height, width) != size_hw:
        raise ValueError(f"it is {height} x {width} px, its row says {size_hw[0]} x {size_hw[1]}")
    return picture


def _from_jpeg(data: bytes) -> Picture:
    found = list(jpeg.segments(data))
    try:
        profile = jpeg.profile_of(found)
        kept = None if profile is None else profiles.rebuild(profile)
        if profile is not None and kept is None:
            return _encoded(data, "converted_to_srgb")
        lost = False
    except ValueError:  # pieces are missing, or no library reads it
        kept, lost = None, True
    small = jpeg.without_metadata(found, kept)
    change: Change = "copied" if small == data else "metadata_removed"
    return Picture(data=small, change=change, has_profile=kept is not None, lost_profile=lost)


def _encoded(data: bytes, change: Change) -> Picture:
    """Decode an image and encode it as JPEG, in sRGB unless its profile is a known one."""
    with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as stored:
        stored.load()
        profile = stored.info.get("icc_profile")
        image = Image.frombytes(stored.mode, stored.size, stored.tobytes())  # pixels alone
    kept, lost = None, False
    try:
        kept = profiles.rebuild(profile) if profile else None
        if profile and kept is None:
            image = profiles.to_srgb(image, profile)
    except UnreadableProfile:
        kept, lost = None, True
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    data = jpeg.without_metadata(list(jpeg.segments(buffer.getvalue())), kept)
    return Picture(data=data, change=change, has_profile=kept is not None, lost_profile=lost)
