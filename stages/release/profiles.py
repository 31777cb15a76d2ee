"""ICC colour profiles: which are known and may leave, and the conversion of other images to sRGB.

A profile can name a camera or a screen. Known ones are those of common colour spaces that hold standard tags alone.
"""

import io

from PIL import Image, ImageCms

_KNOWN_NAMES = ("sRGB", "Display P3", "Adobe RGB (1998)", "ProPhoto RGB", "Rec. 709", "c2", "Dot Gain", "Gray Gamma")
"""Beginnings of the names of common colour spaces."""
_STANDARD_TAGS = frozenset(
    (
        *(b"desc", b"cprt", b"wtpt", b"bkpt", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC"),
        *(b"chad", b"chrm", b"dmnd", b"dmdd", b"vued", b"view", b"lumi", b"meas", b"tech", b"dscm", b"cicp"),
    )
)
_HEADER_NBYTES = 128
_TAG_NBYTES = 12


class UnreadableProfile(ValueError):
    """Error of a profile that no colour management can read, or that does not fit its image."""


def is_known(profile: bytes) -> bool:
    """Tell whether a profile is that of a common colour space and holds standard tags alone.

    Raises:
        UnreadableProfile: The profile cannot be read.
    """
    name = _open(profile)[1]
    count = int.from_bytes(profile[_HEADER_NBYTES : _HEADER_NBYTES + 4], "big")
    table = profile[_HEADER_NBYTES + 4 : _HEADER_NBYTES + 4 + count * _TAG_NBYTES]
    tags = {table[start : start + 4] for start in range(0, len(table), _TAG_NBYTES)}
    return name.startswith(_KNOWN_NAMES) and tags <= _STANDARD_TAGS


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image from its profile's colours to sRGB; grey stays grey.

    Raises:
        UnreadableProfile: The profile cannot be read, or is not one for such an image.
    """
    try:
        converted = ImageCms.profileToProfile(
            image, _open(profile)[0], ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, ValueError) as error:
        raise UnreadableProfile(f"colour profile: {error}") from error
    assert converted is not None, "not in place"
    return converted.convert(image.mode)


def _open(profile: bytes) -> tuple[ImageCms.ImageCmsProfile, str]:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return opened, ImageCms.getProfileDescription(opened).strip()
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise UnreadableProfile(f"colour profile: {error}") from error
