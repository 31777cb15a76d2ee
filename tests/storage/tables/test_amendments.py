"""Amendments: one fold removes masks and adds those that take their place."""

from types import SimpleNamespace
from typing import Any

import pytest

from storage.dataset import Dataset
from storage.protocol.commits import Commit
from storage.protocol.inputs import MaskKey
from storage.protocol.plans import Plan, PlannedShard
from storage.tables import folds
from storage.tables.fold_log import newest_done


class Died(Exception):
    pass


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    """Four images with three masks each."""
    samples.ingest(dataset)
    samples.mask(dataset)
    dataset.fold()
    return dataset


def mask_ids(dataset: Dataset, snapshot: str | None = None) -> set[int]:
    return set(dataset.query("SELECT mask_id FROM masks", snapshot)["mask_id"].to_pylist())


def plan_amendment(dataset: Dataset, masks: list[MaskKey], **settings: Any) -> Plan:
    """Plans to replace masks of the first image shard."""
    inputs = (dataset.image_shards()[0].address, *masks)
    return dataset.new_plan("amendments", [PlannedShard.from_inputs(*inputs)], {"reason": "bitten edge"} | settings)


def first_masks(dataset: Dataset, number: int = 2) -> list[MaskKey]:
    """Masks of the first image of the first image shard."""
    (image, _), *_ = dataset.read_images(dataset.image_shards()[0])
    rows = dataset.masks_of_image(image.image_id).to_pylist()
    return [MaskKey(image_id=row["image_id"], mask_id=row["mask_id"]) for row in rows[:number]]


def write(dataset: Dataset, samples: SimpleNamespace, plan: Plan, count: int = 1) -> Commit:
    (image, _), *_ = dataset.read_images(dataset.image_shards()[0])
    (shard,) = plan.shards
    commit: Commit = dataset.write_masks(plan, shard, [(image, samples.make_masks(image, plan, shard, count))])
    return commit


def test_readers_see_the_old_masks_or_the_new_ones_and_never_both(filled: Dataset, samples: SimpleNamespace) -> None:
    gone = first_masks(filled)
    before, snapshot = mask_ids(filled), filled.snapshot()
    plan = plan_amendment(filled, gone)
    commit = write(filled, samples, plan)
    seen = []
    folds.fold(filled.store, before_step=lambda step: seen.append(mask_ids(filled)))
    (new,) = mask_ids(filled) - before
    assert before - mask_ids(filled) == {key.mask_id for key in gone}
    assert all(each == before for each in seen)
    assert filled.query("SELECT kind FROM shards WHERE plan LIKE 'amendments%'").to_pylist() == [{"kind": "amendments"}]
    assert filled.read_mask(gone[0].image_id, new).provenance.plan_id == commit.plan_id == plan.home
    assert [len(masks) for _, masks in filled.read_masks(commit)] == [1]
    assert mask_ids(filled, snapshot.snapshot_id) == before
    assert filled.read_mask(gone[0].image_id, gone[0].mask_id, snapshot=snapshot.snapshot_id)
    checked = filled.maintenance.verify()
    assert (checked.faults, checked.masks, checked.withdrawn) == ((), 13, 2)


def test_a_rebuild_a_compaction_and_a_later_withdrawal_keep_an_amendment(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(filled, samples, plan_amendment(filled, first_masks(filled)), count=2)
    filled.fold()
    amended = mask_ids(filled)
    assert len(amended) == 12
    filled.maintenance.rebuild_tables()
    assert mask_ids(filled) == amended
    (kept, *_) = first_masks(filled, 1)
    filled.withdraw([(kept.image_id, kept.mask_id)], "wrong")
    monkeypatch.setattr(folds, "_COMPACTION_EVERY", newest_done(filled.store).number + 1)
    filled.fold()
    assert mask_ids(filled) == amended - {kept.mask_id}
    assert filled.maintenance.verify().faults == ()


@pytest.mark.parametrize("step", ["plan", *(f"apply {name}" for name in ("images", "masks", "shards")), "done"])
def test_a_fold_that_dies_at_any_step_is_completed_by_the_next(
    filled: Dataset, samples: SimpleNamespace, step: str
) -> None:
    gone, before = first_masks(filled), mask_ids(filled)
    write(filled, samples, plan_amendment(filled, gone))

    def die(at: str) -> None:
        if at == step:
            raise Died

    with pytest.raises(Died):
        folds.fold(filled.store, before_step=die)
    assert mask_ids(filled) == before
    filled.fold()
    assert len(mask_ids(filled)) == 11
    assert filled.maintenance.verify().faults == ()


def test_an_amendment_of_a_mask_that_is_not_there_writes_nothing(filled: Dataset, samples: SimpleNamespace) -> None:
    plan = plan_amendment(filled, [MaskKey(image_id=1, mask_id=2)])
    with pytest.raises(ValueError, match=r"1 of 1 masks are not in fold 1, the first is \(1, 2\)"):
        write(filled, samples, plan)
    assert not any("amendments" in key for key in filled.store.list("data/"))


def test_two_amendments_of_one_mask_withdraw_it_once_and_both_add(filled: Dataset, samples: SimpleNamespace) -> None:
    gone = first_masks(filled, 1)
    for number in range(2):
        write(filled, samples, plan_amendment(filled, gone, by=number))
    filled.fold()
    assert len(mask_ids(filled)) == 12 - 1 + 2
    assert filled.maintenance.verify().faults == ()


def test_amendments_are_not_made_again(filled: Dataset, samples: SimpleNamespace) -> None:
    plan = plan_amendment(filled, first_masks(filled))
    write(filled, samples, plan)
    with pytest.raises(ValueError, match="amendments are not made again; withdraw or amend masks once more"):
        filled.maintenance.plan_redo(plan, [plan.shards[0].name])
