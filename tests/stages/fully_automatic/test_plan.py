import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from engine.automatic.config import GenerateConfig
from engine.model.weights import Model
from stages.fully_automatic.plan import _cut, count_images, count_unmasked_images, names_model, plan_masks
from stages.fully_automatic.worker import ShardWorker
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange, ShardAddress, image_inputs, image_shard, inputs_to_json
from tests.stages.masking import CONFIG, mask_all


def test_a_plan_covers_each_image_once_and_grows_with_the_dataset(
    photographed: Dataset, model: Model, photo_folder: Path
) -> None:
    (plan,) = plan_masks(photographed, model.identity, CONFIG)
    covered = Counter(
        (images.shard, place)
        for shard in plan.shards
        for images in shard.inputs
        if isinstance(images, ImageRange)
        for place in images.places
    )
    images = [(commit.address, i) for commit in photographed.image_shards() for i in range(commit.images)]
    assert covered == Counter(images)
    assert plan_masks(photographed, model.identity, CONFIG) == [plan]
    (photo_folder / "late.png").write_bytes((photo_folder / "0.png").read_bytes() + b"\0")
    ingest_photos([photo_folder], photographed)
    old, new = plan_masks(photographed, model.identity, CONFIG)
    assert old == plan
    assert [count_images(shard) for shard in new.shards] == [1]


def test_an_erased_image_is_not_planned_and_the_plans_from_before_pass_over_it(
    photographed: Dataset, tiny_model: Path, model: Model
) -> None:
    (early,) = plan_masks(photographed, model.identity, CONFIG)
    ids = {shard.address: photographed.image_ids_in(shard) for shard in photographed.image_shards()}
    first = min(ids)
    gone = ids[first][1]
    photographed.erase([gone], "a person's wish")
    assert plan_masks(photographed, model.identity, CONFIG) == [early]
    (late,) = plan_masks(photographed, model.identity, replace(CONFIG, points_per_side=CONFIG.points_per_side + 1))
    planned = {
        (image_shard(images), place)
        for shard in late.shards
        for images in image_inputs(shard.inputs)
        for place in (images.places if not isinstance(images, ShardAddress) else ())
    }
    every = {(address, place) for address, own in ids.items() for place in range(len(own))}
    assert planned == every - {(first, 1)}
    mask_all(ShardWorker(tiny_model, CONFIG, photographed.uri))
    photographed.fold()
    masked = photographed.query("SELECT DISTINCT image_id FROM masks")["image_id"].to_pylist()
    assert set(masked) == {image_id for own in ids.values() for image_id in own} - {gone}
    assert photographed.maintenance.verify().faults == ()


def test_a_redone_image_shard_has_only_its_new_images_masked(
    dataset: Dataset, photo_folder: Path, tiny_model: Path, model: Model
) -> None:
    whole, path = (photo_folder / "3.png").read_bytes(), photo_folder / "3.png"
    path.write_bytes(bytes(len(whole)))
    os.utime(path, (1, 1))
    ingest_photos([photo_folder], dataset)
    worker = ShardWorker(tiny_model, CONFIG, dataset.uri)
    mask_all(worker)
    path.write_bytes(whole)  # repaired, same size and time
    os.utime(path, (1, 1))
    dataset.maintenance.plan_redo(dataset.plans()[0])
    report = ingest_photos([photo_folder], dataset)
    assert (report.images, report.unchanged, report.rejects) == (8, 0, ())
    assert [inputs_to_json(shard.inputs)[1] for shard in plan_masks(dataset, model.identity, CONFIG)[-1].shards] == [
        "7:8"
    ]
    mask_all(worker)
    dataset.fold()
    (row,) = dataset.query("SELECT count(DISTINCT image_id) AS images, count(*) AS masks FROM masks").to_pylist()
    assert row["images"] == 8
    assert row["masks"] == sum(
        commit.masks for plan in plan_masks(dataset, model.identity, CONFIG) for commit in dataset.commits(plan)
    )


def test_images_that_another_model_masked_are_left_out_if_that_is_wanted(
    photographed: Dataset, tiny_model: Path, model: Model, photo_folder: Path
) -> None:
    other = replace(CONFIG, points_per_side=CONFIG.points_per_side + 1)
    assert count_unmasked_images(photographed) == 8
    worker = ShardWorker(tiny_model, CONFIG, photographed.uri)
    (plan,) = plan_masks(photographed, model.identity, CONFIG)
    for shard in plan.shards[1:]:
        worker.mask_shard(plan.plan_id, shard.name)
    assert count_unmasked_images(photographed) == 1, "a planned shard that is not made masks nothing"
    (rest,) = plan_masks(photographed, model.identity, other, only_unmasked=True)
    assert rest.shards[0].inputs == plan.shards[0].inputs
    worker.mask_shard(plan.plan_id, plan.shards[0].name)
    (photo_folder / "late.png").write_bytes((photo_folder / "0.png").read_bytes() + b"\0")
    ingest_photos([photo_folder], photographed)
    assert count_unmasked_images(photographed) == 1
    assert [
        count_images(shard) for shard in plan_masks(photographed, model.identity, other, only_unmasked=True)[-1].shards
    ] == [1]


@pytest.mark.parametrize(("images", "lengths"), [(1, [1]), (4, [4]), (5, [2, 3]), (20, [4] * 5)])
def test_an_image_shard_is_cut_in_nearly_equal_ranges(images: int, lengths: list[int]) -> None:
    whole = ImageRange(shard=ShardAddress(plan_id="images-0", shard="0"), start=0, stop=images)
    assert [len(piece.places) for piece in _cut(whole, 4)] == lengths


def test_a_small_dataset_is_cut_so_that_every_worker_has_work(photographed: Dataset, model: Model) -> None:
    (plan,) = plan_masks(photographed, model.identity, CONFIG)
    assert [count_images(shard) for shard in plan.shards] == [1] * 8


def test_thresholds_of_the_card_and_the_same_ones_given_are_one_plan(photographed: Dataset, model: Model) -> None:
    by_card = plan_masks(photographed, model.identity, GenerateConfig())
    given = GenerateConfig(
        predicted_iou_threshold=0.0, stability_threshold=0.0, points_per_batch=64, crops_per_batch=21
    )
    assert plan_masks(photographed, model.identity, given) == by_card
    assert plan_masks(photographed, model.identity, GenerateConfig(precision="bf16")) != by_card
    assert plan_masks(photographed, model.identity, GenerateConfig(points_per_side=8)) != by_card


def test_a_plan_names_its_model_once_a_shard_is_committed(photographed: Dataset, worker: ShardWorker) -> None:
    (plan,) = plan_masks(photographed, worker.model.identity, CONFIG)
    assert not names_model(photographed, worker.model.identity)
    worker.mask_shard(plan.plan_id, plan.shards[0].name)
    assert names_model(photographed, worker.model.identity)
    assert not names_model(photographed, replace(worker.model.identity, model_id="another"))
