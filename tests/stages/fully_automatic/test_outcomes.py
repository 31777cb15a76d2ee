from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from engine.automatic.diagnostics import Diagnostics
from stages.fully_automatic import stats
from stages.fully_automatic.outcomes import MaskedImage, read_images, write_outcomes
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker
from storage.dataset import Dataset
from storage.objects.local import LocalStore
from storage.protocol.inputs import image_inputs, image_shard
from storage.records import Reject
from tests.stages.masking import CONFIG, mask_all, mask_one_shard, poison


def test_a_shard_reads_no_other_images(worker: ShardWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    (plan,) = plan_masks(worker.dataset, worker.model.identity, worker.config, images_per_shard=2)
    streamed: list[str] = []
    open_stream = LocalStore.open

    def opened(store: LocalStore, key: str) -> BinaryIO:
        stream = open_stream(store, key)
        streamed.append(key)
        return stream

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "open", opened)
        last = read_images(worker.dataset, plan, plan.shards[-1])
    (address,) = {image_shard(images) for images in image_inputs(plan.shards[-1].inputs)}
    every = list(worker.dataset.read_images(address))
    assert last == every[-len(last) :] != every
    tars = [part.key for part in worker.dataset.commit_of(address).tars()]
    assert sum(key in tars for key in streamed) == len(last)  # one range read each


def test_a_committed_shard_is_not_made_again(worker: ShardWorker) -> None:
    first = mask_all(worker)
    again = mask_all(worker)
    assert [result.is_new for result in again] == [False] * len(first)
    assert [replace(result, is_new=True) for result in again] == first


def test_the_tables_answer_for_masks_and_images(worker: ShardWorker) -> None:
    masks = sum(result.masks for result in mask_all(worker))
    worker.dataset.fold()
    (row,) = worker.dataset.query("SELECT count(*) AS masks, count(DISTINCT image_id) AS images FROM masks").to_pylist()
    assert row == {"masks": masks, "images": 8}


def test_statistics_say_where_the_candidates_went(worker: ShardWorker) -> None:
    mask_all(worker)
    (plan,) = plan_masks(worker.dataset, worker.model.identity, CONFIG)
    for commit in worker.dataset.commits(plan):
        diagnostics: Any = commit.stats["diagnostics"]
        assert diagnostics["candidates"] == commit.images * 3 * 3 * 3
        assert diagnostics["kept"] == commit.masks
        assert set(commit.stats) == {"diagnostics", "without_masks"}
        assert commit.stats["without_masks"] == {}


def test_an_image_without_masks_is_a_row_and_not_a_reject(tiny_model: Path, photographed: Dataset) -> None:
    worker = ShardWorker(tiny_model, replace(CONFIG, predicted_iou_threshold=100.0), photographed.uri)
    results = mask_all(worker)
    assert [(result.images > 0, result.masks, result.rejects) for result in results] == [(True, 0, 0)] * len(results)
    (plan,) = plan_masks(photographed, worker.model.identity, worker.config)
    written: Any = photographed.commits(plan)[0].stats
    assert {each["failed_predicted_iou"] for each in written["without_masks"].values()} == {27}


def test_a_record_explains_no_more_than_a_few_images_without_masks(
    tiny_model: Path, photographed: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "MAX_WITHOUT_MASKS", 3)
    worker = ShardWorker(tiny_model, replace(CONFIG, predicted_iou_threshold=100.0), photographed.uri)
    mask_one_shard(worker)
    (plan,) = plan_masks(photographed, worker.model.identity, worker.config)
    written: Any = photographed.commits(plan)[0].stats
    assert len(written["without_masks"]) == 3
    assert written["diagnostics"]["failed_predicted_iou"] == 5 * 27


def test_a_redone_mask_shard_takes_the_place_of_the_old_one(worker: ShardWorker) -> None:
    mask_all(worker)
    (plan,) = plan_masks(worker.dataset, worker.model.identity, CONFIG)
    redo = worker.dataset.maintenance.plan_redo(plan, [plan.shards[0].name])
    assert plan_masks(worker.dataset, worker.model.identity, CONFIG) == [plan, redo]
    assert worker.mask_shard(redo.plan_id, plan.shards[0].name).is_new
    assert not worker.mask_shard(redo.plan_id, plan.shards[0].name).is_new
    assert [commit.generation for commit in worker.dataset.commits(plan)] == [1, *([0] * (len(plan.shards) - 1))]
    worker.dataset.fold()
    assert worker.dataset.query("SELECT count(DISTINCT image_id) AS n FROM masks").to_pylist() == [{"n": 8}]
    assert worker.dataset.maintenance.verify().faults == ()


def test_a_redo_tries_rejected_images_again_and_keeps_the_others(
    worker: ShardWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = worker.dataset
    (plan,) = plan_masks(dataset, worker.model.identity, worker.config, images_per_shard=5)
    with monkeypatch.context() as patch:
        poison(patch, call=2)
        worker.mask_shard(plan.plan_id, plan.shards[0].name)
    (first,) = dataset.commits(plan)
    assert (first.images, len(first.rejects)) == (4, 1)
    redo = dataset.maintenance.plan_redo(plan)
    heard: list[MaskedImage | Reject] = []
    result = worker.mask_shard(redo.plan_id, plan.shards[0].name, heard.append)
    assert [type(outcome) for outcome in heard] == [MaskedImage]
    (second,) = dataset.commits(plan)
    assert (second.generation, second.images, second.rejects, result.rejects) == (1, 5, (), 0)
    assert second.parts[: len(first.parts)] == first.parts
    assert second.masks == first.masks + len(heard[0].masks)
    before = stats.MaskStats.from_json(first.stats).diagnostics or Diagnostics()
    assert stats.MaskStats.from_json(second.stats).diagnostics == before + heard[0].diagnostics
    assert (before + heard[0].diagnostics).candidates == 5 * 27
    assert len({mask.mask_id for _, masks in dataset.read_masks(second) for mask in masks}) == second.masks
    dataset.fold()
    assert dataset.query("SELECT count(*) AS n FROM masks").to_pylist() == [{"n": second.masks}]
    assert dataset.maintenance.verify().faults == ()


def test_an_image_that_fails_again_stays_a_reject(worker: ShardWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = worker.dataset
    (plan,) = plan_masks(dataset, worker.model.identity, worker.config, images_per_shard=5)
    with monkeypatch.context() as patch:
        poison(patch, call=2)
        worker.mask_shard(plan.plan_id, plan.shards[0].name)
    redo = dataset.maintenance.plan_redo(plan)
    with monkeypatch.context() as patch:
        poison(patch, call=1)
        worker.mask_shard(redo.plan_id, plan.shards[0].name)
    (commit,) = dataset.commits(plan)
    assert (commit.generation, commit.images, len(commit.rejects)) == (1, 4, 1)
    again = dataset.maintenance.plan_redo(plan)
    assert worker.mask_shard(again.plan_id, plan.shards[0].name).images == 5
    assert dataset.commits(plan)[0].generation == 2


def test_of_two_workers_that_make_a_shard_at_once_one_says_that_it_is_new(worker: ShardWorker) -> None:
    (plan,) = plan_masks(worker.dataset, worker.model.identity, worker.config, images_per_shard=5)[:1]
    shard = plan.shards[0]
    images = read_images(worker.dataset, plan, shard)
    outcomes = [worker.mask_image(plan, shard, *image) for image in images]
    first = write_outcomes(worker.dataset, plan, shard, outcomes, seconds=1.0)
    second = write_outcomes(worker.dataset, plan, shard, outcomes, seconds=2.0)
    assert (first.is_new, second.is_new) == (True, False)
    assert (second.seconds, second.images) == (1.0, 5)
