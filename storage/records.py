"""What the dataset is about: images, masks, where they come from, and what could not be used; with their SA-1B form.

Boxes are half-open (x0, y0, x1, y1) in pixels of the stored image; points are (x, y) in the same pixels.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from storage import rle
from storage.rle import Rle

FORMATS = ("jpg", "png")  # what an image shard may hold


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One stored image. `format` is the file ending in its shard ("jpg" or "png"); `nbytes` its stored size."""

    image_id: int
    key: str  # image_id as 16 hex digits: the image's name in every shard
    height: int
    width: int
    format: str
    nbytes: int
    source: str  # where it came from: a path or an address
    source_sha256: str  # of the file as it came
    stored_sha256: str  # of the bytes in the shard
    license: str
    country: str  # ISO 3166-1 alpha-2, "" where unknown

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "ImageRecord":
        """Make the record of a row of the table `images`."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a mask comes from; "" where a field does not apply."""

    stage: str = ""  # assisted_manual | semi_automatic | fully_automatic
    model_id: str = ""
    annotator_id: str = ""
    round_id: str = ""
    plan_id: str = ""
    config_hash: str = ""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Provenance":
        """Make the provenance of a row of the table `masks`, whose column `plan` is the plan's id."""
        named = (name for name in cls.__dataclass_fields__ if name != "plan_id")
        return cls(plan_id=row["plan"], **{name: row[name] for name in named})


@dataclass(frozen=True, kw_only=True)
class MaskRecord:
    """One mask of one image. NaN stands for a score or a point that this mask never had (a mask drawn by hand)."""

    mask_id: int
    image_id: int
    rle: Rle
    box_xyxy: tuple[int, int, int, int]
    area_px: int
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float]
    crop_xyxy: tuple[int, int, int, int]
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class Reject:
    """An input that could not be used. `reason` is a short code (truncated, not_an_image, duplicate, ...)."""

    source: str
    source_sha256: str  # "" where the bytes could not be read
    reason: str
    detail: str  # one line for people
    stage: str


def image_id_of(source_sha256: str) -> int:
    """The first 63 bits of the source file's SHA-256 (given in hex): the same photograph has the same id everywhere."""
    if len(source_sha256) != 64:
        raise ValueError(f"a SHA-256 has 64 hex digits, got {source_sha256!r}")
    return int(source_sha256[:16], 16) >> 1


def image_key(image_id: int) -> str:
    """The id as 16 hex digits."""
    return f"{image_id:016x}"


def mask_id_of(plan: str, shard: str, generation: int, image_id: int, ordinal: int) -> int:
    """63 bits that follow from where a mask was made, so that a repeated attempt names its masks alike."""
    place = json.dumps([plan, shard, generation, image_id, ordinal])
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") >> 1


def sa1b_json(image: ImageRecord, masks: Iterable[MaskRecord]) -> dict[str, Any]:
    """The annotation file of one image, exactly SA-1B's fields; ids are numbers there, as in SA-1B."""
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
    """The inverse of `sa1b_json`; what such a file does not state (source, hashes, licence) is "" or 0.

    A missing score or point becomes NaN, a missing crop the whole image; the area and the box are those of the runs.
    Raises ValueError where a field is missing or contradicts another.
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


def _point(points: list[list[float]] | None) -> tuple[float, float]:
    return (float(points[0][0]), float(points[0][1])) if points else (math.nan, math.nan)


def _crop(crop_xywh: list[float] | None, image: ImageRecord) -> tuple[int, int, int, int]:
    if crop_xywh is None:
        return (0, 0, image.width, image.height)
    x, y, width, height = (round(side) for side in crop_xywh)
    return (x, y, x + width, y + height)
