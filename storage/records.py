"""What the dataset is about: images, masks, where they come from, and what could not be used.

Boxes are half-open (x0, y0, x1, y1) in pixels of the stored image; points are (x, y) in the same pixels.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from storage.rle import Rle

FORMATS = ("jpg", "png")
"""File endings of the images that a shard may hold."""


class Stage(StrEnum):
    """The stage that made a mask, or found that an input could not be used; the paper's words and "ingest"."""

    INGEST = "ingest"
    ASSISTED_MANUAL = "assisted_manual"
    SEMI_AUTOMATIC = "semi_automatic"
    FULLY_AUTOMATIC = "fully_automatic"


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One stored image."""

    image_id: int
    """First 63 bits of `source_sha256`."""
    key: str
    """Name of the image in every shard: image_id as 16 hex digits."""
    height: int
    """Height in pixels."""
    width: int
    """Width in pixels."""
    format: str
    """File ending in the shard: jpg or png."""
    nbytes: int
    """Stored size in bytes."""
    source: str
    """Path or address of the photo."""
    source_sha256: str
    """SHA-256 of the photo's file, in hex."""
    stored_sha256: str
    """SHA-256 of the bytes in the shard, in hex."""
    license: str
    """Licence as given at ingest; empty where none was given."""
    country: str
    """ISO 3166-1 alpha-2 code; empty where unknown."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "ImageRecord":
        """Read the record from a row of the table `images`."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Origin of a mask; a field that does not apply is empty."""

    stage: str = ""
    """Stage of the data engine: assisted_manual, semi_automatic or fully_automatic."""
    model_id: str = ""
    """Model version that made the mask."""
    annotator_id: str = ""
    """Annotator who made the mask."""
    round_id: str = ""
    """Annotation round."""
    plan_id: str = ""
    """Plan of the mask shard."""
    config_hash: str = ""
    """SHA-256 of the plan's settings, in hex."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Provenance":
        """Read the provenance from a row of the table `masks`, whose column `plan` is the plan's id."""
        named = (name for name in cls.__dataclass_fields__ if name != "plan_id")
        return cls(plan_id=row["plan"], **{name: row[name] for name in named})


@dataclass(frozen=True, kw_only=True)
class MaskRecord:
    """One mask of one image."""

    mask_id: int
    """Id, unique within the image."""
    image_id: int
    """Id of the image."""
    rle: Rle
    """Pixels of the mask."""
    box_xyxy: tuple[int, int, int, int]
    """Half-open box around the mask, in pixels."""
    area_px: int
    """Foreground pixels."""
    predicted_iou: float
    """The model's own estimate of the IoU, in [0, 1]; NaN for a mask without one, such as one drawn by hand."""
    stability_score: float
    """IoU between a tighter and a looser cut, in [0, 1]; NaN for a mask without one."""
    point_xy: tuple[float, float]
    """Prompt point in pixels; NaN for a mask without one."""
    crop_xyxy: tuple[int, int, int, int]
    """Half-open box of the crop in which the mask was found; the whole image without crops."""
    provenance: Provenance
    """Origin of the mask."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """An input that could not be used."""

    source: str
    """Path or address of a photo, or key of an image."""
    source_sha256: str
    """SHA-256 of the photo's file, in hex; empty where the bytes could not be read."""
    reason: str
    """Short code such as truncated, not_an_image or duplicate."""
    detail: str
    """Explanation in one line."""
    stage: str
    """Stage that rejected the input."""


def image_id_of(source_sha256: str) -> int:
    """Return the first 63 bits of a photo's SHA-256, given in hex: the same photo has the same id everywhere.

    Raises:
        ValueError: The hash does not have 64 digits.
    """
    if len(source_sha256) != 64:
        raise ValueError(f"a SHA-256 has 64 hex digits, got {source_sha256!r}")
    return int(source_sha256[:16], 16) >> 1


def image_key(image_id: int) -> str:
    """Return the id as 16 hex digits."""
    return f"{image_id:016x}"


def mask_id_of(plan: str, shard: str, generation: int, image_id: int, ordinal: int) -> int:
    """Derive a mask's 63-bit id from where it was made, so that a repeated attempt gives its masks the same ids."""
    place = json.dumps([plan, shard, generation, image_id, ordinal])
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") >> 1
