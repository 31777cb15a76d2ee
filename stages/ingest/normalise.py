"""Normalising of one photo: a file's bytes become an upright 8-bit JPEG or PNG, or a reason why they cannot be used.

The content alone decides the format of a file, never its name. Colour profiles are not applied (SAM's training code
applies none either); they are kept in the file. Transparent photos are laid on white. CMYK JPEGs are read by Adobe's
(inverted) convention. Grey pictures of 16 bits keep the upper 8 of the bits that they use: cameras and microscopes
store 10, 12 or 14 bits in 16. Colour channels of 16 bits keep their upper 8. Re-encoding drops metadata.
"""

import io
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.ingest.png import without_notes
from stages.ingest.privacy import Concealed, Concealer, Region

MAX_DECODABLE_PIXELS = 178_956_970
"""Maximum number of pixels: Pillow's own limit against decompression bombs, 1/2 GB as RGB."""
MAX_ASPECT_RATIO = 64
"""Maximum ratio of the longest to the shortest side. Beyond it the short side is less than one 16-px patch of a 1024-px
model input.
"""
JPEG_QUALITY = 95
JPEG_MAX_SIDE = 65_500
"""Maximum side in px that libjpeg writes; the format itself allows 65,535."""
PNG_COMPRESSION = 4
"""Compression level of zlib. It takes a third to a half of level 6's time and 2 % more bytes on photos."""

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
PHOTO_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".heic", ".heif", ".avif")
)
SENSOR_BITS = (8, 10, 12, 14, 16)
"""Numbers of bits that sensors have, and that are stored in 16."""
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
_HELD_BYTES = {"1": 2, "L": 2, "P": 5, "I;16": 10, "I;16B": 10, "I;16L": 10}
"""Bytes a pixel of a picture and its flat or turned copy, by Pillow's mode; 8 for all others, which have 4 a pixel.

Turning 16 bits into 8 takes several arrays.
"""
_DECODER_BYTES = {"WEBP": 8, "TIFF": 4}
"""Bytes a pixel that a decoder needs beside the picture: the whole picture once more, or a strip as large as it."""
_PROGRESSIVE_JPEG_BYTES = 6
"""Bytes a pixel of the coefficients that a progressive JPEG keeps until its last scan: 2 for each of three channels."""
_MAX_DIRECTORIES = 100
"""Number of directories of a TIFF up to which its pages are counted; Pillow's own count takes quadratic time."""
_STRIP_ROWS = 256
"""Rows of a transparent picture that are laid on white at a time, so that the picture is held twice, not four times."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # not a stuffed byte, a fill byte or a restart
_JPEG_END = b"\xff\xd9"
_EXIF_ORIENTATION, _TIFF_SUBFILE_TYPE, _TIFF_PHOTOMETRIC, _DNG_VERSION = 274, 254, 262, 50706
_TIFF_MAX_SAMPLE_VALUE = 281


class Unusable(ValueError):
    """Error of a photo that cannot be used."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        """Code of the reason, short, for the table of rejects."""
        self.detail = detail
        """Explanation of the reason as a sentence."""


@dataclass(frozen=True, kw_only=True)
class Photo:
    """Upright 8-bit grey or RGB image in the form in which it is stored."""

    data: bytes
    format: Literal["jpg", "png"]
    height: int
    width: int
    regions: tuple[Region, ...] = ()
    """Regions that were made unrecognisable."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Upright 8-bit pixels of a photo in the size in which it is stored, and how they are to be encoded."""

    image: Image.Image
    """Pixels of mode L or RGB."""
    as_it_came: Literal["", "jpg", "png"]
    """Format of the photo's own bytes if these have this form already; "" where it has to be encoded."""
    as_png: bool
    profile: bytes | None
    """Colour profile to keep; None for none."""


def normalise(
    data: bytes,
    *,
    shortest_side_px: int | None,
    min_side_px: int,
    max_pixels: int,
    concealer: Concealer | None = None,
    takes_unended_jpegs: bool = False,
    admit: Callable[[int], None] = lambda nbytes: None,
) -> Photo:
    """Turn a photo upright and 8-bit, with a shortest side of at most `shortest_side_px`.

    A photo that already has this form is kept byte for byte. Any other photo is encoded again. The format is PNG if no
    step before changed the pixel values or if a side is too long for JPEG; otherwise the format is JPEG. A PNG of which
    only the notes cannot be read is taken without them, and, with `takes_unended_jpegs`, a JPEG without its end marker
    is taken with one. With a concealer, what it finds is made unrecognisable first. `admit` is called before pixels are
    decoded, with about the bytes of memory that this takes, by the header; it may raise `Unusable`.

    Raises:
        Unusable: The photo cannot be used: whatever Pillow raises over its bytes. Any other error is a fault of this
            program, and no photo may be blamed for it.
    """
    prepared, mended = prepare(
        data,
        shortest_side_px=shortest_side_px,
        min_side_px=min_side_px,
        max_pixels=max_pixels,
        takes_unended_jpegs=takes_unended_jpegs,
        admit=admit,
    )
    return finish(prepared, mended, concealer)


def prepare(
    data: bytes,
    *,
    shortest_side_px: int | None,
    min_side_px: int,
    max_pixels: int,
    takes_unended_jpegs: bool,
    admit: Callable[[int], None],
) -> tuple[Prepared, bytes]:
    """Take the steps of `normalise` before the concealer; return their result and the photo's bytes, mended if need be.

    Raises:
        Unusable: The photo cannot be used.
    """
    with _pillow_blamed(len(data)):
        try:
            return _prepare(data, shortest_side_px, min_side_px, max_pixels, admit), data
        except Unusable as unusable:
            mended = data
            if unusable.reason == "corrupt":
                mended = without_notes(data)
            elif unusable.reason == "truncated" and takes_unended_jpegs and sniff(data[:SNIFF_BYTES]) == "JPEG":
                mended = data + _JPEG_END
            if mended == data:
                raise
        return _prepare(mended, shortest_side_px, min_side_px, max_pixels, admit), mended


def finish(prepared: Prepared, data: bytes, concealer: Concealer | None) -> Photo:
    """Take the steps of `normalise` from the concealer on; `data` are the photo's bytes.

    Raises:
        Unusable: The pixels cannot be encoded.
    """
    with _pillow_blamed(len(data)):
        image = prepared.image
        concealed = concealer(image) if concealer else Concealed(image=image)
        if prepared.as_it_came and concealed.image is image:
            return Photo(data=data, format=prepared.as_it_came, height=image.height, width=image.width)
        photo = _encode(concealed.image, as_png=prepared.as_png, profile=prepared.profile)
        return replace(photo, regions=concealed.regions)


@contextmanager
def _pillow_blamed(nbytes: int) -> Iterator[None]:
    """Turn what Pillow raises over a photo of `nbytes` bytes, and a lack of memory, into `Unusable`."""
    try:
        yield
    except Unusable:
        raise
    except MemoryError as error:
        raise out_of_memory(nbytes) from error
    except Exception as error:
        if not _is_raised_by_pillow(error):
            raise
        raise Unusable("failed", _ADDRESS.sub("", f"{type(error).__name__}: {error}")) from error


def out_of_memory(nbytes: int) -> Unusable:
    """Make the error for a photo of `nbytes` bytes that needs more memory than there is."""
    what = f"memory ran out over a file of {nbytes} bytes; redo it with more memory or fewer threads"
    return Unusable("out_of_memory", what)


def _prepare(
    data: bytes, shortest_side_px: int | None, min_side_px: int, max_pixels: int, admit: Callable[[int], None]
) -> Prepared:
    # The header
    image = _open(data, max_pixels)
    _check_size(image, min_side_px)
    admit(_decoding_bytes(image))
    _check_complete(image, data)
    source_mode, lossless, is_negative = image.mode, _is_lossless(image, data), _has_white_zeros(image)

    # The pixels
    flat = _flatten(_load_upright(image, data))
    flat = ImageOps.invert(flat) if is_negative else flat
    scaled = _downscale(flat, shortest_side_px)

    # What is to be stored
    as_it_came: Literal["", "jpg", "png"] = ""
    if scaled is image and source_mode in ("L", "RGB"):
        if image.format in ("JPEG", "MPO"):
            as_it_came = "jpg"
        elif image.format == "PNG" and data[24] == 8:  # IHDR: bits per channel
            as_it_came = "png"
    profile = image.info.get("icc_profile") if source_mode == scaled.mode else None
    return Prepared(
        image=scaled,
        as_it_came=as_it_came,
        as_png=(lossless and scaled is flat) or max(scaled.size) > JPEG_MAX_SIDE,
        profile=profile if isinstance(profile, bytes) else None,
    )


def _decoding_bytes(image: Image.Image) -> int:
    """Estimate the memory that decoding takes, from the header: the picture, a copy of it, and the decoder's own."""
    own = _DECODER_BYTES.get(str(image.format), 0)
    if image.format in ("JPEG", "MPO") and "progressive" in image.info:
        own = _PROGRESSIVE_JPEG_BYTES
    return image.width * image.height * (_HELD_BYTES.get(image.mode, 8) + own)


def sniff(head: bytes) -> str | None:
    """Recognise the image format by `head`, a file's first `SNIFF_BYTES` bytes; return None for an unknown format."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _ISO_BRANDS.get(head[8:12])
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    return next((name for signature, name in _SIGNATURES if head.startswith(signature)), None)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Open an image and read its header, without decoding a pixel."""
    if not data:
        raise Unusable("empty", "the file has no bytes")
    announced = sniff(data[:SNIFF_BYTES])
    if announced is None:
        raise Unusable("not_an_image", f"its first bytes are {data[:12]!r}, which no known image format begins with")
    if announced not in (*PHOTO_FORMATS, "GIF"):
        raise Unusable("unsupported_format", f"it is {announced}; convert it to JPEG, PNG, WebP or TIFF")
    try:
        image = Image.open(io.BytesIO(data), formats=[announced])
        _check_one_frame(image)
    except (Unusable, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Unusable("too_large", f"{error}; at most {max_pixels} pixels are allowed") from error
    except Exception as error:  # decoders raise anything on hostile bytes
        if not _is_raised_by_pillow(error):
            raise
        raise Unusable(*_explain(error, data, announced)) from error
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height} px"
        raise Unusable("too_large", f"{size}; at most {max_pixels} pixels are allowed")
    return image


def _check_one_frame(image: Image.Image) -> None:
    # An MPO is a camera's JPEG with previews or a gain map behind it: its first frame is the photo.
    frames = 1 if image.format in ("MPO", "TIFF") else getattr(image, "n_frames", 1)
    pages = _count_pages(image) if image.format == "TIFF" else 1
    if pages > 1:
        raise Unusable("several_pages", f"a TIFF of {pages} pages; save each as its own file")
    if frames > 1:
        raise Unusable("animated", f"an animated {image.format} of {frames} frames")
    if image.format == "GIF":
        raise Unusable("unsupported_format", "it is GIF; convert it to JPEG, PNG, WebP or TIFF")
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if tags.get(_TIFF_SUBFILE_TYPE, 0) & 1 or _DNG_VERSION in tags:
            raise Unusable("unsupported_format", "a camera's raw file; develop it to JPEG, PNG or TIFF")


def _count_pages(image: Image.Image) -> int:
    """Count the pages of a TIFF, without smaller copies of a page, as pyramids have them.

    Raises:
        Unusable: The TIFF has more directories than any pyramid.
    """
    count = 0
    for number in range(_MAX_DIRECTORIES + 1):
        try:
            image.seek(number)
        except EOFError:
            break
        count += not image.tag_v2.get(_TIFF_SUBFILE_TYPE, 0) & 1  # type: ignore[attr-defined]
    else:
        raise Unusable("several_pages", f"a TIFF of more than {_MAX_DIRECTORIES} pages; save each as its own file")
    image.seek(0)
    return count


def _check_size(image: Image.Image, min_side_px: int) -> None:
    short, long = sorted(image.size)
    if short < min_side_px:
        size = f"{image.width} x {image.height}"
        raise Unusable("too_small", f"{size} px; the shortest side must have at least {min_side_px}")
    if long > MAX_ASPECT_RATIO * short:
        raise Unusable("too_narrow", f"{image.width} x {image.height} px; sides at most {MAX_ASPECT_RATIO} : 1")


def _check_complete(image: Image.Image, data: bytes) -> None:
    """Refuse damage that Pillow does not notice: a JPEG cut short or zero-filled, a PNG with a wrong checksum."""
    if image.format in ("JPEG", "MPO") and not _reaches_end_of_image(data):
        raise Unusable("truncated", f"a JPEG of {len(data)} bytes without an end marker: cut short or overwritten")
    if image.format == "PNG":
        try:
            Image.open(io.BytesIO(data), formats=["PNG"]).verify()
        except MemoryError:
            raise
        except Exception as error:
            raise Unusable(*_explain(error, data, "PNG")) from error


def _reaches_end_of_image(data: bytes) -> bool:
    """Tell whether the marker chain of a JPEG (ITU T.81, annex B) leads to an end-of-image marker."""
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


def _load_upright(image: Image.Image, data: bytes) -> Image.Image:
    """Decode all pixels and apply the EXIF orientation; return the same object if it was upright."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise Unusable(*_explain(error, data, str(image.format))) from error
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
    except MemoryError:
        raise
    except Exception:  # unreadable EXIF tells no orientation: keep the image as it is, as every viewer does
        return image


def _flatten(image: Image.Image) -> Image.Image:
    """Convert to 8-bit grey or RGB without transparency; return the same object if it has that form."""
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return _on_white(image)
    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith("I;16"):
        levels_HW = np.asarray(image)
        return Image.fromarray((levels_HW >> (_used_bits(image, levels_HW) - 8)).astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if image.mode in _COLOUR_MODES:
        return image.convert("RGB")
    raise Unusable("unsupported_format", f"pixels of kind {image.mode!r}; save it with 8 or 16 bits, grey or RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Lay a transparent picture on white, strip by strip."""
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP_ROWS):
        strip = image.crop((0, top, image.width, min(image.height, top + _STRIP_ROWS))).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        flat.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return flat


def _used_bits(image: Image.Image, levels_HW: np.ndarray) -> int:
    """Return how many bits of 16 the levels use: by the file's own largest level, or by the largest that there is."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    largest = max(int(levels_HW.max(initial=0)), *np.atleast_1d(tags.get(_TIFF_MAX_SAMPLE_VALUE, 0)).tolist())
    return next((bits for bits in SENSOR_BITS if largest < 2**bits), 16)


def _has_white_zeros(image: Image.Image) -> bool:
    """Tell whether 0 is white in a TIFF of 16 bits; Pillow turns only those of fewer bits over."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return image.mode.startswith("I;16") and tags.get(_TIFF_PHOTOMETRIC) == 0


def _downscale(image: Image.Image, shortest_side_px: int | None) -> Image.Image:
    """Scale to a shortest side of at most `shortest_side_px`, antialiased; return the same object if it fits."""
    shortest = min(image.size)
    if shortest_side_px is None or shortest <= shortest_side_px:
        return image
    scale = shortest_side_px / shortest
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _encode(image: Image.Image, *, as_png: bool, profile: bytes | None) -> Photo:
    buffer = io.BytesIO()
    if as_png:
        image.save(buffer, "PNG", compress_level=PNG_COMPRESSION, icc_profile=profile)
        return Photo(data=buffer.getvalue(), format="png", height=image.height, width=image.width)
    options = {"quality": JPEG_QUALITY, "subsampling": 0, "icc_profile": profile, "comment": b""}  # else the source's
    image.save(buffer, "JPEG", **options)
    return Photo(data=buffer.getvalue(), format="jpg", height=image.height, width=image.width)


def _is_lossless(image: Image.Image, data: bytes) -> bool:
    if image.format == "WEBP":
        return b"VP8L" in data[12:64] or (data[12:16] == b"VP8X" and b"VP8L" in data and b"VP8 " not in data)
    if image.format == "TIFF":
        return image.info.get("compression") not in ("jpeg", "tiff_jpeg", "webp")
    return image.format == "PNG"


def _explain(error: Exception, data: bytes, announced: str) -> tuple[str, str]:
    """Turn a decoder's error into a reason and a detail."""
    missing = _declared_bytes(data, announced) - len(data)
    if missing > 0:
        return "truncated", f"a {announced} of {len(data)} bytes that should have at least {missing} more"
    if isinstance(error, UnidentifiedImageError):  # its message holds a memory address
        return "corrupt", f"a {announced} whose header cannot be read"
    message = str(error) or type(error).__name__
    reason = "truncated" if "truncat" in message.lower() or isinstance(error, EOFError) else "corrupt"
    return reason, f"a {announced} that does not decode: {message}"


def _is_raised_by_pillow(error: BaseException) -> bool:
    """Tell whether an error comes out of Pillow, whose decoders raise any class of error on hostile bytes."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(str(frame.f_globals.get("__name__", "")).partition(".")[0] == "PIL" for frame, _ in frames)


def _declared_bytes(data: bytes, announced: str) -> int:
    """Read from the first bytes the minimum number of bytes that the file must have; return 0 if they do not tell."""
    if announced == "WEBP":
        return 8 + int.from_bytes(data[4:8], "little")
    if announced == "TIFF" and data[2:4] in (b"*\0", b"\0*"):
        return int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big") + 2  # where its directory lies
    return 0
