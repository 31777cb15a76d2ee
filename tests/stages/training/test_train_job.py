"""A snapshot and a model in, a new version of the model out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.model.weights import load_model, save_model
from engine.training.calibrate import CalibrationConfig
from engine.training.checkpoint import read_history
from engine.training.initialise import fresh_sam
from engine.training.peers import Peers
from engine.training.recipes import RECIPES
from engine.training.train import TrainConfig
from stages.training.job import DataConfig, TrainingJob, load_parent
from stages.training.train_job import train_job
from storage.dataset import Dataset
from storage.errors import NotFound
from tests.engine.training.tiny import TINY_SAM
from tests.small_dataset import small_dataset
from tests.tiny_network import tiny_card

ASKED = CalibrationConfig(images_per_source=6, prompts=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    torch.set_num_threads(1)
    return small_dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    card = tiny_card(TINY_SAM, predicted_iou_threshold=0.1, stability_threshold=0.2)
    sam = fresh_sam(TINY_SAM, 5).eval()
    with torch.no_grad():
        sam.mask_decoder.iou_prediction_head.layers[-1].weight.mul_(10)  # so that its answers vary
    save_model(path, sam, card)
    return path


def short_training(steps: int = 6) -> TrainConfig:
    return replace(RECIPES["seed"](TINY_SAM, steps), batch_size=2, checkpoint_every_s=0.0, log_every=1)


def make_job(dataset: Dataset, parent: Path | str, work: Path, *, steps: int = 6) -> TrainingJob:
    return TrainingJob(
        dataset=dataset.uri,
        snapshot=dataset.snapshot().snapshot_id,
        parent=str(parent),
        name="child",
        train=short_training(steps),
        data=DataConfig(scene_share=0.0, held_out_every=3, calibration=ASKED),
        work_folder=work,
    )


def test_a_version_has_weights_card_history_and_curves(dataset: Dataset, parent: Path, tmp_path: Path) -> None:
    logged: list[str] = []
    trained = train_job(make_job(dataset, parent, tmp_path / "work"), Peers(), logged.append)
    assert trained is not None
    assert trained.model_id in dataset.models.ids()
    folder = Path(dataset.uri) / "models" / trained.model_id
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.svg",
        "history.jsonl",
        "model.json",
        "model.safetensors",
    ]
    model = load_model(trained.weights)
    assert model.model_id == trained.model_id
    assert model.card.parent == load_model(parent).model_id
    assert (model.card.predicted_iou_threshold, model.card.license) == (0.1, "CC0-1.0")
    told = model.card.training
    assert told["snapshot"] == trained.snapshot
    assert told["config"]["total_steps"] == len(told["curves"]) == len(read_history(folder)) == 6
    assert told["images"]["trained"] + told["images"]["held_out"] == 9
    assert model.card.metrics["held_out_first_click"]["after"]["chosen"] == trained.chosen_after
    changed = [
        not torch.equal(weight, old)
        for weight, old in zip(model.sam.parameters(), load_model(parent).sam.parameters(), strict=True)
    ]
    assert sum(changed) > 0.9 * len(changed)
    assert (folder / "curves.svg").read_text().count("<path") > 10
    assert sum("images/s, loss" in line for line in logged) == 6

    fetched = dataset.models.fetch(trained.model_id, tmp_path / "fetched")
    assert fetched.read_bytes() == Path(trained.weights).read_bytes()
    assert load_model(fetched).card == model.card
    with pytest.raises(NotFound, match=f"no model 'other'; there are: .*{trained.model_id}"):
        dataset.models.fetch("other", tmp_path)


def test_a_version_trains_further_under_its_id(dataset: Dataset, parent: Path, tmp_path: Path) -> None:
    first = train_job(make_job(dataset, parent, tmp_path / "first", steps=2), Peers(), print)
    assert first is not None
    second = train_job(make_job(dataset, first.model_id, tmp_path / "second", steps=2), Peers(), print)
    assert second is not None
    assert second.parent == first.model_id != second.model_id


@pytest.mark.slow
def test_a_job_that_was_stopped_goes_on_and_ends_with_the_same_version(
    dataset: Dataset, parent: Path, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if line.startswith("step 3"):
            raise KeyboardInterrupt

    undisturbed = train_job(make_job(dataset, parent, tmp_path / "undisturbed"), Peers(), print)
    stopped = make_job(dataset, parent, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        train_job(stopped, Peers(), stop)
    logged: list[str] = []
    resumed = train_job(stopped, Peers(), logged.append)
    assert [line.split(" of ")[0] for line in logged if line.startswith("step")] == [f"step {n}" for n in (3, 4, 5, 6)]
    assert resumed is not None
    assert undisturbed is not None
    assert resumed.model_id == undisturbed.model_id


def test_scenes_are_mixed_in_and_calibrated_on(dataset: Dataset, parent: Path, tmp_path: Path) -> None:
    job = make_job(dataset, parent, tmp_path / "work", steps=1)
    many = CalibrationConfig(images_per_source=3, prompts=12)
    trained = train_job(replace(job, data=replace(job.data, scene_share=0.5, calibration=many)), Peers(), print)
    assert trained is not None
    calibration = load_model(trained.weights).card.training["calibration"]
    assert calibration["clicks"] == {"scenes": 36, "held out": 36}
    assert len(calibration["slopes_and_offsets"]) == 4


def test_a_head_that_hardly_varies_is_left_as_trained_and_the_card_says_so(
    dataset: Dataset, tmp_path: Path, parent: Path
) -> None:
    model = load_model(parent)
    with torch.no_grad():
        for weight in model.sam.mask_decoder.iou_prediction_head.layers[-1].parameters():
            weight.zero_()
    flat = tmp_path / "flat.safetensors"
    save_model(flat, model.sam, model.card)
    logged: list[str] = []
    trained = train_job(make_job(dataset, flat, tmp_path / "work", steps=1), Peers(), logged.append)
    assert trained is not None
    assert "too little to calibrate" in load_model(trained.weights).card.training["calibration"]["left_out"]
    assert any("stays as trained" in line for line in logged)


def test_what_cannot_be_trained_is_refused_with_one_clear_message(
    dataset: Dataset, parent: Path, tmp_path: Path
) -> None:
    job = make_job(dataset, parent, tmp_path / "work", steps=1)
    with pytest.raises(NotFound, match=f"no snapshot 's9'; there are: {job.snapshot}"):
        train_job(replace(job, snapshot="s9"), Peers(), print)
    with pytest.raises(ValueError, match=r"unknown model 'nobody'.*; models of "):
        load_parent(dataset, "nobody", tmp_path)
    with pytest.raises(ValueError, match="no masks by none-0 to train on; `gigamask masks` makes some"):
        train_job(replace(job, data=replace(job.data, model_ids=("none-0",))), Peers(), print)
    with pytest.raises(ValueError, match=r"9 would train and 0 be held out .* give another --set data.held_out_every"):
        train_job(replace(job, data=replace(job.data, held_out_every=10**9)), Peers(), print)
    empty = Dataset.create(tmp_path / "empty")
    with pytest.raises(ValueError, match="has no masks to train on"):
        train_job(make_job(empty, parent, tmp_path / "work"), Peers(), print)
    with pytest.raises(ValueError, match=r"scene_share 1\.0"):
        DataConfig(scene_share=1.0)


def test_a_work_folder_of_another_network_is_refused(dataset: Dataset, parent: Path, tmp_path: Path) -> None:
    job = make_job(dataset, parent, tmp_path / "work", steps=1)
    train_job(job, Peers(), print)
    other = tmp_path / "other.safetensors"
    sizes = replace(TINY_SAM, decoder_mlp_width=48)
    save_model(other, fresh_sam(sizes, 5).eval(), replace(load_model(parent).card, config=sizes))
    with pytest.raises(ValueError, match="other sizes than asked for"):
        train_job(replace(job, parent=str(other)), Peers(), print)
