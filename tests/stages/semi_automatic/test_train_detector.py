"""Training of a detector on a dataset's snapshot and on scenes, published as a version of the dataset."""

import json
from pathlib import Path

import pytest

from engine.detector.card import KIND
from engine.detector.recipe import DetectorDataConfig, load_detector_data
from engine.detector.train import DetectorTraining
from stages.semi_automatic.train_detector import (
    find_dataset_detector,
    held_out_images,
    train_detector_on_photos,
    train_detector_on_snapshot,
)
from storage.dataset import Dataset
from storage.errors import NotFound
from tests.engine.detector.square_detector import square_model
from tests.paths import PHOTOS
from tests.small_dataset import small_dataset

QUICK = DetectorTraining(windows=16, passes=30, batch_size=8, learning_rate=5e-3, min_mask_px=200)
MIX = DetectorDataConfig(scene_fraction=0.25, held_out_every=3)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "dataset")


@pytest.mark.slow
def test_a_detector_of_a_snapshot_is_published_and_found_by_its_id(dataset: Dataset, tmp_path: Path) -> None:
    snapshot, lines = dataset.snapshot().snapshot_id, list[str]()
    trained = train_detector_on_snapshot(
        dataset,
        snapshot,
        square_model(),
        work_folder=tmp_path / "work",
        name="mine",
        training=QUICK,
        data=MIX,
        log=lines.append,
    )
    assert dataset.models.ids() == [trained.detector_id]
    assert trained.detector_id.startswith("mine-")
    assert trained.recall_100 >= 0.5, "all images have the same two boxes, twice"
    assert any("step 60 of 60" in line for line in lines)
    detector = find_dataset_detector(trained.detector_id, square_model(), dataset, tmp_path / "copies")
    assert detector.detector_id == trained.detector_id
    assert detector.card.training["data"]["snapshot"] == snapshot
    assert detector.card.metrics["held_out"]["recall"]["images"] == trained.held_out_images
    card = json.loads((Path(dataset.uri) / "models" / trained.detector_id / "model.json").read_text())
    assert card["kind"] == KIND
    with pytest.raises(ValueError, match=f"unknown detector 'other'.*{trained.detector_id}"):
        find_dataset_detector("other", square_model(), dataset, tmp_path / "copies")


@pytest.mark.slow
def test_scenes_alone_can_train_one_and_equal_trainings_give_equal_ids(tmp_path: Path) -> None:
    quick = DetectorTraining(windows=32, passes=4, batch_size=8, min_mask_px=30)
    ids = [
        train_detector_on_photos(
            (), square_model(), work_folder=tmp_path / name, training=quick, log=lambda line: None
        ).detector_id
        for name in ("a", "b")
    ]
    assert ids[0] == ids[1]


def test_held_out_images_never_train(dataset: Dataset) -> None:
    snapshot = dataset.snapshot().snapshot_id
    held_out = held_out_images(dataset, snapshot, 3)
    assert held_out
    assert all(image.image_id % 3 == 0 and image.num_masks == 4 for image in held_out)
    folder = load_detector_data([PHOTOS], DetectorDataConfig(held_out_every=5))
    assert [image.domain for image in folder.held_out] == ["facade"]
    assert len(folder.described["trained"]) == 1
    assert not {f"{image.domain}/{image.stem}" for image in folder.held_out} & set(folder.described["trained"])


def test_what_cannot_be_trained_on_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    snapshot = dataset.snapshot().snapshot_id
    with pytest.raises(NotFound):
        train_detector_on_snapshot(dataset, "none", square_model(), work_folder=tmp_path)
    every = DetectorDataConfig(held_out_every=10**17)
    with pytest.raises(ValueError, match="9 would train and 0 be held out"):
        train_detector_on_snapshot(dataset, snapshot, square_model(), work_folder=tmp_path, data=every)
    with pytest.raises(ValueError, match="scene_fraction 2"):
        DetectorDataConfig(scene_fraction=2)
    with pytest.raises(ValueError, match="give another --held-out-every"):
        load_detector_data([PHOTOS / "nuts"], MIX)
