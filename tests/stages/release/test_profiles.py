"""Colour profiles that are built again."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from stages.release import profiles
from tests.stages.release.photos import SECRET, SRGB, other_profile

P3 = ((0x83DF, 0x3DBF, -0x45), (0x4ABF, 0xB137, 0x0AB9), (0x2838, 0x110B, 0xC8B9))
ADOBE = ((0x9C18, 0x4FA5, 0x04FC), (0x348D, 0xA02C, 0x0F95), (0x2631, 0x102F, 0xBE9C))
"""XYZ of red, green and blue, in 65,536ths."""


def found_profile(
    name: str, version: int, curve: bytes, primaries: tuple[tuple[int, ...], ...] = (), space: bytes = b"RGB "
) -> bytes:
    """Make a profile as a camera may store it: with a maker, a model, a serial number, an owner."""
    text = name.encode() + b" of " + SECRET + b"\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": described, b"cprt": b"text\0\0\0\0" + SECRET + b"\0", b"dmnd": described}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    for channel, xyz in zip(b"rgb", primaries, strict=False):
        tags[bytes((channel,)) + b"XYZ"] = b"XYZ \0\0\0\0" + struct.pack(">3i", *xyz) + SECRET
        tags[bytes((channel,)) + b"TRC"] = curve + SECRET
    if not primaries:
        tags[b"kTRC"] = curve + SECRET
    start, table, body = 132 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    header = struct.pack(
        ">I4s4x4s4s4s12s4s4s", start + len(body), b"ADA ", b"mntr", space, b"XYZ ", SECRET[:12], b"acsp", b"ADA "
    )
    header = header[:8] + bytes((version, 0x10, 0, 0)) + header[12:]
    header = header.ljust(48, b"\0") + SECRET[:20] + bytes.fromhex("0000f6d6000100000000d32d") + SECRET[:24].ljust(48)
    return header + struct.pack(">I", len(tags)) + table + body


GAMMA = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563)
SAMPLED = b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *(np.linspace(0, 1, 1024) ** 1.8 * 65535).astype(int).tolist())
PARAMETRIC = b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, 0x26666, 0xF2A7, 0x0D59, 0x13D0, 0x0A5B)
FOUND = {
    "srgb": SRGB,
    "p3": found_profile("Display P3", 4, PARAMETRIC, P3),
    "adobe": found_profile("Adobe RGB (1998)", 2, GAMMA, ADOBE),
    "sampled": found_profile("ProPhoto RGB", 2, SAMPLED, ADOBE),
    "grey": found_profile("Gray Gamma 2.2", 2, GAMMA, space=b"GRAY"),
}


def rebuilt(profile: bytes) -> bytes:
    made = profiles.rebuild(profile)
    assert made is not None
    return made


def opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


@pytest.mark.parametrize("name", FOUND)
def test_a_profile_that_is_built_again_has_the_same_colours(name: str) -> None:
    shape = (64, 64) if name == "grey" else (64, 64, 3)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    srgb = ImageCms.createProfile("sRGB")
    for intent in ImageCms.Intent:
        there = [
            ImageCms.profileToProfile(image, opened(each), srgb, renderingIntent=intent, outputMode="RGB")
            for each in (FOUND[name], rebuilt(FOUND[name]))
        ]
        assert np.array_equal(np.asarray(there[0]), np.asarray(there[1])), intent
    if name not in ("srgb", "grey"):
        assert not np.array_equal(np.asarray(there[0]), np.asarray(image))


@pytest.mark.parametrize("name", FOUND)
def test_nothing_but_colours_is_in_a_profile_that_is_built_again(name: str) -> None:
    made = rebuilt(FOUND[name] + b"serial=1234 owner=Ada")
    assert made == rebuilt(FOUND[name]) == rebuilt(made)
    assert int.from_bytes(made[:4], "big") == len(made)
    assert all(SECRET[at : at + 4] not in made for at in range(len(SECRET) - 3))
    assert b"serial" not in made
    assert b"ADA" not in made
    assert (made[4:8], made[24:36], made[40:68], made[80:128]) == (bytes(4), bytes(12), bytes(28), bytes(48))
    assert ImageCms.getProfileCopyright(opened(made)).strip() == "Not stated"
    assert ImageCms.getProfileDescription(opened(FOUND[name])).startswith(
        ImageCms.getProfileDescription(opened(made)).strip()
    )


def test_a_profile_whose_tags_lie_outside_of_it_is_an_unknown_one() -> None:
    for start, nbytes in ((len(SRGB) - 4, 8), (0, 54), (2**32 - 1, 1)):
        entry = b"chrm" + struct.pack(">II", start, nbytes)
        place = SRGB.index(b"chrm", 132)
        assert profiles.rebuild(SRGB[:place] + entry + SRGB[place + 12 :]) is None


def test_other_names_and_other_curves_are_unknown() -> None:
    assert profiles.rebuild(other_profile()) is None
    assert profiles.rebuild(found_profile("sRGB", 4, PARAMETRIC.replace(b"\0\3", b"\0\5", 1), P3)) is None
    assert profiles.rebuild(found_profile("sRGB", 4, GAMMA, P3[:2])) is None
