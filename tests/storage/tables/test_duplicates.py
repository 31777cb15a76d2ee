"""Copies of images and of masks: two plans over the same photos, or the same images, never double a row."""

from types import SimpleNamespace
from typing import Any

import pytest

from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange, image_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.tables.fold_log import folded_records, newest_done
from tests.image_records import photo_key


def ask(dataset: Dataset, sql: str) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = dataset.query(sql).to_pylist()
    return answer


def counts(dataset: Dataset) -> tuple[int, int, int]:
    """Images, masks, and rejects of the fold."""
    tables = ("images", "masks", "rejects WHERE stage = 'fold'")
    images, masks, copies = (ask(dataset, f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in tables)
    return images, masks, copies


def store_again(dataset: Dataset, samples: SimpleNamespace, numbers: list[int], place: str = "elsewhere") -> Plan:
    """Commits a shard of photos that the dataset may hold, as an ingest does that was frozen before it looked."""
    plan = dataset.new_plan("images", [PlannedShard.from_inputs(photo_key(place))], {"license": "another"})
    dataset.write_images(plan, plan.shards[0], [samples.make_image(number) for number in numbers])
    return plan


def mask_again(dataset: Dataset, samples: SimpleNamespace, images: Plan, settings: dict[str, Any]) -> Plan:
    """Masks all images of a plan, also those that are copies."""
    inputs = [commit.address for commit in dataset.commits(images)]
    plan = dataset.new_plan("masks", [PlannedShard.from_inputs(each) for each in inputs], settings)
    for shard in dataset.missing(plan):
        samples.write_mask_shard(dataset, plan, shard)
    return plan


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    """Four images with three masks each."""
    samples.ingest(dataset)
    samples.mask(dataset)
    dataset.fold()
    return dataset


def test_plans_of_the_same_settings_that_overlap_meet_at_one_record(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset)
    first, second = (commit.address for commit in dataset.image_shards())
    settings = {"model": "seed-0123"}
    one = dataset.new_plan("masks", [PlannedShard.from_inputs(first)], settings)
    both = dataset.new_plan("masks", [PlannedShard.from_inputs(first), PlannedShard.from_inputs(second)], settings)
    other = dataset.new_plan("masks", [PlannedShard.from_inputs(first)], {"model": "other"})
    assert one.home == both.home != other.home
    assert one.address(one.shards[0]) == both.address(both.shards[0])
    samples.write_mask_shard(dataset, one, one.shards[0])
    assert [shard.inputs for shard in dataset.missing(both)] == [(second,)]
    assert dataset.plan(both.plan_id).home == Dataset.open(dataset.uri).plan(both.plan_id).home == both.home


def test_a_photo_that_two_plans_store_is_one_image_and_one_reject(filled: Dataset, samples: SimpleNamespace) -> None:
    copies = store_again(filled, samples, [0, 1, 9])
    filled.fold()
    assert counts(filled) == (5, 12, 2)
    (reject, _) = ask(filled, "SELECT * FROM rejects WHERE stage = 'fold' ORDER BY source")
    owner = ask(filled, f"SELECT plan, license FROM images WHERE key = '{reject['source']}'")
    assert owner == [{"plan": filled.plans()[0].home, "license": "CC0-1.0"}]
    assert (reject["reason"], reject["plan"]) == ("duplicate", copies.home)
    assert filled.maintenance.verify().faults == ()


def test_two_copies_in_one_fold_are_one_image(dataset: Dataset, samples: SimpleNamespace) -> None:
    store_again(dataset, samples, [0, 1], "here")
    store_again(dataset, samples, [1, 2], "there")
    dataset.fold()
    assert counts(dataset) == (3, 0, 1)
    assert dataset.maintenance.verify().faults == ()


def test_masks_of_a_copy_stay_out_and_those_of_the_owner_stay(filled: Dataset, samples: SimpleNamespace) -> None:
    copies = store_again(filled, samples, [0, 9])
    mask_again(filled, samples, copies, {"model": "other"})
    filled.fold()  # the image shard and the mask shard in one fold
    assert counts(filled) == (5, 12 + 3, 2)
    late = mask_again(filled, samples, copies, {"model": "third"})
    filled.fold()
    assert counts(filled) == (5, 12 + 6, 3)
    assert ask(filled, f"SELECT count(DISTINCT image_id) AS n FROM masks WHERE plan = '{late.home}'") == [{"n": 1}]
    assert filled.maintenance.verify().faults == ()


def test_ranges_of_the_same_settings_that_overlap_bring_each_image_once(
    dataset: Dataset, samples: SimpleNamespace
) -> None:
    samples.ingest(dataset, shards=1, images=5)
    (address,) = (commit.address for commit in dataset.image_shards())
    for start, stop in ((0, 3), (2, 5)):
        shard = PlannedShard.from_inputs(ImageRange(shard=address, start=start, stop=stop))
        plan = dataset.new_plan("masks", [shard], {"model": "seed-0123"})
        samples.write_mask_shard(dataset, plan, shard)
        dataset.fold()
    assert counts(dataset) == (5, 15, 1)
    assert dataset.maintenance.verify().faults == ()


def test_plans_of_an_earlier_format_that_overlap_bring_each_image_once(
    filled: Dataset, samples: SimpleNamespace
) -> None:
    """Their shards have numbers for names, and are stored under the plan's id."""
    (plan,) = [plan for plan in filled.plans() if plan.kind == "masks"]
    shard = PlannedShard(name="99999", inputs=plan.shards[0].inputs)
    again = filled.new_plan("masks", [shard], plan.settings)
    assert again.home == again.plan_id
    samples.write_mask_shard(filled, again, shard)
    filled.fold()
    assert counts(filled) == (4, 12, 2)
    other = filled.new_plan("masks", [shard], {"model": "other"})
    samples.write_mask_shard(filled, other, shard)
    filled.fold()
    assert counts(filled) == (4, 12 + 6, 2)
    assert filled.maintenance.verify().faults == ()


def test_a_withdrawn_mask_does_not_come_back_with_an_overlapping_shard(
    filled: Dataset, samples: SimpleNamespace
) -> None:
    (plan,) = [plan for plan in filled.plans() if plan.kind == "masks"]
    image, masks = next(filled.read_masks(filled.commits(plan)[0]))
    filled.withdraw([(image.image_id, mask.mask_id) for mask in masks], "all wrong")
    shard = PlannedShard(name="99999", inputs=plan.shards[0].inputs)
    again = filled.new_plan("masks", [shard], plan.settings)
    samples.write_mask_shard(filled, again, shard)
    filled.fold()
    assert counts(filled) == (4, 12 - 3, 2)


@pytest.mark.parametrize("times", [1, 2])
def test_a_rebuild_leaves_out_the_copies_that_the_folds_left_out(
    filled: Dataset, samples: SimpleNamespace, times: int
) -> None:
    copies = store_again(filled, samples, [0, 9])
    mask_again(filled, samples, copies, {"model": "other"})
    filled.fold()
    store_again(filled, samples, [9, 10], "a third place")  # not folded yet
    for _ in range(times):
        filled.maintenance.rebuild_tables()
    assert counts(filled) == (6, 12 + 3, 3)
    owners = ask(filled, "SELECT shard, count(*) AS n FROM images GROUP BY shard ORDER BY n DESC")
    assert [row["n"] for row in owners] == [2, 2, 1, 1]
    assert filled.maintenance.verify().faults == ()


def test_the_order_of_the_folds_decides_even_after_the_tables_are_lost(
    dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard whose address sorts last was folded first, and stays the owner."""
    plans = [store_again(dataset, samples, [0, number], f"place {number}") for number in (1, 2, 3)]
    addresses = sorted((plan.address(plan.shards[0]) for plan in plans), reverse=True)
    for shown in range(1, 4):
        monkeypatch.setattr("storage.tables.folds._listed", lambda store, shown=shown: sorted(addresses[:shown]))
        dataset.fold()
    monkeypatch.undo()
    owner = ask(dataset, f"SELECT shard FROM images WHERE image_id = {samples.make_image(0)[0].image_id}")
    assert owner == [{"shard": addresses[0].shard}]
    for key in list(dataset.store.list(f"{newest_done(dataset.store).folder}/")):
        dataset.store.delete(key)
    dataset.maintenance.rebuild_tables()
    assert ask(dataset, f"SELECT shard FROM images WHERE image_id = {samples.make_image(0)[0].image_id}") == owner
    assert counts(dataset) == (4, 0, 2)
    assert [record.address for record in folded_records(dataset.store, 4)] == addresses


def test_a_copy_takes_the_place_of_an_image_that_a_redo_lost(filled: Dataset, samples: SimpleNamespace) -> None:
    copies = store_again(filled, samples, [0, 9])
    filled.fold()
    (images, *_) = (plan for plan in filled.plans() if plan.kind == "images")
    redo = filled.maintenance.plan_redo(images, [images.shards[0].name])
    filled.write_images(redo, redo.shards[0], [samples.make_image(1)])  # image 0 is gone from its disk
    filled.fold()
    assert counts(filled)[0] == 5
    owner = ask(filled, f"SELECT plan FROM images WHERE image_id = {samples.make_image(0)[0].image_id}")
    assert owner == [{"plan": copies.home}]
    assert filled.maintenance.verify().faults == ()
    filled.maintenance.rebuild_tables()
    assert counts(filled)[0] == 5
    assert filled.maintenance.verify().faults == ()


def test_a_compaction_and_a_withdrawal_keep_copies_out(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = store_again(filled, samples, [0, 9])
    mask_again(filled, samples, copies, {"model": "other"})
    filled.fold()
    (row,) = ask(filled, "SELECT image_id, mask_id FROM masks ORDER BY mask_id LIMIT 1")
    filled.withdraw([(row["image_id"], row["mask_id"])], "wrong")
    monkeypatch.setattr("storage.tables.folds._COMPACTION_EVERY", newest_done(filled.store).number + 1)
    filled.fold()
    assert counts(filled) == (5, 12 + 3 - 1, 2)
    assert filled.maintenance.verify().faults == ()


def test_an_image_shard_and_its_masks_are_listed_in_an_order_that_never_separates_them(
    dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others commit an image shard and its masks while the records are listed."""
    samples.ingest(dataset, shards=1)
    store, real, done = dataset.store, dataset.store.list, list[str]()

    def listing(prefix: str) -> Any:
        found = list(real(prefix))
        if prefix == "commits/images" and not done:
            done.append(prefix)
            plan = store_again(dataset, samples, [0])
            mask_again(dataset, samples, plan, {"model": "other"})
        return iter(found)

    monkeypatch.setattr(store, "list", listing)
    dataset.fold()
    monkeypatch.undo()
    assert counts(dataset) == (2, 0, 2)
    assert dataset.maintenance.verify().faults == ()


def test_inputs_decide_the_name_and_settings_the_home(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset, shards=1)
    (address,) = (commit.address for commit in dataset.image_shards())
    shard = PlannedShard.from_inputs(address)
    plan = dataset.new_plan("masks", [shard], {"model": "a"})
    assert (plan.home, len(shard.name)) == (f"masks-by-{plan.settings_hash[:16]}", 16)
    assert PlannedShard.from_inputs(*image_inputs(plan.shards[0].inputs)).name == shard.name
    redo_of = samples.write_mask_shard(dataset, plan, shard)
    redo = dataset.maintenance.plan_redo(plan, [shard.name], {"model": "b"})
    assert (redo.home, redo.redoes, redo.address(redo.shards[0]).before) == (plan.home, plan.plan_id, redo_of.address)
    assert dataset.plan(redo.plan_id) == redo
