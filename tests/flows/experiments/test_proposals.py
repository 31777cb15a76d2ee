"""`gigamask experiment proposals`: AR@1000 of a model and of the classical baseline, beside published figures."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from tests.paths import PHOTOS


@pytest.mark.slow
def test_the_command_measures_the_seed_and_felzenszwalbs_segments(tmp_path: Path) -> None:
    for file in (PHOTOS / "nuts").glob("nuts_0.*"):
        shutil.copy(file, tmp_path)
        if file.suffix != ".json":
            shutil.copy(file, tmp_path / f"new{file.suffix}")  # without labels
    quick = ["--data", str(tmp_path), "--points-per-side", "8", "--model", "seed", "--model", "felzenszwalb"]
    run = CliRunner().invoke(app, ["experiment", "proposals", *quick, "--json"])
    assert run.exit_code == 0, run.output
    seed, classical = json.loads(run.stdout)
    assert (seed["model"], classical["model"]) == ("seed", "felzenszwalb")
    assert 10 < seed["proposals_per_image"] <= 8 * 8 * 3
    assert 0 < seed["overall"]["ar_all"] <= 1
    assert seed["overall"]["masks_all"] == classical["overall"]["masks_all"] > 0
    assert seed["left_out"]["unlabelled_pictures"] == 1
    assert seed["published"][0]["figures"]["ar_all"] == 0.593
