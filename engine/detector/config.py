"""Settings of the detector: sizes of its network, and how it looks at an image. This module needs no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Sizes of a detector's network."""

    embedding_width: int
    """Number of channels of the SAM's image embedding."""
    embedding_side: int
    """Side of the SAM's square image embedding, in cells."""
    input_side: int
    """Side of the SAM's square input, in pixels."""
    width: int = 96
    """Number of channels inside the detector; a multiple of 8."""
    tower_depth: int = 2
    """Number of 3x3 convolutions before the output, shared by all levels."""
    levels: int = 4
    """Number of levels; level i has cells of 2^i embedding cells a side and proposes boxes of about 3 to 6 of them."""

    def __post_init__(self) -> None:
        sizes = dataclasses.asdict(self)
        if not all(type(size) is int and size >= 1 for size in sizes.values()):
            raise ValueError(f"detector sizes {sizes}: expected whole numbers of at least 1")
        if self.width % 8 or self.input_side % self.embedding_side or self.embedding_side < 2 ** (self.levels - 1):
            raise ValueError(
                f"detector sizes {sizes}: expected a width that is a multiple of 8, an embedding_side that divides "
                "input_side, and few enough levels that the last one has a cell"
            )

    @property
    def stride_px(self) -> int:
        """Side of an embedding cell, in pixels of the SAM's input."""
        return self.input_side // self.embedding_side

    @classmethod
    def from_json(cls, data: Any) -> DetectorConfig:
        """Read the sizes from a JSON object with one key per field.

        Raises:
            ValueError: A field is missing or unknown, or the sizes contradict each other.
        """
        expected = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) != expected:
            raise ValueError(f"detector card, config: got {data!r}, expected an object with {sorted(expected)}")
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class DetectConfig:
    """Settings of how a detector looks at an image."""

    crop_layers: int = 1
    """Largest crop layer whose windows the detector looks at besides the whole image, if the SAM is prompted in windows
    too; layer i has 2^i x 2^i windows. On 16 photos with even ids, recall at IoU .5 with 100 boxes was .50 without
    windows, .63 with layer 1 and .62 with layers 1 and 2."""
    nms_threshold: float = 0.65
    """Box IoU above which two boxes count as duplicates, in [0, 1]."""
    max_boxes: int = 100
    """Largest number of boxes of an image."""
    min_score: float = 0.0
    """Lowest score of a box, in [0, 1]; 0 keeps every box."""

    def __post_init__(self) -> None:
        checks = [
            ("crop_layers", self.crop_layers, 0 <= self.crop_layers <= 2, "0, 1 or 2"),
            ("nms_threshold", self.nms_threshold, 0 < self.nms_threshold <= 1, "a number in (0, 1]"),
            ("max_boxes", self.max_boxes, self.max_boxes >= 1, "at least 1"),
            ("min_score", self.min_score, 0 <= self.min_score <= 1, "a number in [0, 1]"),
        ]
        for name, got, holds, expected in checks:
            if not holds:
                raise ValueError(f"detect.{name}: got {got}, expected {expected}")
