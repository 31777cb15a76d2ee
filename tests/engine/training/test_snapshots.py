"""Snapshots of a dataset as training data: a stream of samples, and a source of windows."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import webdataset

from engine.training.data import WindowConfig
from engine.training.initialise import fresh_sam
from engine.training.snapshots import SnapshotImages, SnapshotSource, training_samples
from engine.training.train import train
from storage import rle
from storage.dataset import Dataset
from storage.plans import PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, image_id_of, image_key, mask_id_of
from tests.engine.training.tiny import TINY_SAM, TINY_TRAINING

SIDE = 64
EMPTY_IMAGE = 3
"""This one of the ten photographs has no masks."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ten photographs in three image shards, their masks by two models in mask shards of at most three images."""
    dataset = Dataset.create(tmp_path_factory.mktemp("data") / "dataset")
    shards = [PlannedShard(name=f"{number:06d}", inputs=(f"photos-{number}",)) for number in range(3)]
    plan = dataset.new_plan("images", shards, {})
    for shard, numbers in zip(plan.shards, (range(4), range(4, 8), range(8, 10)), strict=True):
        dataset.write_images(plan, shard, [photograph(number) for number in numbers])
    for model_id in ("one-1", "two-2"):
        write_masks(dataset, model_id)
    return dataset


@pytest.fixture(scope="module")
def snapshot(dataset: Dataset) -> str:
    return dataset.snapshot().snapshot_id


def photograph(number: int) -> tuple[ImageRecord, bytes]:
    """A photograph-like picture that depends on `number` alone."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    data = cv2.imencode(".jpg", cv2.resize(coarse, (SIDE, SIDE)))[1].tobytes()
    sha256 = hashlib.sha256(data).hexdigest()
    image_id = image_id_of(sha256)
    image = ImageRecord(
        image_id=image_id,
        key=image_key(image_id),
        height=SIDE,
        width=SIDE,
        format="jpg",
        nbytes=len(data),
        source=f"photos/{number}.jpg",
        source_sha256=sha256,
        stored_sha256=sha256,
        license="",
        country="",
    )
    return image, data


def write_masks(dataset: Dataset, model_id: str) -> None:
    runs = [(commit, start) for commit in dataset.image_shards() for start in range(0, commit.images, 3)]
    shards = [
        PlannedShard(name=f"{number:06d}", inputs=(commit.address, f"{start}:{min(start + 3, commit.images)}"))
        for number, (commit, start) in enumerate(runs)
    ]
    plan = dataset.new_plan("masks", shards, {"model_id": model_id})
    for shard, (commit, start) in zip(plan.shards, runs, strict=True):
        images = [image for image, _ in dataset.read_images(commit)][start : start + 3]
        masked = []
        for image in images:
            count = 0 if image.source == f"photos/{EMPTY_IMAGE}.jpg" else 2
            masks = []
            for ordinal in range(count):
                mask_HW = np.zeros((SIDE, SIDE), np.bool_)
                mask_HW[8 : 40 + 8 * ordinal, 8:40] = True
                runs_of_mask = rle.encode(mask_HW)
                masks.append(
                    MaskRecord(
                        mask_id=mask_id_of(plan.plan_id, shard.name, 0, image.image_id, ordinal),
                        image_id=image.image_id,
                        rle=runs_of_mask,
                        box_xyxy=rle.box_xyxy(runs_of_mask),
                        area_px=rle.area(runs_of_mask),
                        predicted_iou=0.5,
                        stability_score=0.75,
                        point_xy=(10.0, 20.0),
                        crop_xyxy=(0, 0, SIDE, SIDE),
                        provenance=Provenance(stage="fully_automatic", model_id=model_id, plan_id=plan.plan_id),
                    )
                )
            masked.append((image, masks))
        dataset.write_masks(plan, shard, masked, model_id=model_id)


def sources(samples: object) -> list[str]:
    return [sample.image.source for sample in samples]  # type: ignore[attr-defined]


def test_a_pass_gives_every_image_with_masks_once_with_all_its_masks(dataset: Dataset, snapshot: str) -> None:
    samples = list(training_samples(dataset, snapshot))
    assert sorted(sources(samples)) == sorted(f"photos/{number}.jpg" for number in range(10) if number != EMPTY_IMAGE)
    stored = {image.image_id: data for shard in dataset.image_shards() for image, data in dataset.read_images(shard)}
    for sample in samples:
        assert sample.data == stored[sample.image.image_id]
        assert Counter(mask.provenance.model_id for mask in sample.masks) == {"one-1": 2, "two-2": 2}
        for mask in sample.masks:
            assert mask == dataset.read_mask(sample.image.image_id, mask.mask_id)


def test_the_order_follows_from_the_seed(dataset: Dataset, snapshot: str) -> None:
    first, same, other = (sources(training_samples(dataset, snapshot, seed=seed)) for seed in (1, 1, 2))
    assert first == same
    assert first != other
    assert sorted(first) == sorted(other)


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 20])
def test_each_sample_goes_to_exactly_one_worker(dataset: Dataset, snapshot: str, workers: int) -> None:
    alone = {sample.position: sample.image.key for sample in training_samples(dataset, snapshot, seed=5)}
    shared = [
        (sample.position, sample.image.key)
        for worker in range(workers)
        for sample in training_samples(dataset, snapshot, seed=5, worker=worker, workers=workers)
    ]
    assert len(shared) == len(alone) == 9
    assert dict(shared) == alone


def test_a_stream_goes_on_behind_any_position_with_any_number_of_workers(dataset: Dataset, snapshot: str) -> None:
    whole = [(sample.position, sample.image.key) for sample in training_samples(dataset, snapshot, seed=3)]
    for start in range(11):
        rest = [
            (sample.position, sample.image.key) for sample in training_samples(dataset, snapshot, seed=3, start=start)
        ]
        assert rest == [each for each in whole if each[0] >= start]
    later = [
        sample.image.key
        for worker in range(2)
        for sample in training_samples(dataset, snapshot, seed=3, start=whole[4][0], worker=worker, workers=2)
    ]
    assert sorted(later) == sorted(key for _, key in whole[4:])


def test_masks_of_one_model_alone(dataset: Dataset, snapshot: str) -> None:
    samples = list(training_samples(dataset, snapshot, model_ids=["two-2"]))
    assert len(samples) == 9
    assert {mask.provenance.model_id for sample in samples for mask in sample.masks} == {"two-2"}
    assert list(training_samples(dataset, snapshot, model_ids=["it's none"])) == []


def test_withdrawn_masks_are_gone_from_later_snapshots_alone(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "dataset")
    plan = dataset.new_plan("images", [PlannedShard(name="000000", inputs=("photos",))], {})
    dataset.write_images(plan, plan.shards[0], [photograph(0), photograph(1)])
    write_masks(dataset, "one-1")
    before = dataset.snapshot().snapshot_id
    first, second = training_samples(dataset, before)
    gone = first.masks[0]
    dataset.withdraw([(gone.image_id, gone.mask_id), *((mask.image_id, mask.mask_id) for mask in second.masks)], "bad")
    after = dataset.snapshot().snapshot_id
    (left,) = training_samples(dataset, after)
    assert left.masks == first.masks[1:]
    assert [len(sample.masks) for sample in training_samples(dataset, before)] == [2, 2]


def test_samples_and_shards_are_what_the_webdataset_library_expects(dataset: Dataset, snapshot: str) -> None:
    shards = [
        str(Path(dataset.uri) / part.key)
        for plan in dataset.plans()
        for commit in dataset.commits(plan)
        for part in commit.tars()
        if plan.kind == "images"
    ]
    read = {each["__key__"]: each["jpg"] for each in webdataset.WebDataset(shards, shardshuffle=False)}
    assert read == {image.key: data for image, data in (photograph(number) for number in range(10))}
    stream = webdataset.DataPipeline(
        lambda: (sample.to_webdataset() for sample in training_samples(dataset, snapshot)),
        webdataset.decode("rgb8"),
        webdataset.to_tuple("__key__", "jpg", "json"),
    )
    pairs = list(stream)
    assert len(pairs) == 9
    for key, image_HW3, annotations in pairs:
        assert image_HW3.shape == (SIDE, SIDE, 3)
        assert annotations["image"]["file_name"] == f"{key}.jpg"
        assert len(annotations["annotations"]) == 4


def test_a_worker_that_is_none_of_them_is_refused(dataset: Dataset, snapshot: str) -> None:
    with pytest.raises(ValueError, match="worker 2 of 2: expected 0 to 1"):
        next(training_samples(dataset, snapshot, worker=2, workers=2))


def test_images_are_numbered_with_and_without_masks(dataset: Dataset, snapshot: str) -> None:
    images = SnapshotImages(dataset, snapshot)
    assert len(images) == 10
    assert sum(images.read(number) is None for number in range(10)) == 1
    positions = list(images.shuffled(seed=0))
    assert [position for position, _ in positions] == list(range(10))
    assert sorted(number for _, number in positions) == list(range(10))


def test_a_model_trains_on_a_snapshot(dataset: Dataset, snapshot: str, tmp_path: Path) -> None:
    source = SnapshotSource(dataset, snapshot)
    window = WindowConfig(side_px=32, zoom=(0.5, 1.0))
    cut = source.cut(np.random.default_rng(0), 0, window, 4)
    assert cut.image_HW3.shape == (32, 32, 3)
    assert cut.masks_NHW.shape == (4, 32, 32)
    torch.set_num_threads(1)
    losses: list[float] = []
    config = replace(TINY_TRAINING, total_steps=2)
    train(config, fresh_sam(TINY_SAM, 5), source, tmp_path, on_step=lambda _, scores: losses.append(float(scores.loss)))
    assert len(losses) == 2
    assert np.isfinite(losses).all()


def test_a_snapshot_without_masks_is_no_source(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "dataset")
    source = SnapshotSource(dataset, dataset.snapshot().snapshot_id)
    with pytest.raises(ValueError, match="no masks to train on"):
        source.cut(np.random.default_rng(0), 0, WindowConfig(side_px=32), 1)
