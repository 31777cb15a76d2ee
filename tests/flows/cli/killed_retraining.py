"""`gigamask retrain`, as a person runs it: killed with kill -9, run again, and with nothing new to do."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.dataset import Dataset
from storage.workspace.workspace import Workspace
from tests.stages.training.rounds_to_train import dataset_with_a_round

pytestmark = pytest.mark.timeout(900)

QUICK = [
    "--set=train.checkpoint_every_s=0.0",
    "--set=train.log_every=1",
    "--set=train.batch_size=1",
    "--set=retrain.held_out_every=3",
    "--set=retrain.calibration.images_per_source=2",
    "--set=retrain.calibration.prompts=2",
    "--set=gate.gate.known_scenes=2",
    "--set=gate.gate.min_images=1",
    "--set=gate.gate.max_latency_ratio=100",
]


def start(home: Path, dataset: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.cli", "retrain", "--dataset", dataset, "--work", str(home / "work")]
    command += ["--steps", "8", "--json", *QUICK]
    environment = os.environ | {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, start_new_session=True, **pipes)


def test_a_retraining_that_was_killed_goes_on_decides_once_and_then_has_nothing_new_to_measure(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "workspace.sqlite", max_held=100) as workspace:
        workspace.users.add("ann", "annotator")
        dataset = dataset_with_a_round(tmp_path, workspace)
    killed = start(tmp_path, dataset.uri)
    assert killed.stderr is not None
    for line in killed.stderr:
        if "step 4" in line:
            os.killpg(killed.pid, signal.SIGKILL)  # with Prefect's server
            break
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert len(dataset.models.ids()) == 1

    told, errors = _finish(start(tmp_path, dataset.uri))
    assert "step 2 " not in errors, "the training went on from its checkpoint"
    assert told["decision"] in ("refusal", "promotion")
    assert told["generation"] == 2
    assert len(told["rounds"]) == 1
    assert [check for check in told["checks"] if "the gain at 3 clicks" in check]
    assert len(dataset.models.ids()) == 2

    again, errors = _finish(start(tmp_path, dataset.uri))
    if told["decision"] == "refusal":
        assert again == told
        assert "generation 2 has decided that already" in errors
    else:
        assert again["decision"] == "nothing_new"
    assert len(Dataset.open(dataset.uri).promotions.history()) == 2
    assert dataset.maintenance.verify().faults == ()


def _finish(process: subprocess.Popen[str]) -> tuple[dict, str]:  # type: ignore[type-arg]
    out, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    return json.loads(out), errors
