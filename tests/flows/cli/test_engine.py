"""`gigamask engine`: what it asks, what it refuses, and the policy of one evening."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.engine import _Evening, _hold_out, _list_failures, _policy
from flows.config.serve import load_serve_settings
from flows.schedules.deployments import list_deployments
from storage.workspace.workspace import Workspace
from tests.small_dataset import small_dataset


def test_the_policy_of_an_evening_runs_the_data_engine_alone() -> None:
    evening = _Evening(dataset="masks", hours=1.5, about='Every "leaf",\nlarge ones first')
    settings = load_serve_settings(assignments=_policy(evening))
    assert settings.engine.guidelines == evening.about
    assert settings.engine.max_person_hours == 1.5
    assert [each.name for each in list_deployments(settings)] == ["data-engine"]


def test_a_missing_folder_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "engine", str(tmp_path / "photos")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "no such file or folder" in done.stderr


def test_at_a_terminal_three_questions_are_asked(tmp_path: Path) -> None:
    photos, taken = tmp_path / "leaves", tmp_path / "taken"
    photos.mkdir()
    taken.mkdir()
    (photos / "leaf.jpg").touch()
    (taken / "notes.txt").write_text("mine")
    here, there = pty.openpty()
    command = [sys.executable, "-m", "flows.cli", "engine", str(photos)]
    process = subprocess.Popen(command, stdin=there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path)
    os.write(here, f"{taken}\n0.5\nleaves\n".encode())
    output = process.communicate(timeout=120)[0].decode()
    os.close(here)
    os.close(there)

    # The answers are taken, and a folder that holds something else is refused
    assert "Where do the masks go? [leaves-masks]" in output
    assert f"{taken}, 0.5 h: leaves" in output
    assert "not empty and no dataset" in output
    assert process.returncode == 1
    assert (taken / "notes.txt").read_text() == "mine"
    assert len(list(taken.iterdir())) == 1


def test_a_small_folder_holds_out_more_and_what_was_chosen_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = small_dataset(tmp_path / "dataset")  # of 10 images
    dataset.fold()
    ids = dataset.query("SELECT image_id FROM images")["image_id"].to_pylist()

    # Too few photos for the gate: nothing is chosen for good
    assert _hold_out(dataset, load_serve_settings(assignments=["retrain.gate.gate.min_images=6"])) == 5
    assert "of 10 photos 6 cannot be held out" in capfd.readouterr().err
    assert dataset.handovers.find("held-out") is None

    # As many as are wanted on both sides, now and later
    chosen = _hold_out(dataset, load_serve_settings(assignments=["retrain.gate.gate.min_images=3"]))
    held_out = sum(image_id % chosen == 0 for image_id in ids)
    assert 3 <= held_out <= 7
    assert _hold_out(dataset, load_serve_settings(assignments=["retrain.gate.gate.min_images=6"])) == chosen


def test_work_of_the_engine_that_failed_is_told_with_its_error(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "workspace.sqlite") as workspace:
        for job, is_failed in (("retraining", True), ("masks", False)):
            token = workspace.firings.take(job, "40 masks", "test")
            assert token is not None
            workspace.firings.end(token, {"error": "ValueError: no"} if is_failed else {}, failed=is_failed)
        assert _list_failures(workspace) == ["engine: retraining failed, attempt 1 of 10 [40 masks]: ValueError: no"]
