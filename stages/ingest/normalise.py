"""One photograph: source bytes in, an upright 8-bit JPEG or PNG out, or the reason why it cannot be used.

What a file is, is judged by its content, never by its name. Colour profiles are not applied (nor does any SAM training
code); they are kept in the file. Transparent pictures are laid on white. CMYK JPEGs are read by Adobe's (inverted)
convention, 16-bit channels keep their upper 8 bits. Metadata of re-encoded pictures is dropped.
"""

import io
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_DECODABLE_PIXELS = 178_956_970  # Pillow's own guard against decompression bombs; 1/2 GB as RGB
MAX_ASPECT_RATIO = 64  # beyond it the short side is less than one 16-px patch of a 1024-px model input
JPEG_QUALITY = 95
JPEG_MAX_SIDE = 65_500  # libjpeg's; the format's own is 65,535
PNG_COMPRESSION = 4  # a third to a half of level 6's time, 2 % more bytes on photographs

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
PHOTO_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".heic", ".heif", ".avif")
)
SNIFF_BYTES = 16
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"8BPS", "PSD"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
)
_ISO_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"avif": "AVIF", b"avis": "AVIF"}
_COLOUR_MODES = ("RGBX", "P", "CMYK", "YCbCr")
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # not a stuffed byte, a fill byte or a restart
_EXIF_ORIENTATION, _TIFF_SUBFILE_TYPE, _DNG_VERSION = 274, 254, 50706


class Unusable(ValueError):
    """A photograph that cannot be taken: `reason` is a short code for the table of rejects, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Photo:
    """An upright 8-bit grey or RGB picture, as it is stored."""

    data: bytes
    format: Literal["jpg", "png"]
    height: int
    width: int


def normalise(data: bytes, *, shortest_side_px: int | None, min_side_px: int, max_pixels: int) -> Photo:
    """The picture in `data`, upright, 8-bit, its shortest side at most `shortest_side_px`.

    Stored byte for byte when it is that already; otherwise as PNG when no pixel was lost so far or a side is too long
    for JPEG, else as JPEG. Raises Unusable, and nothing else: one odd file is never the end of the others' work.
    """
    try:
        return _normalise(data, shortest_side_px, min_side_px, max_pixels)
    except Unusable:
        raise
    except MemoryError as error:
        raise out_of_memory(len(data)) from error
    except Exception as error:
        raise Unusable("failed", _ADDRESS.sub("", f"{type(error).__name__}: {error}")) from error


def out_of_memory(nbytes: int) -> Unusable:
    """Why a photograph of that many bytes cannot be taken now."""
    what = f"memory ran out over a file of {nbytes} bytes; redo it with more memory or fewer threads"
    return Unusable("out_of_memory", what)


def _normalise(data: bytes, shortest_side_px: int | None, min_side_px: int, max_pixels: int) -> Photo:
    picture = _open(data, max_pixels)
    _check_size(picture, min_side_px)
    _check_complete(picture, data)
    source_mode, lossless = picture.mode, _is_lossless(picture, data)
    flat = _flatten(_load_upright(picture, data))
    scaled = _downscale(flat, shortest_side_px)
    untouched = scaled is picture and source_mode in ("L", "RGB")
    if untouched and picture.format in ("JPEG", "MPO"):
        return Photo(data=data, format="jpg", height=scaled.height, width=scaled.width)
    if untouched and picture.format == "PNG" and data[24] == 8:  # IHDR: bits per channel
        return Photo(data=data, format="png", height=scaled.height, width=scaled.width)
    profile = picture.info.get("icc_profile") if source_mode == scaled.mode else None
    as_png = (lossless and scaled is flat) or max(scaled.size) > JPEG_MAX_SIDE
    return _encode(scaled, as_png=as_png, profile=profile if isinstance(profile, bytes) else None)


def sniff(head: bytes) -> str | None:
    """The picture format that a file's first SNIFF_BYTES bytes announce; None when it is none we know."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _ISO_BRANDS.get(head[8:12])
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    return next((name for signature, name in _SIGNATURES if head.startswith(signature)), None)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """The picture with its header read and no pixel decoded."""
    if not data:
        raise Unusable("empty", "the file has no bytes")
    announced = sniff(data[:SNIFF_BYTES])
    if announced is None:
        raise Unusable("not_an_image", f"its first bytes are {data[:12]!r}, which no picture format begins with")
    if announced not in (*PHOTO_FORMATS, "GIF"):
        raise Unusable("unsupported_format", f"it is {announced}; convert it to JPEG, PNG, WebP or TIFF")
    try:
        picture = Image.open(io.BytesIO(data), formats=[announced])
        _check_one_frame(picture)
    except (Unusable, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Unusable("too_large", f"{error}; at most {max_pixels} pixels are taken") from error
    except Exception as error:  # decoders raise anything on hostile bytes
        raise Unusable(*_explain(error, data, announced)) from error
    if picture.width * picture.height > max_pixels:
        size = f"{picture.width} x {picture.height} px"
        raise Unusable("too_large", f"{size}; at most {max_pixels} pixels are taken")
    return picture


def _check_one_frame(picture: Image.Image) -> None:
    # An MPO is a camera's JPEG with previews or a gain map behind it: its first frame is the photograph.
    frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format == "TIFF":
        raise Unusable("several_pages", f"a TIFF of {frames} pages; save each as its own file")
    if frames > 1:
        raise Unusable("animated", f"an animated {picture.format} of {frames} frames")
    if picture.format == "GIF":
        raise Unusable("unsupported_format", "it is GIF; convert it to JPEG, PNG, WebP or TIFF")
    if picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        if tags.get(_TIFF_SUBFILE_TYPE, 0) & 1 or _DNG_VERSION in tags:
            raise Unusable("unsupported_format", "a camera's raw file; develop it to JPEG, PNG or TIFF")


def _check_size(picture: Image.Image, min_side_px: int) -> None:
    short, long = sorted(picture.size)
    if short < min_side_px:
        size = f"{picture.width} x {picture.height}"
        raise Unusable("too_small", f"{size} px; the shortest side must have at least {min_side_px}")
    if long > MAX_ASPECT_RATIO * short:
        raise Unusable("too_narrow", f"{picture.width} x {picture.height} px; sides at most {MAX_ASPECT_RATIO} : 1")


def _check_complete(picture: Image.Image, data: bytes) -> None:
    """Damage that Pillow decodes without complaint: a JPEG cut short or zero-filled, a PNG with a wrong checksum."""
    if picture.format in ("JPEG", "MPO") and not _reaches_end_of_image(data):
        raise Unusable("truncated", f"a JPEG of {len(data)} bytes without an end marker: cut short or overwritten")
    if picture.format == "PNG":
        try:
            Image.open(io.BytesIO(data), formats=["PNG"]).verify()
        except MemoryError:
            raise
        except Exception as error:
            raise Unusable(*_explain(error, data, "PNG")) from error


def _reaches_end_of_image(data: bytes) -> bool:
    """Whether the marker chain of a JPEG leads to an end-of-image marker (ITU T.81, annex B)."""
    position = 2
    while position + 4 <= len(data) or data[position : position + 2] == b"\xff\xd9":
        if data[position] != 0xFF:
            return False
        marker = data[position + 1]
        if marker == 0xD9:
            return True
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # scan: entropy-coded bytes up to the next real marker
            following = _JPEG_MARKER.search(data, position)
            if following is None:
                return False
            position = following.start()
    return False


def _load_upright(picture: Image.Image, data: bytes) -> Image.Image:
    """All pixels decoded, EXIF orientation applied; the same object when it was upright."""
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise Unusable(*_explain(error, data, str(picture.format))) from error
    try:
        orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
        return ImageOps.exif_transpose(picture) if orientation in range(2, 9) else picture
    except MemoryError:
        raise
    except Exception:  # unreadable EXIF says nothing about orientation: as every viewer does, show it as it is
        return picture


def _flatten(picture: Image.Image) -> Image.Image:
    """8-bit grey or RGB without transparency; the same object when it was that."""
    if picture.mode in _ALPHA_MODES or "transparency" in picture.info:
        opaque = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(opaque, picture.convert("RGBA")).convert("RGB")
    if picture.mode in ("L", "RGB"):
        return picture
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode == "1":
        return picture.convert("L")
    if picture.mode in _COLOUR_MODES:
        return picture.convert("RGB")
    raise Unusable("unsupported_format", f"pixels of kind {picture.mode!r}; save it with 8 or 16 bits, grey or RGB")


def _downscale(picture: Image.Image, shortest_side_px: int | None) -> Image.Image:
    """Shortest side at most `shortest_side_px`, antialiased; the same object when it was."""
    shortest = min(picture.size)
    if shortest_side_px is None or shortest <= shortest_side_px:
        return picture
    scale = shortest_side_px / shortest
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _encode(picture: Image.Image, *, as_png: bool, profile: bytes | None) -> Photo:
    buffer = io.BytesIO()
    if as_png:
        picture.save(buffer, "PNG", compress_level=PNG_COMPRESSION, icc_profile=profile)
        return Photo(data=buffer.getvalue(), format="png", height=picture.height, width=picture.width)
    options = {"quality": JPEG_QUALITY, "subsampling": 0, "icc_profile": profile, "comment": b""}  # else the source's
    picture.save(buffer, "JPEG", **options)
    return Photo(data=buffer.getvalue(), format="jpg", height=picture.height, width=picture.width)


def _is_lossless(picture: Image.Image, data: bytes) -> bool:
    if picture.format == "WEBP":
        return b"VP8L" in data[12:64] or (data[12:16] == b"VP8X" and b"VP8L" in data and b"VP8 " not in data)
    if picture.format == "TIFF":
        return picture.info.get("compression") not in ("jpeg", "tiff_jpeg", "webp")
    return picture.format == "PNG"


def _explain(error: Exception, data: bytes, announced: str) -> tuple[str, str]:
    """(reason, detail) of a decoder's error."""
    missing = _declared_bytes(data, announced) - len(data)
    if missing > 0:
        return "truncated", f"a {announced} of {len(data)} bytes that should have at least {missing} more"
    if isinstance(error, UnidentifiedImageError):  # its message holds a memory address
        return "corrupt", f"a {announced} whose header cannot be read"
    message = str(error) or type(error).__name__
    reason = "truncated" if "truncat" in message.lower() or isinstance(error, EOFError) else "corrupt"
    return reason, f"a {announced} that does not decode: {message}"


def _declared_bytes(data: bytes, announced: str) -> int:
    """How many bytes the file must have by what its first ones say; 0 where they say nothing."""
    if announced == "WEBP":
        return 8 + int.from_bytes(data[4:8], "little")
    if announced == "TIFF" and data[2:4] in (b"*\0", b"\0*"):
        return int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big") + 2  # where its directory lies
    return 0
