"""Snapshots of a dataset as training data: a stream of samples, and a source of windows."""

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from engine.training.initialise import fresh_sam
from engine.training.sources import WindowConfig
from engine.training.train import train
from stages.training.snapshot_source import (
    STEPS_A_SET,
    SnapshotImages,
    SnapshotSource,
    SplitSide,
    count_images,
    training_samples,
)
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange, MaskKey
from storage.protocol.plans import PlannedShard
from tests.engine.training.tiny import TINY_SAM, TINY_TRAINING
from tests.image_records import photo_key
from tests.small_dataset import EMPTY_IMAGE, SIDE, photograph, small_dataset, write_masks


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(scope="module")
def snapshot(dataset: Dataset) -> str:
    return dataset.snapshot().snapshot_id


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
    plan = dataset.new_plan("images", [PlannedShard(name="000000", inputs=(photo_key("photos"),))], {})
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


def test_erased_images_are_passed_over_in_snapshots_from_before_and_after(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    before = dataset.snapshot().snapshot_id
    opened = SnapshotImages(dataset, before)
    gone = photograph(5)[0]
    dataset.erase([gone.image_id], "a person's wish")
    after = dataset.snapshot().snapshot_id
    expected = sorted(f"photos/{number}.jpg" for number in range(10) if number not in (5, EMPTY_IMAGE))
    assert sorted(sources(training_samples(dataset, before))) == expected
    assert sorted(sources(training_samples(dataset, after))) == expected
    read = [opened.read(number) for number in range(len(opened))]  # opened before the erasure
    assert sorted(sources(sample for sample in read if sample)) == expected
    assert (len(SnapshotImages(dataset, before)), len(SnapshotImages(dataset, after))) == (10, 9)
    assert sum(count_images(dataset, after, held_out_every=3)) == 8


def test_masks_of_amendments_are_trained_on(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    image = photograph(0)[0]
    old, *_ = dataset.masks_of_image(image.image_id).to_pylist()
    (shard, *_) = dataset.image_shards()
    place = dataset.image_ids_in(shard).index(image.image_id)
    inputs = (
        ImageRange(shard=shard.address, start=place, stop=place + 1),
        MaskKey(image_id=image.image_id, mask_id=old["mask_id"]),
    )
    plan = dataset.new_plan("amendments", [PlannedShard.from_inputs(*inputs)], {"reason": "better"})
    mask = replace(dataset.read_mask(image.image_id, old["mask_id"]), mask_id=77)
    dataset.write_masks(plan, plan.shards[0], [(image, [mask])])
    snapshot = dataset.snapshot().snapshot_id
    (sample,) = [each for each in training_samples(dataset, snapshot) if each.image.image_id == image.image_id]
    assert 77 in {mask.mask_id for mask in sample.masks}
    assert len(sample.masks) == 4


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


def test_the_held_out_part_and_the_rest_are_the_whole_and_share_nothing(dataset: Dataset, snapshot: str) -> None:
    counts = count_images(dataset, snapshot, held_out_every=3)
    images = SnapshotImages(dataset, snapshot)
    held_out, rest = (SplitSide(held_out_every=3, held_out=each) for each in (True, False))
    ids = [images.image_id(number) for number in range(10) if images.read(number) is not None]
    assert (sum(each in rest for each in ids), sum(each in held_out for each in ids)) == counts
    assert sum(counts) == 9
    assert 0 < counts[1] < 9
    assert count_images(dataset, snapshot, held_out_every=3, model_ids=["it's none"]) == (0, 0)


def test_a_source_of_a_part_draws_from_it_alone_also_in_another_process(dataset: Dataset, snapshot: str) -> None:
    window = WindowConfig(side_px=64, zoom=(1.0, 1.0))
    seen = []
    for held_out in (True, False):
        source = SnapshotSource(dataset, snapshot, side=SplitSide(held_out_every=3, held_out=held_out))
        pickled = pickle.loads(pickle.dumps(source))
        drawn = set()
        for seed in range(60):
            cut, again = (each.cut(np.random.default_rng(seed), 0, window, 1) for each in (source, pickled))
            assert np.array_equal(cut.image_HW3, again.image_HW3)
            drawn.add(min(cut.image_HW3.tobytes(), cut.image_HW3[:, ::-1].tobytes()))
        seen.append(drawn)
    held, rest = seen
    assert not held & rest
    assert (len(rest), len(held)) == count_images(dataset, snapshot, held_out_every=3)


def test_a_source_of_many_shards_draws_from_a_few_at_a_time_and_from_all_in_turn(
    dataset: Dataset, snapshot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.training.snapshot_source.SHARDS_AT_HAND", 1)
    source = SnapshotSource(dataset, snapshot)
    queries = []
    query = dataset.query
    monkeypatch.setattr(dataset, "query", lambda *asked: (queries.append(asked), query(*asked))[1])
    window = WindowConfig(side_px=32, min_mask_px=1)
    rng = np.random.default_rng(0)
    for step in range(STEPS_A_SET):
        source.cut(rng, step, window, 2)
    assert len(queries) == 2  # the rows of one shard's images, and of their masks
    for turn in (0, 3, 6):
        assert sorted(shard for k in range(3) for shard in source.shards_at((turn + k) * STEPS_A_SET)) == [0, 1, 2]
    again = SnapshotSource(dataset, snapshot)
    assert [again.shards_at(step * STEPS_A_SET) for step in range(9)] == [
        source.shards_at(step * STEPS_A_SET) for step in range(9)
    ]


def test_a_source_of_one_models_masks_or_of_a_part_finds_them_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.training.snapshot_source.SHARDS_AT_HAND", 1)
    dataset = small_dataset(tmp_path / "dataset")
    write_masks(dataset, "rare-3", of_shards=slice(1, 2))
    snapshot = dataset.snapshot().snapshot_id
    window = WindowConfig(side_px=32, min_mask_px=1)
    image, _ = next(iter(dataset.read_images(dataset.image_shards()[1])))
    one_shard_holds = SplitSide(held_out_every=image.image_id, held_out=True)
    for chosen in ({"model_ids": ("rare-3",)}, {"side": one_shard_holds}):
        source = SnapshotSource(dataset, snapshot, **chosen)
        for step in (0, STEPS_A_SET, 2 * STEPS_A_SET):
            assert source.cut(np.random.default_rng(step), step, window, 2).masks_NHW.any()


def test_a_snapshot_without_masks_is_no_source(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "dataset")
    source = SnapshotSource(dataset, dataset.snapshot().snapshot_id)
    with pytest.raises(ValueError, match="no masks to train on"):
        source.cut(np.random.default_rng(0), 0, WindowConfig(side_px=32), 1)
