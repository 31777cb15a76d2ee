from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from storage.dataset import Dataset
from storage.protocol.commits import Commit, commit_to_json
from storage.protocol.inputs import image_inputs
from storage.tables import delta
from storage.tables.fold_log import newest_done


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    samples.ingest(dataset)
    samples.mask(dataset)
    dataset.fold()
    return dataset


def mask_commit(dataset: Dataset) -> Commit:
    return dataset.commits(dataset.plans()[1])[0]


def test_a_sound_dataset_has_no_faults_and_its_counts(filled: Dataset) -> None:
    report = filled.maintenance.verify()
    assert report.faults == ()
    assert (report.plans, report.records, report.objects, report.images, report.masks) == (2, 4, 8, 4, 12)
    assert report.nbytes == sum(
        path.stat().st_size for path in (Path(filled.uri) / "data").rglob("*") if path.is_file()
    )


def test_a_flipped_bit_a_torn_object_and_a_missing_one_are_each_named(filled: Dataset) -> None:
    parts = [part for plan in filled.plans() for commit in filled.commits(plan) for part in commit.parts]
    flipped, torn, missing = (Path(filled.uri) / part.key for part in parts[:3])
    data = bytearray(flipped.read_bytes())
    data[700] ^= 1
    flipped.write_bytes(data)
    torn.write_bytes(torn.read_bytes()[:-1])
    missing.unlink()
    faults = {fault.key: fault.what for fault in filled.maintenance.verify().faults}
    assert set(faults) == {part.key for part in parts[:3]}
    assert "SHA-256" in faults[parts[0].key]
    assert "the record says" in faults[parts[1].key]
    assert "no such object" in faults[parts[2].key]
    assert {fault.key for fault in filled.maintenance.verify(fast=True).faults} == {part.key for part in parts[1:3]}


def test_a_record_that_counts_wrong_is_named(filled: Dataset) -> None:
    commit = mask_commit(filled)
    parts = tuple(replace(part, masks=part.masks + 1) for part in commit.parts)
    filled.store.put(f"commits/{commit.address}.json", commit_to_json(replace(commit, parts=parts)))
    faults = filled.maintenance.verify().faults
    assert [fault.key for fault in faults] == [*(part.key for part in parts), "tables/masks"]
    assert "2 images and 6 masks, the record says 2 and 7" in faults[0].what


def test_a_torn_record_and_a_changed_plan_are_named(filled: Dataset) -> None:
    commit, plan = mask_commit(filled), filled.plans()[0]
    filled.store.put(f"commits/{commit.address}.json", b'{"format":1,')
    filled.store.put(f"plans/{plan.plan_id}.json", b"")
    expected = [f"plans/{plan.plan_id}.json", f"commits/{commit.address}.json"]
    assert [fault.key for fault in filled.maintenance.verify().faults] == expected


def test_tables_that_differ_from_the_records_are_named(filled: Dataset) -> None:
    table = delta.open_table(filled.store, "tables", "masks")
    table.delete("ordinal = 2")
    done = newest_done(filled.store)
    filled.store.put(
        "folds/00000001.done.json",
        filled.store.get("folds/00000001.done.json").replace(
            f'"masks":{done.versions["masks"]}'.encode(), f'"masks":{table.version()}'.encode()
        ),
    )
    faults = filled.maintenance.verify().faults
    assert {fault.key for fault in faults} == {"tables/masks"}
    assert "4 rows, its record counts 6" in faults[0].what


def test_objects_of_a_replaced_generation_are_checked_as_snapshots_still_read_them(
    filled: Dataset, samples: SimpleNamespace
) -> None:
    plan = filled.plans()[1]
    old = mask_commit(filled)
    redo = filled.maintenance.plan_redo(plan, ["00000"])
    samples.write_mask_shard(filled, redo, redo.shards[0], count=2)
    filled.fold()
    report = filled.maintenance.verify()
    assert report.faults == ()
    assert (report.records, report.objects, report.images, report.masks) == (5, 10, 4, 10)
    (tar,) = old.tars()
    path = Path(filled.uri) / tar.key
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    assert [fault.key for fault in filled.maintenance.verify().faults] == [tar.key]
    path.unlink()
    assert [fault.key for fault in filled.maintenance.verify(fast=True).faults] == [tar.key]
    filled.store.put(f"commits/{old.address}.json", b"{")
    assert [fault.key for fault in filled.maintenance.verify().faults] == [f"commits/{old.address}.json"]


def test_objects_that_two_generations_share_are_checked_once(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset, shards=1)
    plan = samples.plan_masks(dataset)
    (shard,) = plan.shards
    first, second = (image for image, _ in dataset.read_images(image_inputs(shard.inputs)[0]))
    old = dataset.write_masks(plan, shard, [(first, samples.make_masks(first, plan, shard))], [samples.make_reject(1)])
    redo = dataset.maintenance.plan_redo(plan)
    (shard,) = redo.shards
    dataset.write_masks(redo, shard, [(second, samples.make_masks(second, redo, shard))], inherited=old)
    dataset.fold()
    report = dataset.maintenance.verify()
    assert (report.faults, report.records, report.objects, report.images, report.masks) == ((), 3, 6, 2, 6)
    missing = Path(dataset.uri) / old.parts[0].key
    missing.unlink()
    assert [fault.key for fault in dataset.maintenance.verify().faults] == [old.parts[0].key]
