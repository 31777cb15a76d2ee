"""Settings of `gigamask train`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.model.config import SamConfig
from engine.training.recipes import RECIPES
from engine.training.train import TrainConfig
from flows.config.load import build, read_given, to_tree
from stages.training.job import DataConfig


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a training; `train` starts from a recipe."""

    train: TrainConfig
    data: DataConfig = field(default_factory=DataConfig)


def load_training_settings(
    sam: SamConfig,
    recipe: str,
    steps: int | None,
    *,
    file: Path | None = None,
    assignments: Sequence[str] | None = None,
) -> TrainingSettings:
    """Load the settings of a training in the order that `flows.config.load` states; `train` starts from the recipe.

    Args:
        sam: the network to train, which decides over the recipe's window and rates.
        steps: length of the training; None: the recipe's own.

    Raises:
        ValueError: names the key, what was got and what is allowed.
    """
    if recipe not in RECIPES:
        raise ValueError(f"recipe: got {recipe!r}; known recipes are {', '.join(RECIPES)}")
    chosen = RECIPES[recipe](sam) if steps is None else RECIPES[recipe](sam, steps)
    return build(TrainingSettings, read_given(file, assignments, {}), start={"train": to_tree(chosen)})
