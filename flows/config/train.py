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
    """Settings of `gigamask train`. The part `train` starts from a recipe; the part `data` starts from defaults."""

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
    """Load TrainingSettings from the sources that `flows.config.load` lists; `train` starts from the recipe.

    Args:
        sam: Settings of the network to train; the recipe's window and learning rates depend on the network.
        recipe: Name of the recipe.
        steps: Length of the training in steps; None for the recipe's own length.
        file: TOML file of settings; None for no file.
        assignments: Texts of the `--set` options; None for none.

    Raises:
        ValueError: A setting is wrong; the message names the key, what was got and what is allowed.
    """
    if recipe not in RECIPES:
        raise ValueError(f"recipe: got {recipe!r}; known recipes are {', '.join(RECIPES)}")
    chosen = RECIPES[recipe](sam) if steps is None else RECIPES[recipe](sam, steps)
    return build(TrainingSettings, read_given(file, assignments, {}), start={"train": to_tree(chosen)})
