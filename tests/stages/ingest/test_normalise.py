import io
import struct
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from engine.images import decode
from stages.ingest.normalise import MAX_DECODABLE_PIXELS, Photo, Unusable, normalise, sniff

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged metadata


def taken(data: bytes, *, shortest_side_px: int | None = 1500, max_pixels: int = MAX_DECODABLE_PIXELS) -> Photo:
    return normalise(data, shortest_side_px=shortest_side_px, min_side_px=32, max_pixels=max_pixels)


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(Unusable) as caught:
        taken(data, **options)
    assert caught.value.detail
    assert "0x" not in caught.value.detail  # no addresses: the same file, the same words
    return caught.value.reason


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def turned(kind: str, pictures: SimpleNamespace, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return pictures.encode(pictures.draw(1), kind, exif=exif)


def with_text(image: Image.Image, key: str, text: str) -> bytes:
    """A PNG with a text chunk, whose key Pillow takes for a field of its own."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, text, zip=True)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds a thousand zero bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_an_upright_jpeg_is_stored_byte_for_byte(pictures: SimpleNamespace, options: dict[str, Any]) -> None:
    data = pictures.encode(pictures.draw(1), "JPEG", **options)
    assert taken(data) == Photo(data=data, format="jpg", height=60, width=80)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_upright_png_is_stored_byte_for_byte(pictures: SimpleNamespace, mode: str) -> None:
    data = pictures.encode(pictures.draw(1).convert(mode), "PNG")
    assert taken(data) == Photo(data=data, format="png", height=60, width=80)


def test_a_jpeg_with_something_behind_its_end_is_taken(pictures: SimpleNamespace) -> None:
    assert taken(pictures.encode(pictures.draw(1), "JPEG") + b"appended by a camera").format == "jpg"


def test_a_camera_jpeg_with_a_preview_behind_it_is_its_first_picture(pictures: SimpleNamespace) -> None:
    data = pictures.encode(pictures.draw(1), "MPO", save_all=True, append_images=[pictures.draw(2)])
    first = rgb(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(taken(data).data), first)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied(pictures: SimpleNamespace, kind: str, orientation: int) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    photo = taken(turned(kind, pictures, orientation))
    expected = rgb(pictures.draw(1).transpose(turns[orientation]))
    assert (photo.height, photo.width) == expected.shape[:2]
    assert np.abs(decode(photo.data).astype(int) - expected).mean() < (0 if kind in ("PNG", "TIFF") else 3) + 1e-9


def test_orientation_one_and_nonsense_orientations_leave_the_bytes(pictures: SimpleNamespace) -> None:
    for orientation in (1, 9, 0):
        data = turned("JPEG", pictures, orientation)
        assert taken(data).data == data


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
def test_a_lossless_tiff_becomes_a_png_of_the_same_pixels(pictures: SimpleNamespace, compression: str | None) -> None:
    photo = taken(pictures.encode(pictures.draw(1), "TIFF", compression=compression))
    assert photo.format == "png"
    np.testing.assert_array_equal(decode(photo.data), rgb(pictures.draw(1)))


def test_a_lossless_webp_becomes_a_png_and_a_lossy_one_a_fine_jpeg(pictures: SimpleNamespace) -> None:
    lossless = taken(pictures.encode(pictures.draw(1), "WEBP", lossless=True))
    assert lossless.format == "png"
    np.testing.assert_array_equal(decode(lossless.data), rgb(pictures.draw(1)))
    data = pictures.encode(pictures.draw(1), "WEBP", quality=80)
    lossy = taken(data)
    assert lossy.format == "jpg"
    assert np.abs(decode(lossy.data).astype(int) - rgb(Image.open(io.BytesIO(data)))).mean() < 1.5


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA"])
def test_other_kinds_of_pixels_become_grey_or_rgb(pictures: SimpleNamespace, mode: str) -> None:
    image = pictures.draw(1).convert(mode)
    kind = "TIFF" if mode == "PA" else "PNG"
    photo = taken(pictures.encode(image.convert("LA") if mode == "PA" else image, kind))
    np.testing.assert_array_equal(decode(photo.data), rgb(image.convert("L") if mode in ("LA", "PA") else image))


def test_transparency_is_laid_on_white(pictures: SimpleNamespace) -> None:
    image = pictures.draw(1).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert (decode(taken(pictures.encode(image, "PNG")).data) == 255).all()
    palette = pictures.draw(1).quantize(8)
    index = palette.getpixel((0, 0))
    pixels = decode(taken(pictures.encode(palette, "PNG", transparency=index)).data)
    assert (pixels[np.asarray(palette) == index] == 255).all()
    np.testing.assert_array_equal(pixels[np.asarray(palette) != index], rgb(palette)[np.asarray(palette) != index])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(pictures: SimpleNamespace, kind: str) -> None:
    grey = np.linspace(0, 65535, 60 * 80).reshape(60, 80).astype(np.uint16)
    pixels = decode(taken(pictures.encode(Image.fromarray(grey), kind)).data)
    np.testing.assert_array_equal(pixels[..., 0], grey >> 8)
    assert pixels.max() == 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_sixteen_are_scaled_by_those_that_are_used(
    pictures: SimpleNamespace, kind: str, bits: int
) -> None:
    grey = np.linspace(0, 2**bits - 1, 60 * 80).reshape(60, 80).astype(np.uint16)
    pixels = decode(taken(pictures.encode(Image.fromarray(grey), kind)).data)
    np.testing.assert_array_equal(pixels[..., 0], grey >> (bits - 8))
    assert pixels.max() == 255


def test_a_dark_picture_whose_file_names_its_range_stays_dark(pictures: SimpleNamespace) -> None:
    grey = np.linspace(0, 2**12 - 1, 60 * 80).reshape(60, 80).astype(np.uint16)
    for largest, expected in ((2**16 - 1, 15), (2**14 - 1, 63)):
        data = pictures.encode(Image.fromarray(grey), "TIFF", tiffinfo={281: largest})
        assert decode(taken(data).data).max() == expected


def test_a_cmyk_jpeg_has_the_colours_it_was_made_of(pictures: SimpleNamespace) -> None:
    data = pictures.encode(pictures.draw(1).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(taken(data).data).astype(int) - rgb(pictures.draw(1))).mean() < 4


def test_large_photographs_are_scaled_to_the_shortest_side(pictures: SimpleNamespace) -> None:
    data = pictures.encode(pictures.draw(1, height=200, width=300), "PNG")
    photo = taken(data, shortest_side_px=100)
    assert (photo.height, photo.width, photo.format) == (100, 150, "jpg")
    assert taken(data, shortest_side_px=None).data == data
    assert taken(data, shortest_side_px=200).data == data


def test_scaling_down_is_antialiased(pictures: SimpleNamespace) -> None:
    checker = np.indices((256, 256)).sum(0) % 2 * 255
    image = Image.fromarray(checker.astype(np.uint8))
    pixels = decode(taken(pictures.encode(image, "PNG"), shortest_side_px=64).data)
    assert np.abs(pixels.astype(int) - 128).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_truncated_not_half_decoded(pictures: SimpleNamespace, kind: str, share: float) -> None:
    data = pictures.encode(pictures.draw(1, height=200, width=300), kind)
    assert reason(data[: int(len(data) * share)]) == "truncated"


def test_a_jpeg_overwritten_with_zeros_is_truncated(pictures: SimpleNamespace) -> None:
    for options in ({}, {"progressive": True}):
        data = pictures.encode(pictures.draw(1, height=200, width=300), "JPEG", **options)
        half = len(data) // 2
        assert reason(data[:half] + bytes(len(data) - half)) == "truncated"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_only_its_end_marker_is_taken_whole_if_asked_for(
    pictures: SimpleNamespace, progressive: bool
) -> None:
    data = pictures.encode(pictures.draw(1, height=200, width=300), "JPEG", progressive=progressive)
    assert reason(data[:-2]) == "truncated"
    assert normalise_unended(data[:-2]).data == data
    assert normalise_unended(data).data == data


def test_a_jpeg_without_a_picture_and_other_formats_stay_truncated(pictures: SimpleNamespace) -> None:
    for kind, end in (("JPEG", 100), ("PNG", -20), ("TIFF", -20)):
        data = pictures.encode(pictures.draw(1, height=200, width=300), kind)
        with pytest.raises(Unusable) as refused:
            normalise_unended(data[:end])
        assert refused.value.reason == "truncated"


def normalise_unended(data: bytes) -> Photo:
    return normalise(data, shortest_side_px=None, min_side_px=32, max_pixels=10**6, takes_unended_jpegs=True)


def test_a_png_with_a_wrong_checksum_is_corrupt(pictures: SimpleNamespace) -> None:
    data = bytearray(pictures.encode(pictures.draw(1, height=200, width=300), "PNG"))
    data[len(data) // 2] ^= 0x55
    assert reason(bytes(data)) == "corrupt"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"this is a letter, not a photograph", "not_an_image"),
        (b"\xff\xd8\xff", "corrupt"),
        (b"\x89PNG\r\n\x1a\n", "corrupt"),
        (png_of_size(30_000, 30_000), "too_large"),
        (png_of_size(1, 500), "too_small"),
        (png_of_size(40, 4000), "too_narrow"),
    ],
)
def test_what_cannot_be_used_has_a_reason(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_the_limit_of_pixels_is_judged_before_decoding() -> None:
    assert reason(png_of_size(12_000, 12_000), max_pixels=10**8) == "too_large"
    assert reason(png_of_size(12_000, 2_000)) == "truncated"  # within the limit: decoded, and found empty


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_are_refused(pictures: SimpleNamespace, kind: str) -> None:
    frames = [pictures.draw(seed) for seed in range(3)]
    assert reason(pictures.encode(frames[0], kind, save_all=True, append_images=frames[1:])) == "animated"


def test_a_tiff_of_several_pages_is_refused(pictures: SimpleNamespace) -> None:
    pages = [pictures.draw(seed) for seed in range(2)]
    assert reason(pictures.encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])) == "several_pages"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "AVIF"])
def test_other_formats_are_named_as_unsupported(pictures: SimpleNamespace, kind: str) -> None:
    data = pictures.encode(pictures.draw(1), kind)
    with pytest.raises(Unusable, match=f"unsupported_format: it is {kind}"):
        taken(data)


def test_a_camera_raw_is_not_taken_for_its_thumbnail(pictures: SimpleNamespace) -> None:
    assert reason(pictures.encode(pictures.draw(1), "TIFF", tiffinfo={254: 1})) == "unsupported_format"
    assert reason(pictures.encode(pictures.draw(1), "TIFF", tiffinfo={50706: b"\1\4\0\0"})) == "unsupported_format"


def test_pixels_of_32_bits_are_unsupported(pictures: SimpleNamespace) -> None:
    assert reason(pictures.encode(Image.new("F", (64, 64)), "TIFF")) == "unsupported_format"


@pytest.mark.parametrize(("tag_type", "value"), [(2, "profile"), (3, (1, 2, 3)), (4, 7)])
def test_a_colour_profile_that_is_not_bytes_is_dropped(pictures: SimpleNamespace, tag_type: int, value: object) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[34675] = tag_type
    tags[34675] = value
    photo = taken(pictures.encode(pictures.draw(1), "TIFF", tiffinfo=tags))
    assert "icc_profile" not in Image.open(io.BytesIO(photo.data)).info
    np.testing.assert_array_equal(decode(photo.data), rgb(pictures.draw(1)))


@pytest.mark.parametrize("key", ["comment", "icc_profile"])
def test_text_in_a_photograph_never_hinders_its_scaling(pictures: SimpleNamespace, key: str) -> None:
    photo = taken(with_text(pictures.draw(1), key, "x" * 70_000), shortest_side_px=40)
    assert (photo.format, photo.height) == ("jpg", 40)
    assert "comment" not in Image.open(io.BytesIO(photo.data)).info


def test_a_scaled_photograph_too_long_for_jpeg_is_a_png(pictures: SimpleNamespace) -> None:
    data = pictures.encode(Image.new("L", (66_000, 1032), 77), "PNG")
    photo = taken(data, shortest_side_px=1030)
    assert (photo.format, photo.height, photo.width) == ("png", 1030, 65_872)
    assert Image.open(io.BytesIO(photo.data)).size == (65_872, 1030)


def test_whatever_goes_wrong_with_one_photograph_is_its_reason(pictures: SimpleNamespace) -> None:
    data = with_text(pictures.draw(1), "transparency", "no colour")
    assert reason(data) == "failed"
    with pytest.raises(Unusable, match="TypeError: argument 2 must be sequence of length 3"):
        taken(data)


def test_a_mistake_of_ours_is_no_reason_against_a_photograph(
    monkeypatch: pytest.MonkeyPatch, pictures: SimpleNamespace
) -> None:
    def broken(*_: object) -> None:
        raise TypeError("ours")

    for name in ("_check_one_frame", "_check_complete", "_flatten", "_downscale", "_encode"):
        with monkeypatch.context() as patch:
            patch.setattr(f"stages.ingest.normalise.{name}", broken)
            with pytest.raises(TypeError, match="ours"):
                taken(pictures.encode(pictures.draw(1), "WEBP"))


def test_memory_that_runs_out_is_a_reason_of_its_own(
    monkeypatch: pytest.MonkeyPatch, pictures: SimpleNamespace
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    data = pictures.encode(pictures.draw(1), "JPEG")
    for method in ("load", "getexif"):
        with monkeypatch.context() as patch:
            patch.setattr(f"PIL.JpegImagePlugin.JpegImageFile.{method}", exhausted)
            assert reason(data) == "out_of_memory"


def test_random_damage_never_crashes(pictures: SimpleNamespace) -> None:
    random = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF"):
        data = pictures.encode(pictures.draw(1), kind)
        for _ in range(60):
            damaged = np.frombuffer(data, np.uint8).copy()
            places = random.integers(0, min(len(damaged), 400), 4)
            damaged[places] = random.integers(0, 256, 4)
            try:
                photo = taken(damaged.tobytes())
            except Unusable:
                continue
            assert decode(photo.data).shape == (photo.height, photo.width, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_a_format_is_known_by_its_first_bytes(pictures: SimpleNamespace, kind: str) -> None:
    assert sniff(pictures.encode(pictures.draw(1), kind)[:16]) == kind


def test_a_png_with_notes_that_cannot_be_read_is_taken_without_them() -> None:
    pixels_HW3 = np.random.default_rng(5).integers(0, 255, (40, 50, 3), dtype=np.uint8)

    def png(**text: str) -> bytearray:
        notes = PngImagePlugin.PngInfo()
        for key, value in text.items():
            notes.add_text(key, value, zip=len(value) > 1000)
        sink = io.BytesIO()
        Image.fromarray(pixels_HW3).save(sink, "PNG", pnginfo=notes)
        return bytearray(sink.getvalue())

    wrong_sum = png(comment="a")
    wrong_sum[wrong_sum.index(b"comment\0a") + len("comment\0a")] ^= 255
    for data in (png(parameters="x" * 3_000_000), wrong_sum):
        photo = normalise(bytes(data), shortest_side_px=None, min_side_px=8, max_pixels=10**6)
        assert (photo.format, photo.height, photo.width) == ("png", 40, 50)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(photo.data))), pixels_HW3)

    # A wrong checksum of the pixels themselves is still a fault; a note may not turn a photo in silence
    broken = png()
    broken[broken.index(b"IDAT") + 6] ^= 255
    turned = png(**{"XML:com.adobe.xmp": "x" * 3_000_000})
    for data in (broken, turned):
        with pytest.raises(Unusable) as refused:
            normalise(bytes(data), shortest_side_px=None, min_side_px=8, max_pixels=10**6)
        assert refused.value.reason == "corrupt"


def test_a_tiff_of_16_bits_in_which_0_is_white_is_not_stored_as_its_negative() -> None:
    levels_HW = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    for photometric, expected_HW in ((0, 255 - (levels_HW >> 8)), (1, levels_HW >> 8)):
        sink = io.BytesIO()
        Image.fromarray(levels_HW).save(sink, "TIFF", tiffinfo={262: photometric})
        photo = normalise(sink.getvalue(), shortest_side_px=None, min_side_px=8, max_pixels=10**6)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(photo.data))), expected_HW)


@pytest.mark.parametrize(("subfile_type", "is_taken"), [(1, True), (0, False)])
def test_a_tiff_with_a_smaller_copy_of_its_page_is_taken_and_one_of_two_pages_is_not(
    subfile_type: int, is_taken: bool
) -> None:
    pixels_HW3 = np.random.default_rng(6).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    sink = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(sink, new=True) as pages:
        Image.fromarray(pixels_HW3).save(pages, "TIFF")
        pages.newFrame()
        Image.fromarray(pixels_HW3[::2, ::2]).save(pages, "TIFF", tiffinfo={254: subfile_type})
        pages.newFrame()
        data = sink.getvalue()
    if not is_taken:
        with pytest.raises(Unusable, match="a TIFF of 2 pages"):
            normalise(data, shortest_side_px=None, min_side_px=8, max_pixels=10**6)
        return
    photo = normalise(data, shortest_side_px=None, min_side_px=8, max_pixels=10**6)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(photo.data))), pixels_HW3)
