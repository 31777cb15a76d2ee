"""COCO's instances JSON: read as labels, with polygons and run lengths as text or numbers; written with run lengths.

Run lengths are recognised by their form. In COCO, `iscrowd` says that an annotation is a group of objects, but some
tools set it to mark run lengths.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stages.coco_source import explain_empty, read_instances, to_rle
from stages.formats.exported import Exported
from stages.formats.labels import LabelledMask, Labels, LeftOut, PhotoLabels, ReadMasks
from stages.release.coco import write_coco as write_file
from stages.release.documents.licenses import NONE_GIVEN
from storage import rle

CROWD = "crowd"
"""Reason why a group of objects is left out."""
INSTANCES = "instances.json"
"""Name of the file that an export writes."""


def read_coco(file: Path, *, with_crowds: bool = False) -> Labels:
    """Read the labels of one COCO instances JSON.

    Args:
        file: The JSON file.
        with_crowds: Whether annotations with `iscrowd` are masks like the others.

    Raises:
        ValueError: The file cannot be read or has another form; the message names it.
    """
    content = read_instances(file)
    images = content["images"]
    repeated = [image_id for image_id, count in Counter(str(each["id"]) for each in images).items() if count > 1]
    if repeated:
        raise ValueError(f"{file}: got {len(repeated)} image ids twice, such as {repeated[0]}; expected each once")
    categories = _names(content.get("categories"))
    licenses = {each: "" if name == NONE_GIVEN else name for each, name in _names(content.get("licenses")).items()}
    by_image: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for number, annotation in enumerate(content["annotations"]):
        by_image[str(annotation["image_id"])].append({"id": f"at place {number}", **annotation})
    photos = [
        PhotoLabels(
            name=str(image["file_name"]),
            size_hw=_size(image, file),
            num_masks=len(own := by_image.pop(str(image["id"]), [])),
            read=partial(_read, own, categories, with_crowds),
            license=licenses.get(str(image.get("license")), ""),
        )
        for image in images
    ]
    left_out = [
        LeftOut(
            what=f"annotation {each['id']}", reason="no_photo", detail=f"its image_id {image_id} is none of the file's"
        )
        for image_id, some in by_image.items()
        for each in some
    ]
    return Labels(
        form="coco",
        file=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        folder=file.parent,
        photos=tuple(photos),
        left_out=tuple(left_out),
        options={"with_crowds": True} if with_crowds else {},
    )


def _names(rows: object) -> dict[str, str]:
    """Map the ids of categories or licences to their names."""
    some = [row for row in rows if isinstance(row, dict) and "id" in row] if isinstance(rows, list) else []
    return {str(row["id"]): str(row.get("name") or "") for row in some}


def _size(image: Mapping[str, Any], file: Path) -> tuple[int, int]:
    height, width = image["height"], image["width"]
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ValueError(
            f"{file}: image {image['id']}: got height {height!r} and width {width!r}, expected whole numbers from 1"
        )
    return height, width


def _read(
    annotations: Sequence[Mapping[str, Any]], categories: Mapping[str, str], with_crowds: bool, height: int, width: int
) -> ReadMasks:
    masks, left_out = list[LabelledMask](), list[LeftOut]()
    for annotation in annotations:
        what = f"annotation {annotation['id']}"
        if annotation.get("iscrowd") and not with_crowds:
            detail = "marked iscrowd, a group of objects; --with-crowds takes it as one mask"
            left_out.append(LeftOut(what=what, reason=CROWD, detail=detail))
            continue
        try:
            mask = to_rle(annotation.get("segmentation"), height, width, what)
        except ValueError as error:
            left_out.append(LeftOut(what=what, reason="malformed", detail=str(error).removeprefix(f"{what}: ")))
            continue
        if not rle.area(mask):
            detail = explain_empty(annotation.get("segmentation"), height, width)
            left_out.append(LeftOut(what=what, reason="empty", detail=detail))
            continue
        named = str(annotation.get("category_id"))
        masks.append(LabelledMask(what=what, rle=mask, category=categories.get(named, "")))
    return ReadMasks(masks=tuple(masks), left_out=tuple(left_out))


def write_coco(folder: Path, exported: Exported) -> None:
    """Write `instances.json`, with run lengths as text; images and masks are numbered from 1."""
    licenses = {image.license for image in exported.images if image.license.strip()}
    images = (
        {
            "image_id": number,
            "file_name": f"{image.key}.{image.format}",
            "height": image.height,
            "width": image.width,
            "license": image.license,
        }
        for number, image in enumerate(exported.images, start=1)
    )
    with (folder / INSTANCES).open("wb") as file:
        write_file(file, exported.snapshot_id, licenses, images, _mask_rows(exported), what="export of snapshot")


def _mask_rows(exported: Exported) -> Iterator[dict[str, Any]]:
    number = 0
    for image_number, sample in enumerate(exported.samples(), start=1):
        for mask in sample.masks:
            number += 1
            yield {
                "id": number,
                "image_id": image_number,
                "height": mask.rle.height,
                "width": mask.rle.width,
                "counts": rle.to_coco(mask.rle),
                "area": mask.area_px,
                "bbox": rle.box_xywh(mask.rle),
            }
