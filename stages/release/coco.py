"""All masks of a release as one COCO file, written from the release's tables piece by piece.

Masks stay run lengths, because polygons lose holes and borders. `iscrowd` is 0: it means a group of objects, though
some programs use it to mark run lengths.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from stages.release.documents.licenses import NONE_GIVEN

COCO = "coco.json"
_CATEGORY = 1


def write_coco(
    file: BinaryIO,
    release_id: str,
    licenses: Iterable[str],
    image_rows: Iterator[dict[str, Any]],
    mask_rows: Iterator[dict[str, Any]],
    *,
    what: str = "release",
) -> None:
    """Write the file.

    Args:
        file: File to write to.
        release_id: Id of the release, or of another state of masks.
        licenses: Names of all licences. Images of another one, such as the empty one, name none.
        image_rows: Rows of the images.
        mask_rows: Rows of the masks.
        what: What the id is of.
    """
    numbers = {name: number for number, name in enumerate(sorted(licenses))}
    about = {
        "info": {"description": f"gigamask {what} {release_id}", "version": release_id},
        "licenses": [{"id": number, "name": name or NONE_GIVEN, "url": ""} for name, number in numbers.items()],
        "categories": [{"id": _CATEGORY, "name": "object", "supercategory": "object"}],
    }
    file.write(_json(about)[:-1].encode())
    _write_list(file, "images", (_image(row, numbers) for row in image_rows))
    _write_list(file, "annotations", (_annotation(row) for row in mask_rows))
    file.write(b"}\n")


def _write_list(file: BinaryIO, name: str, items: Iterator[dict[str, Any]]) -> None:
    file.write(f',"{name}":['.encode())
    separator = ""
    for item in items:
        file.write(f"{separator}\n{_json(item)}".encode())
        separator = ","
    file.write(b"]")


def _image(row: Mapping[str, Any], licenses: Mapping[str, int]) -> dict[str, Any]:
    number = licenses.get(row["license"])
    return {
        "id": row["image_id"],
        "file_name": row["file_name"],
        "height": row["height"],
        "width": row["width"],
        **({} if number is None else {"license": number}),
    }


def _annotation(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "image_id": row["image_id"],
        "category_id": _CATEGORY,
        "segmentation": {"size": [row["height"], row["width"]], "counts": row["counts"]},
        "area": row["area"],
        "bbox": row["bbox"],
        "iscrowd": 0,
    }


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
