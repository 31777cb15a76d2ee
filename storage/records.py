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


class Stage(StrEnum):
    """The stage that made a mask, or found that an input could not be used; the paper's words and "ingest"."""

    INGEST = "ingest"
    ASSISTED_MANUAL = "assisted_manual"
    SEMI_AUTOMATIC = "semi_automatic"
    FULLY_AUTOMATIC = "fully_automatic"


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
