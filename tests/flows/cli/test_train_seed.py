"""`gigamask train-seed` hands its options to the seed's training."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.training import seed
from flows.cli.main import app


def test_options_reach_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(seed, "train_seed", lambda folder, **options: calls.append((folder, options)))
    arguments = ["train-seed", str(tmp_path), "--photos", "a", "--photos", "b", "--steps", "7", "--device", "cpu"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    ((folder, options),) = calls
    assert folder == tmp_path
    assert options["photos"] == [Path("a"), Path("b")]
    assert (options["steps"], options["device"], options["recipe"], options["processes"]) == (7, "cpu", "cpu", None)


def test_fill_only_makes_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(seed, "fill_bank", lambda folder, chunks, **options: calls.append((folder, chunks)))
    assert CliRunner().invoke(app, ["train-seed", str(tmp_path), "--fill", "3"]).exit_code == 0
    assert calls == [(tmp_path, 3)]
