"""Newer generations of shards, and withdrawn masks: new records beside old ones, in the tables and for readers."""

from types import SimpleNamespace

import pytest

from storage.dataset import Dataset
from storage.protocol.commits import begin_attempt
from storage.protocol.inputs import MaskKey, image_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.tables.contents import put_masks


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    samples.ingest(dataset)
    samples.mask(dataset)
    dataset.fold()
    return dataset


@pytest.fixture
def half_masked(dataset: Dataset, samples: SimpleNamespace) -> tuple[Dataset, Plan]:
    """A mask shard whose second image failed."""
    samples.ingest(dataset, shards=1)
    plan = samples.plan_masks(dataset)
    (shard,) = plan.shards
    first = next(dataset.read_images(image_inputs(shard.inputs)[0]))[0]
    dataset.write_masks(plan, shard, [(first, samples.make_masks(first, plan, shard))], [samples.make_reject(1)])
    dataset.fold()
    return dataset, plan


def count(dataset: Dataset, table: str = "masks", where: str = "true") -> int:
    return dataset.query(f"SELECT count(*) AS n FROM {table} WHERE {where}").to_pylist()[0]["n"]


def test_failed_images_of_a_finished_shard_are_retried_as_a_new_generation(
    half_masked: tuple[Dataset, Plan], samples: SimpleNamespace
) -> None:
    dataset, plan = half_masked
    (old,) = dataset.commits(plan)
    redo = dataset.maintenance.plan_redo(plan)
    assert redo == dataset.maintenance.plan_redo(plan)
    (shard,) = redo.shards
    assert (shard.generation, shard.previous, redo.redoes) == (1, old.record_sha256, plan.plan_id)
    assert dataset.missing(redo) == [shard]
    _, second = (image for image, _ in dataset.read_images(image_inputs(shard.inputs)[0]))
    new = dataset.write_masks(redo, shard, [(second, samples.make_masks(second, redo, shard))], inherited=old)
    assert str(new.address) == str(redo.address(shard)) == f"{plan.plan_id}/00000.g1"
    assert (new.images, new.masks, new.rejects, new.made_by) == (2, 6, (), redo.plan_id)
    assert dataset.missing(redo) == dataset.missing(plan) == []
    assert dataset.commits(plan) == dataset.commits(redo) == [new]
    assert [len(masks) for _, masks in dataset.read_masks(new)] == [3, 3]
    assert (count(dataset), count(dataset, "rejects", "stage = 'ingest'")) == (3, 2)
    dataset.fold()
    assert (count(dataset), count(dataset, "rejects"), count(dataset, "shards")) == (6, 1, 2)
    generations = dataset.query(
        "SELECT generation, count(*) AS n FROM masks GROUP BY generation ORDER BY 1"
    ).to_pylist()
    assert generations == [{"generation": 0, "n": 3}, {"generation": 1, "n": 3}]
    assert dataset.maintenance.verify().faults == ()


def test_a_whole_shard_made_again_replaces_its_rows_at_once(filled: Dataset, samples: SimpleNamespace) -> None:
    plan = filled.plans()[1]
    before = filled.snapshot()
    redo = filled.maintenance.plan_redo(plan, ["00001"], {"model": "better"})
    samples.write_mask_shard(filled, redo, redo.shards[0], count=5)
    filled.fold()
    assert count(filled) == 6 + 10
    assert filled.query("SELECT count(*) AS n FROM masks", before.snapshot_id).to_pylist() == [{"n": 12}]
    assert filled.query("SELECT DISTINCT config_hash FROM masks WHERE generation = 1").to_pylist() == [
        {"config_hash": redo.settings_hash}
    ]
    image, masks = next(filled.read_masks(filled.commits(plan)[1]))
    assert filled.read_mask(image.image_id, masks[4].mask_id).rle == masks[4].rle
    assert filled.maintenance.verify().faults == ()


def test_a_worker_of_the_old_generation_thawed_after_the_redo_changes_nothing(
    filled: Dataset, samples: SimpleNamespace
) -> None:
    plan = filled.plans()[1]
    shard = plan.shards[0]
    frozen = begin_attempt(filled.store, plan, shard)
    images = [image for image, _ in filled.read_images(image_inputs(shard.inputs)[0])]
    put_masks(frozen, [(image, samples.make_masks(image, plan, shard)) for image in images])
    redo = filled.maintenance.plan_redo(plan, ["00000"])
    samples.write_mask_shard(filled, redo, redo.shards[0], count=4)
    filled.fold()
    assert frozen.commit().attempt_id != frozen.attempt_id
    filled.fold()
    assert count(filled) == 8 + 6
    assert filled.maintenance.verify().faults == ()


def test_two_generations_that_were_never_folded_count_once(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset, shards=1)
    plan = samples.mask(dataset)
    redo = dataset.maintenance.plan_redo(plan, ["00000"])
    samples.write_mask_shard(dataset, redo, redo.shards[0], count=2)
    dataset.fold()
    assert (count(dataset), count(dataset, "shards", "kind = 'masks'")) == (4, 1)
    assert dataset.maintenance.verify().faults == ()


def test_what_cannot_be_redone_is_refused(filled: Dataset, samples: SimpleNamespace) -> None:
    plan = filled.plans()[1]
    with pytest.raises(ValueError, match="no finished shard has rejects"):
        filled.maintenance.plan_redo(plan)
    open_plan = filled.new_plan("masks", [PlannedShard(name="new")], {})
    with pytest.raises(ValueError, match="no record of new; only finished shards are redone"):
        filled.maintenance.plan_redo(open_plan, ["new"])
    redo = filled.maintenance.plan_redo(plan, ["00000"])
    old, other = filled.commits(plan)
    image = next(filled.read_masks(old))[0]
    with pytest.raises(ValueError, match=r"is in .* already"):
        filled.write_masks(redo, redo.shards[0], [(image, [])], inherited=old)
    with pytest.raises(ValueError, match="not the one that 00000 was planned to replace"):
        filled.write_masks(redo, redo.shards[0], [], inherited=other)


def test_withdrawn_masks_are_gone_from_tables_and_shards_but_not_from_earlier_snapshots(filled: Dataset) -> None:
    plan = filled.plans()[1]
    before = filled.snapshot()
    pairs = filled.query("SELECT image_id, mask_id FROM masks WHERE ordinal = 1").to_pylist()
    pairs = [(pair["image_id"], pair["mask_id"]) for pair in pairs]
    record = filled.withdraw(pairs, "shows a number plate")
    assert record == filled.withdraw(pairs, "shows a number plate")
    assert count(filled) == 12 - 4
    assert count(filled, where="ordinal = 1") == 0
    for commit in filled.commits(plan):
        assert [len(masks) for _, masks in filled.read_masks(commit)] == [2, 2]
        assert [len(masks) for _, masks in filled.read_masks(commit, snapshot=before.snapshot_id)] == [3, 3]
    assert filled.query("SELECT count(*) AS n FROM masks", before.snapshot_id).to_pylist() == [{"n": 12}]
    assert filled.read_mask(*pairs[0], snapshot=before.snapshot_id).mask_id == pairs[0][1]
    checked = filled.maintenance.verify()
    assert (checked.faults, checked.masks, checked.withdrawn) == ((), 12, 4)
    filled.maintenance.rebuild_tables()
    assert count(filled) == 8
    assert filled.maintenance.verify().faults == ()


def test_a_redo_that_inherits_does_not_bring_withdrawn_masks_back(
    half_masked: tuple[Dataset, Plan], samples: SimpleNamespace
) -> None:
    dataset, plan = half_masked
    (old,) = dataset.commits(plan)
    gone = next(dataset.read_masks(old))[1][0]
    dataset.withdraw([(gone.image_id, gone.mask_id)], "wrong")
    redo = dataset.maintenance.plan_redo(plan)
    _, second = (image for image, _ in dataset.read_images(image_inputs(redo.shards[0].inputs)[0]))
    shard = redo.shards[0]
    dataset.write_masks(redo, shard, [(second, samples.make_masks(second, redo, shard))], inherited=old)
    dataset.fold()
    assert count(dataset) == 5
    assert count(dataset, where=f"mask_id = {gone.mask_id}") == 0
    assert dataset.maintenance.verify().faults == ()


def test_masks_that_are_not_there_cannot_be_withdrawn(filled: Dataset) -> None:
    with pytest.raises(ValueError, match=r"1 of 1 masks are not in fold 1, the first is \(1, 2\)"):
        filled.withdraw([(1, 2)], "wrong")
    with pytest.raises(ValueError, match="no mask was named"):
        filled.withdraw([], "wrong")


def test_withdrawals_of_a_generation_that_was_replaced_count_no_more(filled: Dataset, samples: SimpleNamespace) -> None:
    plan = filled.plans()[1]
    image, masks = next(filled.read_masks(filled.commits(plan)[0]))
    filled.withdraw([(image.image_id, mask.mask_id) for mask in masks], "all wrong")
    redo = filled.maintenance.plan_redo(plan, ["00000"])
    samples.write_mask_shard(filled, redo, redo.shards[0])
    filled.fold()
    assert count(filled) == 12
    assert filled.maintenance.verify().faults == ()


def test_a_withdrawal_closed_unmade_takes_nothing_back_and_later_folds_go_on(
    filled: Dataset, samples: SimpleNamespace
) -> None:
    plan = filled.new_plan(
        "withdrawals", [PlannedShard.from_inputs(MaskKey(image_id=1, mask_id=2))], {"reason": "wrong"}
    )
    assert len(filled.maintenance.close(plan)) == 1
    with pytest.raises(ValueError, match=r"was given up .* give another reason"):
        filled.withdraw([(1, 2)], "wrong")
    samples.ingest(filled, shards=1, first=50)
    filled.fold()
    assert (count(filled), count(filled, "images")) == (12, 6)
    assert filled.maintenance.verify().faults == ()


def test_a_second_redo_with_other_settings_waits_for_the_first(filled: Dataset, samples: SimpleNamespace) -> None:
    plan = filled.plans()[1]
    first = filled.maintenance.plan_redo(plan, ["00000"], {"model": "better"})
    with pytest.raises(ValueError, match=f"plan {first.plan_id} redoes shard 00000 with other settings"):
        filled.maintenance.plan_redo(plan, ["00000", "00001"], {"model": "best"})
    assert filled.maintenance.plan_redo(plan, ["00001"], {"model": "best"}).shards[0].generation == 1
    samples.write_mask_shard(filled, first, first.shards[0])
    assert filled.maintenance.plan_redo(plan, ["00000"], {"model": "best"}).shards[0].generation == 2
