"""JPEG files reduced to what shows the picture, without touching a pixel: EXIF, XMP, comments and previews stay behind.

Only segments that a decoder needs are copied (ITU T.81, annex B): tables, frame headers, scans, JFIF's density without
its thumbnail, Adobe's colour transform, and an ICC profile. Everything else is left out, and so is everything behind
the end of the image, where cameras keep previews and gain maps.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stages.release import profiles

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
APP0, APP2, APP14 = 0xE0, 0xE2, 0xEE
_ICC = b"ICC_PROFILE\0"
_JFIF_NBYTES = 14
"""Length of a JFIF segment's content without a thumbnail."""
_ADOBE_NBYTES = 12
_MAX_ICC_PIECE = 65_519
"""Most bytes of a profile that one segment holds."""
_DECODING = frozenset((*range(0xC0, 0xC8), *range(0xC9, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF))
"""Markers of frames, tables, scans and restart intervals."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of frame headers, which state the size."""
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""Marker behind the entropy-coded bytes of a scan: not a stuffed byte, a fill byte or a restart."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment of a JPEG."""

    marker: int
    """Second byte of the marker."""
    content: bytes
    """Bytes behind the segment's length."""
    scan: bytes = b""
    """Entropy-coded bytes that follow, for the header of a scan."""

    def to_bytes(self) -> bytes:
        """Return the segment as it is in a file."""
        length = (2 + len(self.content)).to_bytes(2, "big")
        return bytes((0xFF, self.marker)) + length + self.content + self.scan


def segments(data: bytes) -> Iterator[Segment]:
    """Read the segments of a JPEG up to its end-of-image marker.

    Raises:
        ValueError: The bytes are no JPEG, or its chain of markers breaks off.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError(f"no JPEG: it begins with {data[:2].hex()}, expected ffd8")
    position = 2
    while True:
        marker, position = _marker(data, position)
        if marker == EOI:
            return
        nbytes = int.from_bytes(data[position : position + 2], "big")
        content = data[position + 2 : position + nbytes]
        if nbytes < 2 or len(content) != nbytes - 2:
            raise ValueError(f"a JPEG that ends in the segment ff{marker:02x} at byte {position}")
        position += nbytes
        scan = b""
        if marker == SOS:
            following = _NEXT_MARKER.search(data, position)
            if following is None:
                raise ValueError("a JPEG that ends in a scan")
            scan = data[position : following.start()]
            position = following.start()
        yield Segment(marker=marker, content=content, scan=scan)


def size_hw(found: Iterable[Segment]) -> tuple[int, int]:
    """Return the height and width that the frame header of a JPEG states.

    Raises:
        ValueError: There is no frame header.
    """
    for each in found:
        if each.marker in _FRAMES and len(each.content) >= 6:
            return int.from_bytes(each.content[1:3], "big"), int.from_bytes(each.content[3:5], "big")
    raise ValueError("a JPEG without a frame header")


def profile_of(found: Iterable[Segment]) -> bytes | None:
    """Return the ICC profile, put together from its pieces; None where there is none.

    Raises:
        ValueError: A piece is missing or comes twice.
    """
    pieces = [each.content for each in found if _is_icc(each) and len(each.content) >= 14]
    if not pieces:
        return None
    total, numbers = pieces[0][13], sorted(piece[12] for piece in pieces)
    if numbers != list(range(1, total + 1)):
        raise ValueError(f"an ICC profile of {total} pieces with the pieces {numbers}")
    return b"".join(piece[14:] for piece in sorted(pieces, key=lambda piece: piece[12]))


def without_metadata(found: Iterable[Segment], profile: bytes | None) -> bytes:
    """Build the JPEG that shows the same picture and carries no metadata but a colour profile.

    A JPEG that is so already comes out byte for byte. Of the segments' own profile nothing is taken over.
    """
    kept = [small for each in found if (small := _reduced(each)) is not None]
    first = 1 if kept and kept[0].marker == APP0 else 0
    kept[first:first] = list(_profile_segments(profile or b""))
    return b"\xff\xd8" + b"".join(each.to_bytes() for each in kept) + b"\xff\xd9"


def metadata_in(data: bytes) -> list[str]:
    """List what a JPEG carries beside its picture and a colour profile that was built again; empty for a clean file.

    Raises:
        ValueError: The bytes are no JPEG.
    """
    found = list(segments(data))
    carried = [f"ff{each.marker:02x}" for each in found if not _is_icc(each) and _reduced(each) != each]
    profile = profile_of(found)
    if profile is not None and not _is_rebuilt(profile):
        carried.append("a colour profile that was not built again")
    clean = without_metadata(found, profile)
    return carried or ([] if clean == data else ["bytes between or behind its segments"])


def _is_rebuilt(profile: bytes) -> bool:
    try:
        return profiles.rebuild(profile) == profile
    except profiles.UnreadableProfile:
        return False


def _reduced(segment: Segment) -> Segment | None:
    """Return what is kept of a segment; None for nothing."""
    if segment.marker in _DECODING:
        return segment
    if segment.marker == APP0 and segment.content[:5] == b"JFIF\0" and len(segment.content) >= _JFIF_NBYTES:
        return Segment(marker=APP0, content=segment.content[:12] + b"\0\0")
    if segment.marker == APP14 and segment.content[:5] == b"Adobe" and len(segment.content) >= _ADOBE_NBYTES:
        return Segment(marker=APP14, content=segment.content[:_ADOBE_NBYTES])
    return None


def _is_icc(segment: Segment) -> bool:
    return segment.marker == APP2 and segment.content.startswith(_ICC)


def _profile_segments(profile: bytes) -> Iterator[Segment]:
    total = -(-len(profile) // _MAX_ICC_PIECE)
    for number in range(1, total + 1):
        piece = profile[(number - 1) * _MAX_ICC_PIECE : number * _MAX_ICC_PIECE]
        yield Segment(marker=APP2, content=_ICC + bytes((number, total)) + piece)


def _marker(data: bytes, position: int) -> tuple[int, int]:
    """Read the marker at a position, past fill bytes; return it and the position behind it."""
    if data[position : position + 1] != b"\xff":
        raise ValueError(f"a JPEG without a marker at byte {position}")
    while data[position : position + 1] == b"\xff":
        position += 1
    if position >= len(data):
        raise ValueError("a JPEG without an end marker")
    return data[position], position + 1
