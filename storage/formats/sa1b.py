"""SA-1B's annotation file: one JSON document for each image, with the image's masks as COCO run lengths.

Boxes are half-open (x0, y0, x1, y1) in records and (x, y, width, height) in the file; points are (x, y) in pixels.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from storage import rle
from storage.records import ImageRecord, MaskRecord, Provenance


def sa1b_json(image: ImageRecord, masks: Iterable[MaskRecord]) -> dict[str, Any]:
    """Build the annotation file of one image, with exactly the fields of SA-1B's annotation files."""
    return {
        "image": {
            "image_id": image.image_id,
            "width": image.width,
            "height": image.height,
            "file_name": f"{image.key}.{image.format}",
        },
        "annotations": [_annotation(mask) for mask in masks],
    }


def parse_sa1b(
    document: Mapping[str, Any], *, provenance: Provenance | None = None
) -> tuple[ImageRecord, list[MaskRecord]]:
    """Read an annotation file that has the fields of SA-1B; the inverse of `sa1b_json`.

    An annotation file states no source, hash or licence: these fields become "" or 0. A missing score or point becomes
    NaN, and a missing crop becomes the whole image. Area and box are computed from the mask.

    Raises:
        ValueError: A field is missing or contradicts another.
    """
    try:
        image = _image_of(document["image"])
        return image, [_mask_of(each, image, provenance or Provenance()) for each in document["annotations"]]
    except KeyError as error:
        raise ValueError(f"annotation file: field {error} is missing") from error
    except TypeError as error:
        raise ValueError(f"annotation file: a field has the wrong type: {error}") from error


def _annotation(mask: MaskRecord) -> dict[str, Any]:
    x0, y0, x1, y1 = mask.crop_xyxy
    return {
        "id": int(mask.mask_id),
        "segmentation": {"size": [mask.rle.height, mask.rle.width], "counts": rle.to_coco(mask.rle)},
        "bbox": rle.box_xywh(mask.rle),
        "area": int(mask.area_px),
        "predicted_iou": _number_or_null(mask.predicted_iou),
        "stability_score": _number_or_null(mask.stability_score),
        "crop_box": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
        "point_coords": [] if math.isnan(mask.point_xy[0]) else [[float(mask.point_xy[0]), float(mask.point_xy[1])]],
    }


def _number_or_null(score: float) -> float | None:
    return None if math.isnan(score) else float(score)


def _image_of(fields: Mapping[str, Any]) -> ImageRecord:
    name = PurePosixPath(fields["file_name"])
    return ImageRecord(
        image_id=int(fields["image_id"]),
        key=name.stem,
        height=int(fields["height"]),
        width=int(fields["width"]),
        format=name.suffix.removeprefix("."),
        nbytes=0,
        source="",
        source_sha256="",
        stored_sha256="",
        license="",
        country="",
    )


def _mask_of(fields: Mapping[str, Any], image: ImageRecord, provenance: Provenance) -> MaskRecord:
    height, width = fields["segmentation"]["size"]
    if (height, width) != (image.height, image.width):
        raise ValueError(
            f"mask {fields['id']}: its size is {height} x {width}, its image's {image.height} x {image.width}"
        )
    runs = rle.from_coco(fields["segmentation"]["counts"], height=height, width=width)
    area_px = rle.area(runs)
    if fields["area"] != area_px:
        raise ValueError(f"mask {fields['id']}: area says {fields['area']}, its runs cover {area_px} pixels")
    return MaskRecord(
        mask_id=int(fields["id"]),
        image_id=image.image_id,
        rle=runs,
        box_xyxy=rle.box_xyxy(runs),
        area_px=area_px,
        predicted_iou=_or_nan(fields.get("predicted_iou")),
        stability_score=_or_nan(fields.get("stability_score")),
        point_xy=_point(fields.get("point_coords")),
        crop_xyxy=_crop(fields.get("crop_box"), image),
        provenance=provenance,
    )


def _or_nan(score: float | None) -> float:
    return math.nan if score is None else float(score)


def _point(points: list[Any] | None) -> tuple[float, float]:
    return (float(points[0][0]), float(points[0][1])) if points else (math.nan, math.nan)


def _crop(crop_xywh: list[Any] | None, image: ImageRecord) -> tuple[int, int, int, int]:
    if crop_xywh is None:
        return (0, 0, image.width, image.height)
    x, y, width, height = (round(side) for side in crop_xywh)
    return (x, y, x + width, y + height)
