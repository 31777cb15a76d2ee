"""Ground truth from one COCO or LVIS v1 instances JSON: polygons, run lengths as text or as numbers, crowds.

LVIS v1 names no files: a file has the name at the end of its `coco_url`. Which categories an image was not searched for
(`neg_category_ids`, `not_exhaustive_category_ids`) is not read: it decides on false positives, which no metric counts.

file -> images by id -> annotations -> LabelledImage, as an evaluation takes it
"""

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from engine.labelled import Frequency, LabelledImage
from storage import rle
from storage.rle import Rle

logger = logging.getLogger(__name__)

NAMED = 5
"""Most annotations that a warning names."""
MIN_RING = 6
"""Smallest number of coordinates of a polygon with an area: those of three points."""
MAX_COORDINATE = 1_000_000
"""Largest coordinate of a polygon, in pixels; pycocotools allocates memory for each pixel along an edge."""


@dataclass(frozen=True, kw_only=True)
class CocoSource:
    """One COCO instances JSON and the folder of its images.

    Crowds, which are no single object, are left out, as are annotations that cover no pixel, with a warning. Images
    without any other annotation have no ground truth.
    """

    file: Path
    folder: Path
    """Folder that `file_name` of an image is relative to; for LVIS, that of the images or of COCO's `train2017` and
    `val2017`."""

    def images(self) -> Sequence[LabelledImage]:
        """List the images that have an annotation, in the order of the file.

        Raises:
            ValueError: The file cannot be read, has another form, names an image that does not exist, or has a
                segmentation that does not fit its image. The message names the file and what is wrong.
        """
        content = read_instances(self.file)
        by_image: dict[Any, list[tuple[Rle, Frequency | None]]] = defaultdict(list)
        frequency_of = _frequencies(content.get("categories", ()))
        empty: list[str] = []
        sizes = {each["id"]: (int(each["height"]), int(each["width"])) for each in content["images"]}
        for annotation in content["annotations"]:
            if annotation.get("iscrowd"):
                continue
            where = f"{self.file}: annotation {annotation.get('id', '')}"
            if annotation["image_id"] not in sizes:
                raise ValueError(f"{where}: got image_id {annotation['image_id']}, which no image of the file has")
            segmentation, size = annotation.get("segmentation"), sizes[annotation["image_id"]]
            mask = to_rle(segmentation, *size, where)
            if frequency_of and annotation.get("category_id") not in frequency_of:
                raise ValueError(f"{where}: got category_id {annotation.get('category_id')}, which no category has")
            if rle.area(mask):
                by_image[annotation["image_id"]].append((mask, frequency_of.get(annotation.get("category_id"))))
            else:
                empty.append(f"{annotation.get('id', '')} ({explain_empty(segmentation, *size)})")
        if empty:
            more = f" and {len(empty) - NAMED} more" if len(empty) > NAMED else ""
            what = f"{len(empty)} annotations cover no pixel of their image and are left out"
            logger.warning("%s: %s: %s%s", self.file, what, ", ".join(empty[:NAMED]), more)
        if not by_image:
            raise ValueError(f"{self.file}: got no annotation of a single object; expected some beside crowds")
        return [self._image(each, by_image[each["id"]]) for each in content["images"] if each["id"] in by_image]

    def count_unlabelled(self) -> int:
        """Count the images of the file without an annotation of a single object."""
        content = read_instances(self.file)
        labelled = {each["image_id"] for each in content["annotations"] if not each.get("iscrowd")}
        return sum(each["id"] not in labelled for each in content["images"])

    def _image(self, image: Mapping[str, Any], masks: Sequence[tuple[Rle, Frequency | None]]) -> LabelledImage:
        path = self.folder / str(image["file_name"])
        if not path.is_file() and "coco_url" in image:
            path = self.folder / path.name
        if not path.is_file():
            raise ValueError(f"{path}: no such image, but {self.file} names it; give --images FOLDER of its images")
        return LabelledImage(
            domain=self.file.stem,
            stem=path.stem,
            origin=str(path),
            read_bytes=path.read_bytes,
            image_id=int(image["id"]),
            height=int(image["height"]),
            width=int(image["width"]),
            masks_by_annotator={0: tuple(mask for mask, _ in masks)},
            frequencies=tuple(frequency for _, frequency in masks if frequency is not None),
        )


def _frequencies(categories: Sequence[Mapping[str, Any]]) -> Mapping[Any, Frequency]:
    """Read how frequent each category is, by its id; empty unless every category says so, as in LVIS."""
    named: Mapping[str, Frequency] = {"r": "rare", "c": "common", "f": "frequent"}
    known = {each.get("id"): named[each["frequency"]] for each in categories if each.get("frequency") in named}
    return known if len(known) == len(categories) else {}


def read_instances(file: Path) -> dict[str, Any]:
    """Read a COCO instances JSON; its images and annotations have the fields that identify them.

    Raises:
        ValueError: The file cannot be read or has another form; the message names it.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}; expected a COCO instances JSON") from error
    except ValueError as error:
        raise ValueError(f"{file}: got broken JSON ({error}); expected a COCO instances JSON") from error
    _name_by_url(content)
    keys = {"images": ("id", "file_name", "height", "width"), "annotations": ("image_id",)}
    for name, wanted in keys.items():
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= set(wanted) for row in rows):
            raise ValueError(f"{file}: expected COCO's instances: a list {name!r} of objects with {', '.join(wanted)}")
    return content


def explain_empty(segmentation: object, height: int, width: int) -> str:
    """Say why a segmentation covers no pixel of its image."""
    if not isinstance(segmentation, list):
        return "its run lengths have no pixel"
    rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in segmentation if len(ring) >= MIN_RING]
    if not rings:
        return "got polygons of fewer than 3 points"
    corners = np.concatenate(rings)
    if (corners.max(axis=0) <= 0).any() or (corners.min(axis=0) >= (width, height)).any():
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        where = f"x {left:g} to {right:g}, y {top:g} to {bottom:g}"
        return f"got polygons outside of the image: {where}, the image has {width} x {height} px"
    return "got polygons without a pixel inside"


def _name_by_url(content: object) -> None:
    """Give the images of LVIS v1 a `file_name`: the last two parts of their `coco_url`."""
    for image in content.get("images") or () if isinstance(content, dict) else ():
        if isinstance(image, dict) and "file_name" not in image and isinstance(image.get("coco_url"), str):
            image["file_name"] = "/".join(image["coco_url"].split("/")[-2:])


def to_rle(segmentation: object, height: int, width: int, where: str) -> Rle:
    """Turn a segmentation of COCO into run lengths: polygons, or run lengths as text or numbers.

    Points and lines among polygons, as tools leave them behind, cover no pixel; a mask of them alone is empty.

    Raises:
        ValueError: It is neither, or has another size than its image.
    """
    try:
        if isinstance(segmentation, list) and segmentation:
            return _fill(segmentation, height, width)
        if isinstance(segmentation, dict) and "counts" in segmentation:
            return _from_runs(segmentation, height, width)
        raise ValueError("got no polygons and no run lengths")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _fill(polygons: Sequence[object], height: int, width: int) -> Rle:
    rings = [ring for ring in polygons if isinstance(ring, list) and len(ring) % 2 == 0]
    if len(rings) < len(polygons):
        raise ValueError("got a polygon that is no list of x and y in turn")
    if not all(abs(side) <= MAX_COORDINATE for ring in rings for side in ring):
        raise ValueError(f"got a polygon with a corner over {MAX_COORDINATE:,} px away, or at no number")
    rings = [ring for ring in rings if len(ring) >= MIN_RING]
    if not rings:
        return rle.encode(np.zeros((height, width), np.bool_))
    merged = coco.merge(coco.frPyObjects(rings, height, width))
    return rle.from_coco(merged["counts"], height=height, width=width)


def _from_runs(segmentation: Mapping[str, Any], height: int, width: int) -> Rle:
    if list(segmentation.get("size", ())) != [height, width]:
        raise ValueError(f"got a mask of size {segmentation.get('size')}, expected [{height}, {width}]")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if sum(counts) != height * width or min(counts) < 0:
            raise ValueError(f"got run lengths of {sum(counts)} pixels, expected {height * width}")
        counts = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return rle.from_coco(counts, height=height, width=width)
