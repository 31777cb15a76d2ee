"""A training shared by several Ray processes teaches what one process alone is taught."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch

from engine.model.weights import load_model, save_model
from engine.training.calibrate import CalibrationConfig
from engine.training.checkpoint import read_history
from engine.training.initialise import fresh_sam
from engine.training.peers import Peers
from engine.training.recipes import RECIPES
from stages.training import on_ray
from stages.training.job import DataConfig, TrainingJob
from stages.training.on_ray import RESULT_NAME, train_job_on_cluster
from stages.training.train_job import train_job
from stages.training.work_folder import PROGRESS_NAME
from storage.dataset import Dataset
from tests.engine.training.tiny import TINY_VIT
from tests.small_dataset import small_dataset
from tests.tiny_network import tiny_card

pytestmark = pytest.mark.slow

STEPS = 5


@pytest.fixture(autouse=True)
def ray_is_not_left_running() -> Iterator[None]:
    yield
    ray.shutdown()


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    """Layer norm alone, and plain products: then only the order of sums differs between one process and two."""
    dataset = small_dataset(tmp_path / "dataset")
    card = tiny_card(TINY_VIT, predicted_iou_threshold=0.1, stability_threshold=0.2)
    save_model(tmp_path / "tiny.safetensors", fresh_sam(TINY_VIT, 5).eval(), card)
    training = replace(
        RECIPES["paper"](TINY_VIT, STEPS),
        batch=replace(RECIPES["paper"](TINY_VIT, STEPS).batch, prompts=3),
        batch_size=4,
        masks_per_device=3,
        bf16=False,
        log_every=1,
    )
    return TrainingJob(
        dataset=dataset.uri,
        snapshot=dataset.snapshot().snapshot_id,
        parent=str(tmp_path / "tiny.safetensors"),
        name="child",
        train=training,
        data=DataConfig(
            scene_share=0.0, held_out_every=3, calibration=CalibrationConfig(images_per_source=2, prompts=2)
        ),
        work_folder=tmp_path / "alone",
    )


@pytest.mark.timeout(600)
def test_two_processes_have_the_loss_curve_of_one_with_the_same_global_batch(job: TrainingJob, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    alone = train_job(job, Peers(), print)
    logged: list[str] = []
    shared_job = replace(job, work_folder=tmp_path / "shared")
    shared = train_job_on_cluster(shared_job, workers=2, device="cpu", address=None, log=logged.append)

    curves = [read_history(folder) for folder in (job.work_folder, shared_job.work_folder)]
    assert [entry["step"] for entry in curves[1]] == list(range(STEPS))
    for one, two in zip(*curves, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3), "sums in another order, grown over the steps"
        assert two["best_iou"] == pytest.approx(one["best_iou"], abs=0.01)
    assert curves[0][-1]["loss"] != curves[0][0]["loss"]
    assert alone is not None
    assert shared.parent == alone.parent
    assert load_model(shared.weights).card.training["steps"] == STEPS
    assert json.loads((shared_job.work_folder / RESULT_NAME).read_text()) == asdict(shared)
    assert "on 2 x cpu" in logged[0]
    assert [line.split(":")[0] for line in logged if line.startswith("step")] == [
        f"step {number} of {STEPS}" for number in range(1, STEPS + 1)
    ]


def test_a_line_that_is_still_being_written_is_said_once_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "POLL_S", 0.01)
    logged: list[str] = []
    whole = "training Bäume\nstep 1\n".encode()
    broken_off = whole.index("ä".encode()) + 1
    with (
        on_ray._tail_log(SimpleNamespace(work_folder=tmp_path), logged.append),
        (tmp_path / PROGRESS_NAME).open("wb", buffering=0) as file,
    ):
        file.write(whole[:broken_off])
        time.sleep(0.2)
        file.write(whole[broken_off:])
    assert logged == ["training Bäume", "step 1"]


def test_what_is_wrong_with_the_job_is_said_before_ray_starts(job: TrainingJob, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 images does not divide among 3 processes"):
        train_job_on_cluster(job, workers=3, device="cpu", address=None, log=print)
    empty = Dataset.create(tmp_path / "empty")
    nothing = replace(job, dataset=empty.uri, snapshot=empty.snapshot().snapshot_id)
    with pytest.raises(ValueError, match="has no masks to train on"):
        train_job_on_cluster(nothing, workers=2, device="cpu", address=None, log=print)
    assert not ray.is_initialized()
