"""`gigamask train`, as a person runs it: killed, run again, and with what it cannot use."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.model.weights import load_model, save_model
from engine.training.checkpoint import read_history
from engine.training.initialise import fresh_sam
from flows.config.train import load_training_settings
from storage.dataset import Dataset
from tests.engine.training.tiny import TINY_SAM, TINY_VIT
from tests.small_dataset import small_dataset
from tests.tiny_network import tiny_card

pytestmark = pytest.mark.slow

QUICK = [
    "--set=train.checkpoint_every_s=0.0",
    "--set=train.log_every=1",
    "--set=train.batch_size=1",
    "--set=data.scene_share=0.0",
    "--set=data.held_out_every=3",
    "--set=data.calibration.images_per_source=2",
    "--set=data.calibration.prompts=2",
]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "dataset")


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    card = tiny_card(TINY_SAM, predicted_iou_threshold=0.1, stability_threshold=0.2)
    save_model(tmp_path / "tiny.safetensors", fresh_sam(TINY_SAM, 5).eval(), card)
    return tmp_path / "tiny.safetensors"


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.cli", "train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_training_that_was_killed_goes_on_with_the_same_command(
    dataset: Dataset, parent: Path, tmp_path: Path
) -> None:
    snapshot = dataset.snapshot().snapshot_id
    command = ["--dataset", dataset.uri, "--snapshot", snapshot, "--from", str(parent), "--name", "child"]
    command += ["--steps", "12", "--work", str(tmp_path / "work"), "--device", "cpu", "--json", *QUICK]
    killed = start(*command)
    assert killed.stderr is not None
    for line in killed.stderr:
        if line.startswith("step 3 "):
            break
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    (work,) = (path.parent for path in (tmp_path / "work").rglob("state.pt"))

    again = start(*command)
    out, err = again.communicate(timeout=280)
    assert again.returncode == 0, err
    steps = [int(number) for number in re.findall(r"^step (\d+) of 12: ", err, re.MULTILINE)]
    assert steps == list(range(steps[0], 13))
    assert steps[0] >= 3, "it did not begin anew"
    assert [entry["step"] for entry in read_history(work)] == list(range(12))
    answer = json.loads(out)
    model = load_model(answer["weights"])
    assert model.model_id == answer["model_id"]
    assert model.card.name == "child"
    assert model.card.parent == answer["parent"] == load_model(parent).model_id
    assert model.card.training["config"]["batch_size"] == 1


def test_settings_start_from_the_recipe_for_the_network() -> None:
    seed = load_training_settings(TINY_SAM, "seed", 50, assignments=["train.batch.prompts=3"])
    assert (seed.train.total_steps, seed.train.batch.prompts, seed.train.optimizer) == (50, 3, "muon")
    assert seed.train.phases[0].window.side_px == TINY_SAM.input_side
    paper = load_training_settings(TINY_VIT, "paper", None, assignments=["data.model_ids=['a-1']"])
    assert (paper.train.total_steps, paper.train.optimizer, paper.train.repeats_mask) == (90_000, "adamw", True)
    assert paper.data.model_ids == ("a-1",)


@pytest.mark.parametrize(
    ("recipe", "assignment", "message"),
    [
        ("best", "train.total_steps=1", "recipe: got 'best'; known recipes are seed, retraining, paper"),
        ("seed", "train.learning_rat=1", "unknown key train.learning_rat; did you mean train.learning_rate"),
        ("seed", "train.batch.prompt=1", "unknown key train.batch.prompt; did you mean train.batch.prompts"),
        ("seed", "data.scene_share=2", "scene_share 2.0"),
        ("seed", "train.optimizer=sgd", "train.optimizer: got 'sgd'"),
    ],
)
def test_wrong_settings_are_refused(recipe: str, assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_training_settings(TINY_SAM, recipe, None, assignments=[assignment])


def test_a_clusters_device_must_be_said(tmp_path: Path) -> None:
    process = start("--dataset", str(tmp_path), "--snapshot", "any", "--ray-address", "auto")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "--ray-address needs --device" in " ".join(errors.split())
