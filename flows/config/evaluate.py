"""Settings of `gigamask evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.automatic.config import GenerateConfig
from engine.evaluation.config import EvaluationConfig
from flows.config.load import build, preset_tree, read_given

BASELINE = "felzenszwalb"
"""Name of the classical segmentation that stands beside every model unless another is named."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of an evaluation of models."""

    evaluate: EvaluationConfig = field(default_factory=EvaluationConfig)
    preset: Literal["grid", "paper"] = "grid"
    """Starting point of `generate`, as in `gigamask run`."""
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    """Settings of the automatic masks."""
    automatic: bool = False
    """Whether to measure automatic masks, too."""
    beside: str | None = BASELINE
    """Model to compare each model with; None, or "none" where it is given, for no comparison."""


def load_evaluate_config(
    *, file: Path | None = None, assignments: Sequence[str] | None = None, **options: Any
) -> EvaluateConfig:
    """Load an EvaluateConfig in the order that `flows.config.load` states; `generate` starts from the preset.

    Raises:
        ValueError: names the key, what was got and what is allowed.
    """
    given = read_given(file, assignments, options)
    if given.get("beside") == "none":
        given["beside"] = None
    return build(EvaluateConfig, given, start={"generate": preset_tree(given.get("preset", EvaluateConfig.preset))})
