"""The whole engine with simulated annotators, on a tiny network: rounds, a control, the gate, and going on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.model.weights import save_model
from engine.training.initialise import fresh_sam
from storage.dataset import Dataset
from tests.engine.training.tiny import TINY_SAM
from tests.flows.loop.squares import write_squares
from tests.tiny_network import tiny_card

QUICK = [
    "noc=false",
    "measured_images=2",
    "retrain.train.batch_size=1",
    "retrain.retrain.calibration.images_per_source=2",
    "retrain.retrain.calibration.prompts=2",
    "retrain.gate.gate.known_scenes=2",
    "retrain.gate.gate.min_images=1",
]


def run_loop(folder: Path) -> dict[str, Any]:
    """Run `gigamask loop` from a tiny network, since training the seed would take minutes."""
    command = [sys.executable, "-m", "flows.cli", "loop", "--json", "--model", str(folder / "tiny.safetensors")]
    command += ["--data", str(folder / "data"), "--steps", "2", "--work", str(folder / "work")]
    command += [part for each in QUICK for part in ("--set", each)]
    environment = os.environ | {"HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.timeout(900)
def test_a_loop_measures_new_masks_beside_a_control_and_goes_on(tmp_path: Path) -> None:
    save_model(tmp_path / "tiny.safetensors", fresh_sam(TINY_SAM, 5).eval(), tiny_card(TINY_SAM))
    write_squares(tmp_path / "data", 12)
    result = run_loop(tmp_path)
    assert [(arm["round"], arm["arm"]) for arm in result["rounds"]] == [(1, "new masks"), (1, "control")]
    new, control = result["rounds"]
    assert new["model_id"] != control["model_id"]
    assert (new["decision"], control["decision"]) != (None, None)
    assert new["masks"] > 0
    for arm in result["rounds"]:
        assert arm["simulated_seconds_per_mask"] > 0
        assert arm["simulated_seconds_per_mask_interval"] is not None
        assert arm["noc85"] is None
        low, high = arm["miou_3_interval"]
        assert low <= arm["miou_3"] <= high
    gain = result["gain_over_control"]
    assert gain["miou_1"] == pytest.approx(new["miou_1"] - control["miou_1"], abs=1e-4)

    # The rounds are closed, the decision is recorded, and the same loop again does no work twice
    dataset = Dataset.open(tmp_path / "work" / "seed-0" / "pool" / "dataset")
    assert [each.decision.value for each in dataset.promotions.history()] == ["start", new["decision"]]
    assert dataset.maintenance.verify().faults == ()
    models, snapshots = dataset.models.ids(), [each.snapshot_id for each in dataset.snapshots()]
    again = run_loop(tmp_path)
    assert [arm["model_id"] for arm in again["rounds"]] == [arm["model_id"] for arm in result["rounds"]]
    assert again["gain_over_control"] == gain
    assert (dataset.models.ids(), [each.snapshot_id for each in dataset.snapshots()]) == (models, snapshots)
