"""Settings of `gigamask evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.automatic.config import GenerateConfig
from engine.evaluation.config import EvaluationConfig
from flows.config.load import build, preset_tree, read_given

BASELINE = "felzenszwalb"
"""Name of the classical method that every model is compared with unless the user names another model."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of `gigamask evaluate`: preset, generator, automatic masks, and the model to compare with."""

    evaluate: EvaluationConfig = field(default_factory=EvaluationConfig)
    preset: Literal["grid", "paper"] = "grid"
    """Preset that `generate` starts from: `grid` is one 32x32 grid, `paper` adds 4 + 16 crops (appendix B)."""
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    """Settings of the mask generator, for automatic masks."""
    automatic: bool = False
    """Whether to measure automatic masks in addition to clicks."""
    beside: str | None = BASELINE
    """Name of the model to compare each model with; None for no comparison, which users write as "none"."""


def load_evaluate_config(
    *, file: Path | None = None, assignments: Sequence[str] | None = None, **options: Any
) -> EvaluateConfig:
    """Load an EvaluateConfig from the sources that `flows.config.load` lists; `generate` starts from the preset.

    Raises:
        ValueError: A setting is wrong; the message names the key, what was got and what is allowed.
    """
    given = read_given(file, assignments, options)
    if given.get("beside") == "none":
        given["beside"] = None
    return build(EvaluateConfig, given, start={"generate": preset_tree(given.get("preset", EvaluateConfig.preset))})
