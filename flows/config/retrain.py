"""Settings of `gigamask retrain`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.evaluation.config import GateSettings
from flows.config.load import build, read_given, to_tree
from stages.training.job import DataConfig


@dataclass(frozen=True, kw_only=True)
class RetrainSettings:
    """Settings of `gigamask retrain`: the training's, the data's and the gate's."""

    train: dict[str, Any] = field(default_factory=dict)
    """Fields of the recipe to change, such as `learning_rate`."""
    retrain: DataConfig = field(default_factory=DataConfig)
    gate: GateSettings = field(default_factory=GateSettings)


def load_retrain_settings(*, file: Path | None = None, assignments: Sequence[str] | None = None) -> RetrainSettings:
    """Load RetrainSettings from the sources that `flows.config.load` lists.

    Raises:
        ValueError: A setting is wrong; the message names the key, what was got and what is allowed.
    """
    return build(RetrainSettings, read_given(file, assignments, {}), start=to_tree(RetrainSettings()))
