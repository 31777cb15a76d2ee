"""Settings of the automatic mask generator. This module needs no torch: a command checks them before it starts."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16"]
"""Number format that the network computes in."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of the automatic mask generator; the defaults are the `grid` preset."""

    points_per_side: int = 32
    """Number of points along each side of the grid on the whole image."""
    crop_layers: int = 0
    """Number of crop layers besides the whole image; layer i has 2^i x 2^i overlapping windows."""
    crop_points_downscale: int = 1
    """Divisor of the number of points per side: layer i has points_per_side / crop_points_downscale^i points along a
    side."""
    crop_overlap_ratio: float = 512 / 1500
    """Overlap of neighbouring windows in layer 1, as a fraction of the image's shorter side; it halves with each
    layer."""
    predicted_iou_threshold: float | None = None
    """Predicted IoU that a mask must exceed; None means the model card's threshold, 0 keeps all masks."""
    stability_threshold: float | None = None
    """Stability that a mask must reach; None means the model card's threshold, 0 keeps all masks."""
    stability_offset: float = 1.0
    """Distance of the two thresholds from 0, in logits, between which stability is measured."""
    box_nms_threshold: float = 0.7
    """Box IoU above which two masks of one crop count as duplicates."""
    crop_nms_threshold: float = 0.7
    """Box IoU above which two masks of different crops count as duplicates."""
    min_region_px: int = 100
    """Area in pixels below which an island is removed and a hole is filled. A mask with smaller islands alone is
    dropped. 0 means no cleaning."""
    max_area_fraction: float | None = 0.95
    """Fraction of the image that a mask's area must stay below; None means no limit."""
    min_mask_area_px: int = 0
    """Smallest area of a mask in pixels; unlike `min_region_px`, it applies to the whole mask and not to each
    island."""
    max_mask_area_px: int | None = None
    """Largest area of a mask in pixels; None means no limit."""
    points_per_batch: int = 4
    """Number of points decoded together: few on a CPU, so that they fit its cache; 64 and more on a GPU."""
    crops_per_batch: int = 1
    """Number of crops encoded together. The 21 crops of the `paper` preset fill a GPU; on a CPU, more than 1 brings no
    speed and takes memory."""
    precision: Precision = "fp32"
    """Number format that the network computes in. "bf16" changes masks a little, and is faster on GPUs and on CPUs with
    bf16 arithmetic."""

    def __post_init__(self) -> None:
        deepest = self.points_in_layer(max(0, self.crop_layers))
        covered, largest = self.max_area_fraction, self.max_mask_area_px
        checks = [
            ("points_per_side", self.points_per_side, self.points_per_side >= 1, "at least 1"),
            ("crop_layers", self.crop_layers, self.crop_layers >= 0, "at least 0"),
            ("crop_points_downscale", self.crop_points_downscale, self.crop_points_downscale >= 1, "at least 1"),
            ("crop_layers", self.crop_layers, deepest >= 1, "few enough to leave a point per side in the last layer"),
            ("crop_overlap_ratio", self.crop_overlap_ratio, 0 <= self.crop_overlap_ratio < 1, "0 <= ratio < 1"),
            ("stability_offset", self.stability_offset, self.stability_offset >= 0, "at least 0"),
            ("min_region_px", self.min_region_px, self.min_region_px >= 0, "at least 0"),
            ("max_area_fraction", covered, covered is None or 0 < covered <= 1, "in (0, 1], or None"),
            ("min_mask_area_px", self.min_mask_area_px, self.min_mask_area_px >= 0, "at least 0"),
            ("max_mask_area_px", largest, largest is None or largest >= self.min_mask_area_px, "min_mask_area_px up"),
            ("points_per_batch", self.points_per_batch, self.points_per_batch >= 1, "at least 1"),
            ("crops_per_batch", self.crops_per_batch, self.crops_per_batch >= 1, "at least 1"),
            ("precision", self.precision, self.precision in ("fp32", "bf16"), "fp32 or bf16"),
        ]
        for name, got, holds, expected in checks:
            if not holds:
                raise ValueError(f"generate.{name}: got {got}, expected {expected}")

    def points_in_layer(self, layer: int) -> int:
        """Compute the number of grid points along each side of a window in the crop layer `layer`."""
        return int(self.points_per_side / max(1, self.crop_points_downscale) ** layer)


PRESETS: dict[str, GenerateConfig] = {
    "grid": GenerateConfig(),
    "paper": GenerateConfig(crop_layers=2, crop_points_downscale=2),
}
"""Named settings. `grid` has 32 x 32 points and no crops, as the reference code does by default. `paper` has the whole
image and 4 + 16 crops, with 32, 16 and 8 points along a side."""
