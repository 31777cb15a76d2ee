import math
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch

from engine.automatic.config import GenerateConfig
from engine.automatic.generate import Generated, generate_masks
from engine.model.weights import Model, load_model
from stages.fully_automatic import worker as fully_automatic
from stages.fully_automatic.worker import MaskedImage, ShardFailed, ShardResult, ShardWorker, plan_masks
from stages.ingest.ingest import IngestConfig, ingest_photos
from storage import rle
from storage.dataset import Dataset
from storage.objects.stores import LocalStore
from storage.protocol.plans import Plan, PlannedShard
from storage.records import Reject

CONFIG = GenerateConfig(points_per_side=3, predicted_iou_threshold=-100.0, min_region_px=0, max_area_fraction=None)


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return load_model(tiny_model)


@pytest.fixture
def photographed(dataset: Dataset, photo_folder: Path) -> Dataset:
    """A dataset of eight images in two shards."""
    ingest_photos([photo_folder], dataset, IngestConfig(images_per_shard=5))
    return dataset


@pytest.fixture
def worker(tiny_model: Path, photographed: Dataset) -> ShardWorker:
    return ShardWorker(tiny_model, CONFIG, photographed.uri)


def run_all(worker: ShardWorker) -> list[ShardResult]:
    plans = plan_masks(worker.dataset, worker.model, worker.config)
    return [worker.run(plan.plan_id, shard.name) for plan in plans for shard in plan.shards]


def poison(monkeypatch: pytest.MonkeyPatch, *, call: int) -> None:
    """Lets the generator fail on the photograph of one call."""
    shown: list[np.ndarray] = []

    def poisoned(model: Model, image_HW3: np.ndarray, config: GenerateConfig) -> Generated:
        if config.points_per_side == CONFIG.points_per_side:  # else it is the worker that checks itself
            shown.append(image_HW3)
            if len(shown) == call:
                raise RuntimeError("the kernel fell over")
        return generate_masks(model, image_HW3, config)

    monkeypatch.setattr(fully_automatic, "generate_masks", poisoned)


def outcomes_of(worker: ShardWorker) -> list[MaskedImage | Reject]:
    heard: list[MaskedImage | Reject] = []
    plan = plan_masks(worker.dataset, worker.model, worker.config, images_per_shard=5)[0]
    worker.run(plan.plan_id, plan.shards[0].name, heard.append)
    assert len(heard) == 5
    return heard


def test_photographs_under_way_together_are_masked_as_one_after_the_other(
    worker: ShardWorker, tiny_model: Path, photographed: Dataset
) -> None:
    plan = plan_masks(worker.dataset, worker.model, worker.config, images_per_shard=5)[0]
    photographs = fully_automatic.read_photographs(photographed, plan, plan.shards[0])
    broken = photographs[1][1][:40]
    photographs[1] = (photographs[1][0], broken)
    several = ShardWorker(tiny_model, CONFIG, photographed.uri, photographs_at_once=3)
    together = list(several._masked(plan, plan.shards[0], photographs))
    expected = [worker.mask(plan, plan.shards[0], *photograph) for photograph in photographs]
    assert [isinstance(outcome, Reject) for outcome in together] == [False, True, False, False, False]
    assert [told(outcome) for outcome in together] == [told(outcome) for outcome in expected]


def told(outcome: MaskedImage | Reject) -> tuple[str, object]:
    if isinstance(outcome, Reject):
        return outcome.source_sha256, outcome.reason
    return outcome.image.source_sha256, [(mask.mask_id, mask.area_px, mask.box_xyxy) for mask in outcome.masks]


def test_a_gpu_gets_larger_batches_unless_the_settings_say_otherwise() -> None:
    assert fully_automatic.config_for_gpu(GenerateConfig()).points_per_batch == 256
    asked = replace(GenerateConfig(), points_per_batch=7)
    assert fully_automatic.config_for_gpu(asked) == replace(asked, crops_per_batch=21)


def test_every_image_is_masked_as_the_generator_masks_it(worker: ShardWorker, model: Model) -> None:
    results = run_all(worker)
    assert sum(result.images for result in results) == 8
    assert all(result.made and not result.rejects for result in results)
    stored = dict(image for shard in worker.dataset.image_shards() for image in worker.dataset.read_images(shard))
    pixels = {record.image_id: fully_automatic.decode(data) for record, data in stored.items()}
    seen = Counter[int]()
    (plan,) = plan_masks(worker.dataset, model, CONFIG)
    for commit in worker.dataset.commits(plan):
        for image, masks in worker.dataset.read_masks(commit):
            expected = generate_masks(model, pixels[image.image_id], CONFIG).masks
            seen[image.image_id] += 1
            assert len(masks) == len(expected) > 0
            for got, want in zip(masks, expected, strict=True):
                np.testing.assert_array_equal(rle.decode(got.rle), rle.decode(want.rle))
                assert (got.box_xyxy, got.area_px, got.crop_xyxy) == (want.box_xyxy, want.area_px, want.crop_xyxy)
                assert math.isclose(got.predicted_iou, want.predicted_iou, rel_tol=1e-6)
                assert got.point_xy == pytest.approx(want.point_xy)
                assert got.provenance.stage == "fully_automatic"
                assert got.provenance.model_id == model.model_id
                assert (got.provenance.plan_id, got.provenance.config_hash) == (plan.plan_id, plan.settings_hash)
    assert set(seen.values()) == {1}
    assert len(seen) == 8


def test_the_tables_answer_for_masks_and_images(worker: ShardWorker) -> None:
    masks = sum(result.masks for result in run_all(worker))
    worker.dataset.fold()
    (row,) = worker.dataset.query("SELECT count(*) AS masks, count(DISTINCT image_id) AS images FROM masks").to_pylist()
    assert row == {"masks": masks, "images": 8}


def test_a_committed_shard_is_not_made_again(worker: ShardWorker) -> None:
    first = run_all(worker)
    again = run_all(worker)
    assert [result.made for result in again] == [False] * len(first)
    assert [replace(result, made=True) for result in again] == first


def test_a_shard_says_where_its_time_went(worker: ShardWorker) -> None:
    (first, *_) = run_all(worker)
    parts = first.seconds_by_part
    assert list(parts) == ["read", "wait", "mask", "write"]
    assert all(seconds >= 0 for seconds in parts.values())
    assert first.seconds == pytest.approx(parts["read"] + parts["mask"])  # waiting is no work


def test_the_next_shard_is_read_and_the_last_one_written_while_one_is_masked(
    worker: ShardWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masking the first shard waits until the second is read; writing the first until the second is being masked."""
    (plan,) = plan_masks(worker.dataset, worker.model, worker.config, images_per_shard=3)
    read, write, mask = fully_automatic.read_photographs, fully_automatic.write_outcomes, worker.mask
    second_is_read, second_is_masked, order = threading.Event(), threading.Event(), list[str]()

    def reading(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Any:
        photographs = read(dataset, plan, shard)
        if shard.name == "000001":
            second_is_read.set()
        return photographs

    def masking(plan: Plan, shard: PlannedShard, *photograph: Any) -> Any:
        if shard.name == "000000":
            assert second_is_read.wait(60)
        order.append(shard.name)
        if shard.name == "000001":
            second_is_masked.set()
        return mask(plan, shard, *photograph)

    def writing(dataset: Dataset, plan: Plan, shard: PlannedShard, *outcomes: Any, **figures: Any) -> ShardResult:
        if shard.name == "000000":
            assert second_is_masked.wait(60)
        return write(dataset, plan, shard, *outcomes, **figures)

    monkeypatch.setattr(fully_automatic, "read_photographs", reading)
    monkeypatch.setattr(fully_automatic, "write_outcomes", writing)
    monkeypatch.setattr(worker, "mask", masking)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(worker.run, plan.plan_id, "000000")
        while not worker._computing.locked():
            time.sleep(0.001)
        second = pool.submit(worker.run, plan.plan_id, "000001")
        assert (first.result().images, second.result().images) == (2, 3)
    assert order == ["000000"] * 2 + ["000001"] * 3  # never two shards masked at a time


def test_two_workers_make_the_same_masks_with_the_same_ids(
    tmp_path: Path, photo_folder: Path, tiny_model: Path
) -> None:
    parts = []
    for name in ("one", "two"):
        dataset = Dataset.create(tmp_path / name)
        ingest_photos([photo_folder], dataset)
        worker = ShardWorker(tiny_model, CONFIG, dataset.uri)
        run_all(worker)
        plans = plan_masks(dataset, worker.model, CONFIG)
        parts.append([part.sha256 for plan in plans for commit in dataset.commits(plan) for part in commit.tars()])
    assert parts[0] == parts[1]


def test_statistics_say_where_the_candidates_went(worker: ShardWorker) -> None:
    run_all(worker)
    (plan,) = plan_masks(worker.dataset, worker.model, CONFIG)
    for commit in worker.dataset.commits(plan):
        diagnostics: Any = commit.stats["diagnostics"]
        assert diagnostics["candidates"] == commit.images * 3 * 3 * 3
        assert diagnostics["kept"] == commit.masks
        assert set(commit.stats) == {"diagnostics", "without_masks"}
        assert commit.stats["without_masks"] == {}


def test_an_image_without_masks_is_a_row_and_not_a_reject(tiny_model: Path, photographed: Dataset) -> None:
    worker = ShardWorker(tiny_model, replace(CONFIG, predicted_iou_threshold=100.0), photographed.uri)
    results = run_all(worker)
    assert [(result.images > 0, result.masks, result.rejects) for result in results] == [(True, 0, 0)] * len(results)
    (plan,) = plan_masks(photographed, worker.model, worker.config)
    stats: Any = photographed.commits(plan)[0].stats
    assert {each["failed_predicted_iou"] for each in stats["without_masks"].values()} == {27}


def test_a_record_explains_no_more_than_a_few_images_without_masks(
    tiny_model: Path, photographed: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fully_automatic, "MAX_WITHOUT_MASKS", 3)
    worker = ShardWorker(tiny_model, replace(CONFIG, predicted_iou_threshold=100.0), photographed.uri)
    outcomes_of(worker)
    (plan,) = plan_masks(photographed, worker.model, worker.config)
    stats: Any = photographed.commits(plan)[0].stats
    assert len(stats["without_masks"]) == 3
    assert stats["diagnostics"]["failed_predicted_iou"] == 5 * 27


def test_a_poisoned_image_is_a_reject_and_the_shard_goes_on(
    worker: ShardWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def poisoned_second(model: Model, image_HW3: np.ndarray, config: GenerateConfig) -> Generated:
        calls.append(image_HW3)
        if len(calls) == 2:
            raise RuntimeError("the kernel\nfell over")
        return generate_masks(model, image_HW3, config)

    monkeypatch.setattr(fully_automatic, "generate_masks", poisoned_second)
    heard = outcomes_of(worker)
    assert [type(outcome) for outcome in heard] == [MaskedImage, Reject, MaskedImage, MaskedImage, MaskedImage]
    (reject,) = [outcome for outcome in heard if isinstance(outcome, Reject)]
    assert (reject.reason, reject.detail, reject.stage) == (
        "failed",
        "RuntimeError: the kernel fell over",
        "fully_automatic",
    )
    assert reject.source.startswith("photos/")


def test_a_worker_that_can_mask_nothing_blames_no_photograph(
    worker: ShardWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Generated:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(fully_automatic, "generate_masks", broken)
    with pytest.raises(ShardFailed, match="the worker masks nothing: RuntimeError: no kernel image is available"):
        outcomes_of(worker)
    (plan,) = plan_masks(worker.dataset, worker.model, CONFIG)
    assert worker.dataset.commits(plan) == []


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_halves_the_batch_until_it_fits(
    worker: ShardWorker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tried = []

    def hungry(model: Model, image_HW3: np.ndarray, config: GenerateConfig) -> Generated:
        tried.append(config.points_per_batch)
        if config.points_per_batch > 1:
            raise error
        return generate_masks(model, image_HW3, config)

    monkeypatch.setattr(fully_automatic, "generate_masks", hungry)
    heard = outcomes_of(worker)
    assert all(isinstance(outcome, MaskedImage) for outcome in heard)
    assert tried[:4] == [4, 2, 1, 4]  # the next photograph begins anew


def test_out_of_memory_at_one_point_is_a_reject(worker: ShardWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Counter[str]()

    def hungry_once(model: Model, image_HW3: np.ndarray, config: GenerateConfig) -> Generated:
        calls["all"] += 1
        if calls["all"] <= 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return generate_masks(model, image_HW3, config)

    monkeypatch.setattr(fully_automatic, "generate_masks", hungry_once)
    first, *others = outcomes_of(worker)
    assert isinstance(first, Reject)
    assert first.reason == "out_of_memory"
    assert all(isinstance(outcome, MaskedImage) for outcome in others)


def test_a_plan_covers_each_image_once_and_grows_with_the_dataset(
    photographed: Dataset, model: Model, photo_folder: Path
) -> None:
    (plan,) = plan_masks(photographed, model, CONFIG)
    covered = Counter(
        (shard.inputs[0], position)
        for shard in plan.shards
        for position in range(*(int(bound) for bound in shard.inputs[1].split(":")))
    )
    images = [(commit.address, i) for commit in photographed.image_shards() for i in range(commit.images)]
    assert covered == Counter(images)
    assert plan_masks(photographed, model, CONFIG) == [plan]
    (photo_folder / "late.png").write_bytes((photo_folder / "0.png").read_bytes() + b"\0")
    ingest_photos([photo_folder], photographed)
    old, new = plan_masks(photographed, model, CONFIG)
    assert old == plan
    assert [fully_automatic.images_of(shard) for shard in new.shards] == [1]


def test_a_redone_image_shard_has_only_its_new_images_masked(
    dataset: Dataset, photo_folder: Path, tiny_model: Path, model: Model
) -> None:
    whole, path = (photo_folder / "3.png").read_bytes(), photo_folder / "3.png"
    path.write_bytes(bytes(len(whole)))
    os.utime(path, (1, 1))
    ingest_photos([photo_folder], dataset)
    worker = ShardWorker(tiny_model, CONFIG, dataset.uri)
    run_all(worker)
    path.write_bytes(whole)  # repaired, same size and time
    os.utime(path, (1, 1))
    dataset.plan_redo(dataset.plans()[0])
    report = ingest_photos([photo_folder], dataset)
    assert (report.images, report.unchanged, report.rejects) == (8, 0, ())
    assert [shard.inputs[1] for shard in plan_masks(dataset, model, CONFIG)[-1].shards] == ["7:8"]
    run_all(worker)
    dataset.fold()
    (row,) = dataset.query("SELECT count(DISTINCT image_id) AS images, count(*) AS masks FROM masks").to_pylist()
    assert row["images"] == 8
    assert row["masks"] == sum(
        commit.masks for plan in plan_masks(dataset, model, CONFIG) for commit in dataset.commits(plan)
    )


def test_a_redone_mask_shard_takes_the_place_of_the_old_one(worker: ShardWorker) -> None:
    run_all(worker)
    (plan,) = plan_masks(worker.dataset, worker.model, CONFIG)
    redo = worker.dataset.plan_redo(plan, ["000000"])
    assert plan_masks(worker.dataset, worker.model, CONFIG) == [plan, redo]
    assert worker.run(redo.plan_id, "000000").made
    assert not worker.run(redo.plan_id, "000000").made
    assert [commit.generation for commit in worker.dataset.commits(plan)] == [1, *([0] * (len(plan.shards) - 1))]
    worker.dataset.fold()
    assert worker.dataset.query("SELECT count(DISTINCT image_id) AS n FROM masks").to_pylist() == [{"n": 8}]
    assert worker.dataset.verify().faults == ()


def test_a_redo_tries_rejected_images_again_and_keeps_the_others(
    worker: ShardWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = worker.dataset
    (plan,) = plan_masks(dataset, worker.model, worker.config, images_per_shard=5)
    with monkeypatch.context() as patch:
        poison(patch, call=2)
        worker.run(plan.plan_id, "000000")
    (first,) = dataset.commits(plan)
    assert (first.images, len(first.rejects)) == (4, 1)
    redo = dataset.plan_redo(plan)
    heard: list[MaskedImage | Reject] = []
    result = worker.run(redo.plan_id, "000000", heard.append)
    assert [type(outcome) for outcome in heard] == [MaskedImage]
    (second,) = dataset.commits(plan)
    assert (second.generation, second.images, second.rejects, result.rejects) == (1, 5, (), 0)
    assert second.parts[: len(first.parts)] == first.parts
    assert second.masks == first.masks + len(heard[0].masks)
    assert second.stats["diagnostics"]["candidates"] == 5 * 27  # type: ignore[index]
    assert len({mask.mask_id for _, masks in dataset.read_masks(second) for mask in masks}) == second.masks
    dataset.fold()
    assert dataset.query("SELECT count(*) AS n FROM masks").to_pylist() == [{"n": second.masks}]
    assert dataset.verify().faults == ()


def test_an_image_that_fails_again_stays_a_reject(worker: ShardWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = worker.dataset
    (plan,) = plan_masks(dataset, worker.model, worker.config, images_per_shard=5)
    with monkeypatch.context() as patch:
        poison(patch, call=2)
        worker.run(plan.plan_id, "000000")
    redo = dataset.plan_redo(plan)
    with monkeypatch.context() as patch:
        poison(patch, call=1)
        worker.run(redo.plan_id, "000000")
    (commit,) = dataset.commits(plan)
    assert (commit.generation, commit.images, len(commit.rejects)) == (1, 4, 1)
    again = dataset.plan_redo(plan)
    assert worker.run(again.plan_id, "000000").images == 5
    assert dataset.commits(plan)[0].generation == 2


def test_a_shard_reads_no_other_images(worker: ShardWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    (plan,) = plan_masks(worker.dataset, worker.model, worker.config, images_per_shard=2)
    streamed: list[str] = []
    open_stream = LocalStore.open

    def opened(store: LocalStore, key: str) -> BinaryIO:
        stream = open_stream(store, key)
        streamed.append(key)
        return stream

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "open", opened)
        last = fully_automatic.read_photographs(worker.dataset, plan, plan.shards[-1])
    address, _ = plan.shards[-1].inputs
    every = list(worker.dataset.read_images(address))
    assert last == every[-len(last) :] != every
    tars = [part.key for part in worker.dataset.commit_of(address).tars()]
    assert sum(key in tars for key in streamed) == len(last)  # one range read each


@pytest.mark.parametrize(("images", "lengths"), [(1, [1]), (4, [4]), (5, [2, 3]), (20, [4] * 5)])
def test_an_image_shard_is_cut_in_nearly_equal_runs(images: int, lengths: list[int]) -> None:
    assert [len(run) for run in fully_automatic._runs(range(images), 4)] == lengths


def test_a_small_dataset_is_cut_so_that_every_worker_has_work(photographed: Dataset, model: Model) -> None:
    (plan,) = plan_masks(photographed, model, CONFIG)
    assert [fully_automatic.images_of(shard) for shard in plan.shards] == [1] * 8


def test_thresholds_of_the_card_and_the_same_ones_given_are_one_plan(photographed: Dataset, model: Model) -> None:
    by_card = plan_masks(photographed, model, GenerateConfig())
    given = GenerateConfig(
        predicted_iou_threshold=0.0, stability_threshold=0.0, points_per_batch=64, crops_per_batch=21
    )
    assert plan_masks(photographed, model, given) == by_card
    assert plan_masks(photographed, model, GenerateConfig(precision="bf16")) != by_card
    assert plan_masks(photographed, model, GenerateConfig(points_per_side=8)) != by_card


def test_a_worker_refuses_the_plan_of_other_settings(worker: ShardWorker, photographed: Dataset) -> None:
    (plan,) = plan_masks(photographed, worker.model, replace(CONFIG, points_per_side=2))
    with pytest.raises(ValueError, match="this worker was made for"):
        worker.run(plan.plan_id, plan.shards[0].name)
