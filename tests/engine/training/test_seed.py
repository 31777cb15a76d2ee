"""Training the seed by a plain call: scenes and labelled images in, a checkpoint that is resumed out."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.scenes.batch import SceneBatch
from engine.training import seed
from engine.training.checkpoint import read_history
from engine.training.seed import SeedRecipe, fill_bank, train_seed
from tests.engine.training.tiny import TINY_BANK, TINY_SAM, TINY_TRAINING, square_scenes


@pytest.fixture
def tiny_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def scenes(number: int, count: int, device: str) -> SceneBatch:
        return square_scenes(number, count)

    recipe = SeedRecipe(sam=TINY_SAM, bank=TINY_BANK, training=TINY_TRAINING)
    monkeypatch.setattr(seed, "make_scenes", scenes)
    monkeypatch.setitem(seed.SEED_RECIPES, "cpu", recipe)


@pytest.mark.usefixtures("tiny_recipe")
def test_the_same_call_again_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    train_seed(tmp_path, steps=2, processes=1, device="cpu")
    assert [line["step"] for line in read_history(tmp_path)] == [0, 1]
    train_seed(tmp_path, steps=4, processes=1, device="cpu")
    assert [line["step"] for line in read_history(tmp_path)] == [0, 1, 2, 3]
    assert (tmp_path / "bank" / "chunk-000000").is_dir()


@pytest.mark.usefixtures("tiny_recipe")
def test_a_bank_is_filled_without_training(tmp_path: Path) -> None:
    fill_bank(tmp_path, 3, bank=tmp_path / "scenes", device="cpu")
    assert sorted(path.name for path in (tmp_path / "scenes").iterdir()) == [f"chunk-{k:06}" for k in range(3)]
    assert not read_history(tmp_path)


def test_an_unknown_recipe_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'tpu', expected one of cpu, gpu"):
        train_seed(tmp_path, recipe="tpu", device="cpu")


def test_the_seed_is_trained_without_the_command_lines_libraries() -> None:
    code = "import sys, engine.training.seed; print({'typer', 'pydantic', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
