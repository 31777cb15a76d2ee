"""ICC colour profiles: which are known and may leave, and the conversion of other images to sRGB.

A profile can name a camera, a screen or a person: in its texts, in its header, and in bytes that no tag names. Known
ones are those of common colour spaces that hold standard tags alone. What leaves is never the found bytes but a profile
that is built again from what decides the colours: primaries, white point, curves.
"""

import io
from collections.abc import Mapping

from PIL import Image, ImageCms

_KNOWN_NAMES = ("sRGB", "Display P3", "Adobe RGB (1998)", "ProPhoto RGB", "Rec. 709", "c2", "Dot Gain", "Gray Gamma")
"""Beginnings of the names of common colour spaces, and the names of the profiles that are built again."""
_COPYRIGHT = "Not stated"
"""Text of the tag `cprt`, which every profile must have."""
_STANDARD_TAGS = frozenset(
    (
        *(b"desc", b"cprt", b"wtpt", b"bkpt", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC"),
        *(b"chad", b"chrm", b"dmnd", b"dmdd", b"vued", b"view", b"lumi", b"meas", b"tech", b"dscm", b"cicp"),
    )
)
_COLOUR_TAGS = {
    b"RGB ": (b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"),
    b"GRAY": (b"kTRC",),
}
"""Tags that a profile must have, by the colours of its images."""
_WHITE_TAGS = (b"wtpt", b"chad")
"""Tags that are kept where they are there."""
_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
_CONNECTIONS = {b"RGB ": (b"XYZ ",), b"GRAY": (b"XYZ ", b"Lab ")}
"""Spaces that a profile may convert to, by the colours of its images."""
_D50 = bytes.fromhex("0000f6d6 00010000 0000d32d")
"""White that every profile's header states."""
_PARAMETERS = (1, 3, 4, 5, 7)
"""Number of parameters of a parametric curve, by its kind."""
_MAX_POINTS = 4096
"""Most points of a sampled curve."""
_HEADER_NBYTES = 128
_TAG_NBYTES = 12


class UnreadableProfile(ValueError):
    """Error of a profile that no colour management can read, or that does not fit its image."""


def rebuild(profile: bytes) -> bytes | None:
    """Build the profile of a common colour space again, from the numbers alone that decide the colours.

    Return None for the profile of another colour space, and for one with other tags or of another form. A profile that
    was built here comes out byte for byte.

    Raises:
        UnreadableProfile: The profile cannot be read.
    """
    name = _open(profile)[1]
    known = next((each for each in _KNOWN_NAMES if name.startswith(each)), None)
    found = _read_tags(profile)
    version, kind, colours, space = profile[8], profile[12:16], profile[16:20], profile[20:24]
    if known is None or found is None or not found.keys() <= _STANDARD_TAGS:
        return None
    if version not in (2, 4) or kind not in _CLASSES or space not in _CONNECTIONS.get(colours, ()):
        return None

    # Colours, each tag in its one form
    wanted = (*_COLOUR_TAGS[colours], *(tag for tag in _WHITE_TAGS if tag in found))
    if not found.keys() >= set(wanted):
        return None
    tags = {tag: _numbers(tag, found[tag]) for tag in wanted}
    numbers = {tag: content for tag, content in tags.items() if content is not None}
    if numbers.keys() != tags.keys():
        return None

    # Texts that are the same for everyone
    described = _mluc(known) if version == 4 else _text_description(known)
    rights = _mluc(_COPYRIGHT) if version == 4 else b"text\0\0\0\0" + _COPYRIGHT.encode() + b"\0"
    header = bytes((version, profile[9] & 0xF0, 0, 0)) + kind + colours + space
    return _built(header, {b"desc": described, b"cprt": rights, **numbers})


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


def _read_tags(profile: bytes) -> dict[bytes, bytes] | None:
    """Read the tags of a profile; None where one comes twice or lies outside of the profile."""
    count = int.from_bytes(profile[_HEADER_NBYTES : _HEADER_NBYTES + 4], "big")
    table_end = _HEADER_NBYTES + 4 + count * _TAG_NBYTES
    if table_end > len(profile):
        return None
    found = dict[bytes, bytes]()
    for entry in range(_HEADER_NBYTES + 4, table_end, _TAG_NBYTES):
        tag = profile[entry : entry + 4]
        start, nbytes = (int.from_bytes(profile[at : at + 4], "big") for at in (entry + 4, entry + 8))
        if tag in found or start < table_end or start + nbytes > len(profile):
            return None
        found[tag] = profile[start : start + nbytes]
    return found


def _numbers(tag: bytes, content: bytes) -> bytes | None:
    """Return the numbers of a colour tag without anything else; None for a form that the tag does not have."""
    kind, count = content[:4], int.from_bytes(content[8:12], "big")
    function = int.from_bytes(content[8:10], "big")
    if tag == b"chad":
        expected, nbytes = b"sf32", 44
    elif not tag.endswith(b"TRC"):
        expected, nbytes = b"XYZ ", 20
    elif kind == b"curv" and count <= _MAX_POINTS:
        expected, nbytes = b"curv", 12 + 2 * count
    elif function < len(_PARAMETERS):
        expected, nbytes = b"para", 12 + 4 * _PARAMETERS[function]
        content = content[:10] + b"\0\0" + content[12:]
    else:
        return None
    is_whole = kind == expected and len(content) >= nbytes
    return kind + b"\0\0\0\0" + content[8:nbytes] if is_whole else None


def _mluc(text: str) -> bytes:
    """Encode a text as profiles of version 4 have it, in one language."""
    encoded = text.encode("utf-16-be")
    fields = (1, 12, int.from_bytes(b"enUS", "big"), len(encoded), 28)
    return b"mluc\0\0\0\0" + b"".join(field.to_bytes(4, "big") for field in fields) + encoded


def _text_description(text: str) -> bytes:
    """Encode a text as profiles of version 2 have their name, without Unicode and Macintosh forms."""
    encoded = text.encode("ascii") + b"\0"
    return b"desc\0\0\0\0" + len(encoded).to_bytes(4, "big") + encoded + bytes(4 + 4 + 2 + 1 + 67)


def _built(header: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """Put a profile together; `header` is its version, class, colours and connection space."""
    start = _HEADER_NBYTES + 4 + len(tags) * _TAG_NBYTES
    table, body, places = b"", b"", dict[bytes, int]()
    for tag, content in tags.items():
        if content not in places:  # equal curves are stored once
            places[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table += tag + places[content].to_bytes(4, "big") + len(content).to_bytes(4, "big")
    whole = (start + len(body)).to_bytes(4, "big") + bytes(4) + header + bytes(12) + b"acsp"
    return whole.ljust(68, b"\0") + _D50 + bytes(48) + len(tags).to_bytes(4, "big") + table + body
