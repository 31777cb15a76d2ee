"""Counts of what became of the generator's candidate masks, so that an empty result explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.automatic.filters import Filter


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Counts of the generator's candidate masks: those that each filter removed, and those kept.

    The counts in `taken` and the count `kept` add up to `candidates`. The operator + joins the diagnostics of several
    images.
    """

    candidates: int = 0
    """Number of masks that the network predicted: three for every point."""
    taken: Mapping[Filter, int] = field(default_factory=dict)
    """Number of masks that each filter removed, in the pipeline's order; a filter that is not given has 0."""
    kept: int = 0
    """Number of masks that passed every filter."""
    cleaned: int = 0
    """Number of kept masks that the clean-up of islands and holes changed."""
    best_predicted_iou: float = 0.0
    """Highest predicted IoU of all candidates."""
    best_stability: float = 0.0
    """Highest stability of the candidates that passed the filter on predicted IoU."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "taken", {each: self.taken.get(each, 0) for each in Filter})

    def __add__(self, other: Diagnostics) -> Diagnostics:
        return Diagnostics(
            candidates=self.candidates + other.candidates,
            taken={each: self.taken[each] + other.taken[each] for each in Filter},
            kept=self.kept + other.kept,
            cleaned=self.cleaned + other.cleaned,
            best_predicted_iou=max(self.best_predicted_iou, other.best_predicted_iou),
            best_stability=max(self.best_stability, other.best_stability),
        )

    def to_json(self) -> dict[str, Any]:
        """Make a flat JSON document, in which the count of each filter stands under the filter's name."""
        return {
            "candidates": self.candidates,
            **{each.value: self.taken[each] for each in Filter},
            "kept": self.kept,
            "cleaned": self.cleaned,
            "best_predicted_iou": self.best_predicted_iou,
            "best_stability": self.best_stability,
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Diagnostics:
        """Create diagnostics from a document that `to_json` made.

        Raises:
            TypeError: The document has a field of an unknown name.
        """
        others = {name: value for name, value in content.items() if name not in set(Filter)}
        return Diagnostics(taken={each: content[each] for each in Filter if each in content}, **others)

    def explain(self) -> str:
        """Describe in one sentence how many candidates were kept and how many each filter removed.

        If no candidate was kept, the sentence also says which setting to change.
        """
        losing = [each for each in Filter if self.taken[each]]
        losses = ", ".join(f"{self.taken[each]} {each.loss}" for each in losing)
        story = f"{self.kept} of {self.candidates} candidate masks kept" + (f": {losses}" if losing else "")
        if self.kept or not losing:
            return story + "."
        worst, last = max(losing, key=self.taken.__getitem__), losing[-1]
        return f"{story}; {' and '.join(self._advice(each) for each in dict.fromkeys((worst, last)))}."

    def _advice(self, losing: Filter) -> str:
        best = {Filter.FAILED_PREDICTED_IOU: self.best_predicted_iou, Filter.FAILED_STABILITY: self.best_stability}
        return losing.advice + (f" (best: {best[losing]:.3f})" if losing in best else "")
