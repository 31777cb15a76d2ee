"""What became of the generator's candidates: one counter per filter, so that an empty result explains itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

_FILTERS: dict[str, tuple[str, str]] = {
    "failed_predicted_iou": ("predicted IoU too low", "lower generate.predicted_iou_threshold"),
    "failed_stability": ("unstable", "lower generate.stability_threshold"),
    "cut_by_crop_edge": ("cut by a crop's edge", "raise generate.crop_overlap_ratio"),
    "empty": ("without a pixel", "try another model: this one draws nothing here"),
    "covers_image": ("covering the whole photograph", "raise generate.max_area_fraction"),
    "too_small": ("below the smallest area", "lower generate.min_mask_area_px"),
    "too_large": ("above the largest area", "raise generate.max_mask_area_px"),
    "duplicate_in_crop": ("duplicates within a crop", "raise generate.box_nms_threshold"),
    "duplicate_across_crops": ("duplicates across crops", "raise generate.crop_nms_threshold"),
    "dissolved": ("of small islands alone", "lower generate.min_region_px"),
    "duplicate_after_cleanup": ("duplicates after clean-up", "raise generate.crop_nms_threshold"),
}
"""In the pipeline's order: what a filter's losses are, and what to change to lose fewer."""


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """How many masks each filter took, in the pipeline's order; with `kept` they add up to `candidates`.

    Instances of several photographs are added with +.
    """

    candidates: int = 0
    """Three masks for every point."""
    failed_predicted_iou: int = 0
    failed_stability: int = 0
    cut_by_crop_edge: int = 0
    empty: int = 0
    """No pixel above 0."""
    covers_image: int = 0
    too_small: int = 0
    too_large: int = 0
    duplicate_in_crop: int = 0
    duplicate_across_crops: int = 0
    dissolved: int = 0
    """Nothing but islands of fewer than `min_region_px`."""
    duplicate_after_cleanup: int = 0
    kept: int = 0
    cleaned: int = 0
    """Masks that the clean-up changed; not a loss."""
    best_predicted_iou: float = 0.0
    """Highest of all candidates."""
    best_stability: float = 0.0
    """Highest of those whose predicted IoU passed."""

    def __add__(self, other: Diagnostics) -> Diagnostics:
        mine, theirs = asdict(self), asdict(other)
        return Diagnostics(
            **{name: max(mine[name], theirs[name]) if "best" in name else mine[name] + theirs[name] for name in mine}
        )

    def losses(self) -> dict[str, int]:
        """Masks taken by each filter, in the pipeline's order."""
        return {name: getattr(self, name) for name in _FILTERS}

    def to_json(self) -> dict[str, Any]:
        """All fields; `Diagnostics(**fields)` is the inverse."""
        return asdict(self)

    def explain(self) -> str:
        """One sentence: where the candidates went and, if none was kept, what to change."""
        taken = [f"{count} {_FILTERS[name][0]}" for name, count in self.losses().items() if count]
        story = f"{self.kept} of {self.candidates} candidate masks kept" + (f": {', '.join(taken)}" if taken else "")
        if self.kept or not taken:
            return story + "."
        names = [name for name, count in self.losses().items() if count]
        worst, last = max(names, key=self.losses().__getitem__), names[-1]
        return f"{story}; {' and '.join(self._advice(name) for name in dict.fromkeys((worst, last)))}."

    def _advice(self, name: str) -> str:
        best = {"failed_predicted_iou": self.best_predicted_iou, "failed_stability": self.best_stability}
        return _FILTERS[name][1] + (f" (best: {best[name]:.3f})" if name in best else "")
