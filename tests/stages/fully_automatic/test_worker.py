import math
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.automatic.config import GenerateConfig
from engine.automatic.generate import Generated, generate_masks
from engine.images import decode
from engine.model.weights import Model
from stages.fully_automatic import worker as worker_module
from stages.fully_automatic.outcomes import MaskedImage, ShardResult, read_images, write_outcomes
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardFailed, ShardWorker, config_for_gpu
from stages.ingest.ingest import ingest_photos
from storage import rle
from storage.dataset import Dataset
from storage.protocol.plans import Plan, PlannedShard
from storage.records import Reject
from tests.stages.masking import CONFIG, mask_all, mask_one_shard


def test_photographs_under_way_together_are_masked_as_one_after_the_other(
    worker: ShardWorker, tiny_model: Path, photographed: Dataset
) -> None:
    plan = plan_masks(worker.dataset, worker.model.identity, worker.config, images_per_shard=5)[0]
    photographs = read_images(photographed, plan, plan.shards[0])
    broken = photographs[1][1][:40]
    photographs[1] = (photographs[1][0], broken)
    several = ShardWorker(tiny_model, CONFIG, photographed.uri, images_at_once=3)
    together = list(several._outcomes(plan, plan.shards[0], photographs))
    expected = [worker.mask_image(plan, plan.shards[0], *photograph) for photograph in photographs]
    assert [isinstance(outcome, Reject) for outcome in together] == [False, True, False, False, False]
    assert [told(outcome) for outcome in together] == [told(outcome) for outcome in expected]


def told(outcome: MaskedImage | Reject) -> tuple[str, object]:
    if isinstance(outcome, Reject):
        return outcome.source_sha256, outcome.reason
    return outcome.image.source_sha256, [(mask.mask_id, mask.area_px, mask.box_xyxy) for mask in outcome.masks]


def test_a_gpu_gets_larger_batches_unless_the_settings_say_otherwise() -> None:
    assert config_for_gpu(GenerateConfig()).points_per_batch == 256
    asked = replace(GenerateConfig(), points_per_batch=7)
    assert config_for_gpu(asked) == replace(asked, crops_per_batch=21)


def test_every_image_is_masked_as_the_generator_masks_it(worker: ShardWorker, model: Model) -> None:
    results = mask_all(worker)
    assert sum(result.images for result in results) == 8
    assert all(result.is_new and not result.rejects for result in results)
    stored = dict(image for shard in worker.dataset.image_shards() for image in worker.dataset.read_images(shard))
    pixels = {record.image_id: decode(data) for record, data in stored.items()}
    seen = Counter[int]()
    (plan,) = plan_masks(worker.dataset, model.identity, CONFIG)
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
                assert (got.provenance.plan_id, got.provenance.config_hash) == (plan.home, plan.settings_hash)
    assert set(seen.values()) == {1}
    assert len(seen) == 8


def test_a_shard_says_where_its_time_went(worker: ShardWorker) -> None:
    (first, *_) = mask_all(worker)
    parts = first.seconds_by_part
    assert list(parts) == ["read", "wait", "mask", "write"]
    assert all(seconds >= 0 for seconds in parts.values())
    assert first.seconds == pytest.approx(parts["read"] + parts["mask"])  # waiting is no work


def test_the_next_shard_is_read_and_the_last_one_written_while_one_is_masked(
    worker: ShardWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masking the first shard waits until the second is read; writing the first until the second is being masked."""
    (plan,) = plan_masks(worker.dataset, worker.model.identity, worker.config, images_per_shard=3)
    read, write, mask = read_images, write_outcomes, worker.mask_image
    names = [shard.name for shard in plan.shards]
    second_is_read, second_is_masked, order = threading.Event(), threading.Event(), list[str]()

    def reading(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Any:
        photographs = read(dataset, plan, shard)
        if shard.name == names[1]:
            second_is_read.set()
        return photographs

    def masking(plan: Plan, shard: PlannedShard, *photograph: Any) -> Any:
        if shard.name == names[0]:
            assert second_is_read.wait(60)
        order.append(shard.name)
        if shard.name == names[1]:
            second_is_masked.set()
        return mask(plan, shard, *photograph)

    def writing(dataset: Dataset, plan: Plan, shard: PlannedShard, *outcomes: Any, **figures: Any) -> ShardResult:
        if shard.name == names[0]:
            assert second_is_masked.wait(60)
        return write(dataset, plan, shard, *outcomes, **figures)

    monkeypatch.setattr(worker_module, "read_images", reading)
    monkeypatch.setattr(worker_module, "write_outcomes", writing)
    monkeypatch.setattr(worker, "mask_image", masking)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(worker.mask_shard, plan.plan_id, names[0])
        while not worker._computing.locked():
            time.sleep(0.001)
        second = pool.submit(worker.mask_shard, plan.plan_id, names[1])
        assert (first.result().images, second.result().images) == (2, 3)
    assert order == names[:1] * 2 + names[1:2] * 3  # never two shards masked at a time


def test_two_workers_make_the_same_masks_with_the_same_ids(
    tmp_path: Path, photo_folder: Path, tiny_model: Path
) -> None:
    parts = []
    for name in ("one", "two"):
        dataset = Dataset.create(tmp_path / name)
        ingest_photos([photo_folder], dataset)
        worker = ShardWorker(tiny_model, CONFIG, dataset.uri)
        mask_all(worker)
        plans = plan_masks(dataset, worker.model.identity, CONFIG)
        parts.append([part.sha256 for plan in plans for commit in dataset.commits(plan) for part in commit.tars()])
    assert parts[0] == parts[1]


def test_a_poisoned_image_is_a_reject_and_the_shard_goes_on(
    worker: ShardWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def poisoned_second(model: Model, image_HW3: np.ndarray, config: GenerateConfig) -> Generated:
        calls.append(image_HW3)
        if len(calls) == 2:
            raise RuntimeError("the kernel\nfell over")
        return generate_masks(model, image_HW3, config)

    monkeypatch.setattr(worker_module, "generate_masks", poisoned_second)
    heard = mask_one_shard(worker)
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

    monkeypatch.setattr(worker_module, "generate_masks", broken)
    with pytest.raises(ShardFailed, match="the worker masks nothing: RuntimeError: no kernel image is available"):
        mask_one_shard(worker)
    (plan,) = plan_masks(worker.dataset, worker.model.identity, CONFIG)
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

    monkeypatch.setattr(worker_module, "generate_masks", hungry)
    heard = mask_one_shard(worker)
    assert all(isinstance(outcome, MaskedImage) for outcome in heard)
    assert tried[:4] == [4, 2, 1, 4]  # the next photograph begins anew


def test_out_of_memory_at_one_point_is_a_reject(worker: ShardWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Counter[str]()

    def hungry_once(model: Model, image_HW3: np.ndarray, config: GenerateConfig) -> Generated:
        calls["all"] += 1
        if calls["all"] <= 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return generate_masks(model, image_HW3, config)

    monkeypatch.setattr(worker_module, "generate_masks", hungry_once)
    first, *others = mask_one_shard(worker)
    assert isinstance(first, Reject)
    assert first.reason == "out_of_memory"
    assert all(isinstance(outcome, MaskedImage) for outcome in others)


def test_a_worker_refuses_the_plan_of_other_settings(worker: ShardWorker, photographed: Dataset) -> None:
    (plan,) = plan_masks(photographed, worker.model.identity, replace(CONFIG, points_per_side=2))
    with pytest.raises(ValueError, match="this worker was made for"):
        worker.mask_shard(plan.plan_id, plan.shards[0].name)


def test_a_mistake_of_ours_fails_the_shard_and_blames_no_image(
    worker: ShardWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plan,) = plan_masks(worker.dataset, worker.model.identity, CONFIG)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "generate", lambda image, data: {}["a mistake"])
        with pytest.raises(KeyError, match="a mistake"):
            worker.mask_shard(plan.plan_id, plan.shards[0].name)
    assert worker.dataset.commits(plan) == []
    assert worker.mask_shard(plan.plan_id, plan.shards[0].name).rejects == 0
