"""Records of a dataset: images, masks, the origin of a mask, and inputs that could not be used.

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


DUPLICATE = "duplicate"
"""Reason of a reject whose content the dataset holds already."""


ERASED = "erased"
"""Reason of a reject for an image that was erased for good."""


class Stage(StrEnum):
    """Stage that made a mask or rejected an input.

    Ingest and fold make no masks. Three of the other stages have the names of the SAM paper.
    """

    INGEST = "ingest"
    FOLD = "fold"
    """Stage that takes commit records into the tables; it rejects copies of images and of masks, and erased images."""
    ASSISTED_MANUAL = "assisted_manual"
    SEMI_AUTOMATIC = "semi_automatic"
    FULLY_AUTOMATIC = "fully_automatic"
    IMPORTED = "imported"
    """Masks of another tool's file, whoever made them there."""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """Facts about one stored image."""

    image_id: int
    """First 63 bits of `source_sha256`."""
    key: str
    """Name of the image in every shard: the image_id as 16 hex digits."""
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
    """Country of the photo as an ISO 3166-1 alpha-2 code; empty where unknown."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "ImageRecord":
        """Read the record from a row of the table `images`."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Origin of a mask: stage, model, annotator, round and plan. A field that does not apply is empty."""

    stage: str = ""
    """Stage of the data engine: assisted_manual, semi_automatic, fully_automatic or imported."""
    model_id: str = ""
    """Id of the model version that made the mask; empty where no model did."""
    annotator_id: str = ""
    """Id of the annotator who made the mask; empty where no annotator did."""
    round_id: str = ""
    """Id of the round in which the mask was made; empty outside of rounds."""
    plan_id: str = ""
    """Home of the mask shard's plan, as in the column `plan`."""
    config_hash: str = ""
    """SHA-256 of the plan's settings, in hex."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Provenance":
        """Read the provenance from a row of the table `masks`; the column `plan` becomes `plan_id`."""
        named = (name for name in cls.__dataclass_fields__ if name != "plan_id")
        return cls(plan_id=row["plan"], **{name: row[name] for name in named})


@dataclass(frozen=True, kw_only=True)
class MaskRecord:
    """One mask of one image, with its scores and its origin."""

    mask_id: int
    """Id, unique within the image."""
    image_id: int
    """Id of the image that the mask belongs to."""
    rle: Rle
    """Pixels of the mask, as COCO run lengths."""
    box_xyxy: tuple[int, int, int, int]
    """Half-open box (x0, y0, x1, y1) around the mask, in pixels of the stored image."""
    area_px: int
    """Number of foreground pixels."""
    predicted_iou: float
    """The model's own estimate of the mask's IoU with the object, in [0, 1]; NaN for a mask without an estimate."""
    stability_score: float
    """IoU of the mask cut at a higher and at a lower threshold, in [0, 1]; NaN for a mask without a score."""
    point_xy: tuple[float, float]
    """Point (x, y) that the model was prompted with, in pixels; NaN for a mask without a point."""
    crop_xyxy: tuple[int, int, int, int]
    """Half-open box (x0, y0, x1, y1) of the crop in which the mask was found, or of the whole image without crops."""
    provenance: Provenance
    """Origin of the mask."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """Record of an input that could not be used, with the reason."""

    source: str
    """Path or address of a photo, or key of an image."""
    source_sha256: str
    """SHA-256 of the photo's file, in hex; empty where the bytes could not be read."""
    reason: str
    """Short code such as truncated, not_an_image or duplicate."""
    detail: str
    """Explanation of the reason, in one line."""
    stage: str
    """Stage that rejected the input."""


def image_id_of(source_sha256: str) -> int:
    """Compute the id of an image: the first 63 bits of the SHA-256 of its photo.

    The same photo has the same id in every dataset.

    Args:
        source_sha256: SHA-256 of the photo, in hex.

    Raises:
        ValueError: The hash does not have 64 digits.
    """
    if len(source_sha256) != 64:
        raise ValueError(f"a SHA-256 has 64 hex digits, got {source_sha256!r}")
    return int(source_sha256[:16], 16) >> 1


def image_key(image_id: int) -> str:
    """Return the name of an image in every shard: its id as 16 hex digits."""
    return f"{image_id:016x}"


def mask_id_of(plan: str, shard: str, generation: int, image_id: int, ordinal: int) -> int:
    """Derive the 63-bit id of a mask from the shard, the image and the place of the mask among the image's masks.

    A repeated attempt at the shard therefore gives the same ids.
    """
    place = json.dumps([plan, shard, generation, image_id, ordinal])
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") >> 1
