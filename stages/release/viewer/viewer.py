"""`viewer.html`: some images of a release with their masks, in one page that needs no server and no network.

The images are taken at even places from the finished tars, brought to at most `LONGEST_SIDE_PX` and put into the page;
so are the run lengths of their masks, which the page draws. The page depends on the release's tars and tables alone.
"""

import base64
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from stages.release.lists import image_rows

VIEWER = "viewer.html"
NUM_IMAGES = 24
"""Maximum number of images on the page."""
LONGEST_SIDE_PX = 1024
"""Maximum length of a shown image's longest side, in pixels."""
_QUALITY = 80
_COLUMNS = ("file_name", "tar", "license", "source")


def make_viewer(root: Path, manifest: Mapping[str, Any]) -> str:
    """Make the page of a release whose tars and tables are written."""
    shown = list(_shown_images(root, manifest["images"]))
    about = f"{len(shown)} of {manifest['images']:,} images, spread evenly over the release"
    if len(shown) == manifest["images"]:
        about = "Every image"
    texts = {
        "title": manifest["settings"]["title"],
        "counts": f"{manifest['images']:,} images, {manifest['masks']:,} masks",
        "release": str(manifest["release_id"]),
        "about": about,
    }
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    for name, value in texts.items():
        page = page.replace(f"<!-- {name} -->", escape(value))
    data = json.dumps(shown, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return page.replace("<!-- images -->", data.replace("<", "\\u003c"))


def _shown_images(root: Path, images: int) -> Iterator[dict[str, Any]]:
    for row in _sampled_rows(root, images):
        name = row["file_name"].removesuffix(".jpg")
        with tarfile.open(root / row["tar"]) as tar:
            jpeg, document = (_member(tar, f"{name}.{suffix}") for suffix in ("jpg", "json"))
        content = json.loads(document)
        shown, (width, height) = _display_copy(jpeg)
        yield {
            "name": row["file_name"],
            "license": row["license"],
            "source": row["source"],
            "size": [content["image"]["width"], content["image"]["height"]],
            "shown": [width, height],
            "jpeg": base64.b64encode(shown).decode("ascii"),
            "masks": [
                {
                    "id": each["id"],
                    "counts": each["segmentation"]["counts"],
                    "area": each["area"],
                    "iou": each["predicted_iou"],
                    "stability": each["stability_score"],
                }
                for each in content["annotations"]
            ],
        }


def _sampled_rows(root: Path, images: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of images at even places, the first and the last included."""
    number = min(images, NUM_IMAGES)
    places = {round(place * (images - 1) / max(1, number - 1)) for place in range(number)}
    for place, row in enumerate(image_rows(root, _COLUMNS)):
        if place in places:
            yield row


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def _display_copy(data: bytes) -> tuple[bytes, tuple[int, int]]:
    """Encode an image again, at most LONGEST_SIDE_PX long; return its bytes, and its width and height.

    Grey stays grey, so that a profile of grey fits.
    """
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as stored:
        copy = stored.convert("L" if stored.mode == "L" else "RGB")
        profile = stored.info.get("icc_profile") if copy.mode == stored.mode else None
    copy.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX), Image.Resampling.BICUBIC, reducing_gap=None)
    buffer = io.BytesIO()
    copy.save(buffer, "JPEG", quality=_QUALITY, icc_profile=profile)
    return buffer.getvalue(), copy.size
