"""Owners of images stay owners: across folds, redos, compactions, rebuilds beside folds, and lost files."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from storage.dataset import Dataset
from storage.formats.documents import json_bytes
from storage.protocol.commits import Commit
from storage.protocol.inputs import MaskKey
from storage.protocol.plans import Plan, PlannedShard
from storage.tables import folds, rebuild
from storage.tables.fold_log import newest_done, read_fold
from tests.image_records import photo_key

SETTINGS = {"model": "seed-0123"}
PLACES = sorted(
    (f"place {number}" for number in range(8)), key=lambda place: PlannedShard.from_inputs(photo_key(place)).name
)
"""Places of photos, in the order of the names of their shards."""


def store_images(dataset: Dataset, samples: SimpleNamespace, place: str, *numbers: int) -> Plan:
    """Commits one image shard."""
    plan = dataset.new_plan("images", [PlannedShard.from_inputs(photo_key(place))], {"side_px": 1500})
    dataset.write_images(plan, plan.shards[0], [samples.make_image(number) for number in numbers])
    return plan


def redo(dataset: Dataset, samples: SimpleNamespace, plan: Plan, *numbers: int) -> None:
    """Commits an image shard anew, with these images alone."""
    again = dataset.maintenance.plan_redo(plan, [plan.shards[0].name])
    dataset.write_images(again, again.shards[0], [samples.make_image(number) for number in numbers])


def mask(dataset: Dataset, samples: SimpleNamespace, images: Plan) -> None:
    """Commits three masks for each image of an image shard."""
    plan = dataset.new_plan("masks", [PlannedShard.from_inputs(images.address(images.shards[0]))], SETTINGS)
    samples.write_mask_shard(dataset, plan, plan.shards[0])


def rows(dataset: Dataset) -> tuple[list[Any], list[Any]]:
    """Images with their owners, and masks."""
    images = dataset.query("SELECT image_id, plan, shard FROM images ORDER BY image_id")
    masks = dataset.query("SELECT image_id, mask_id FROM masks ORDER BY image_id, mask_id")
    return images.to_pylist(), masks.to_pylist()


def images_held(dataset: Dataset, samples: SimpleNamespace, upto: int) -> list[int]:
    """Numbers of the images in the table, each as often as it is there."""
    numbers = {samples.make_image(number)[0].image_id: number for number in range(upto)}
    return sorted(
        numbers[image_id] for image_id in dataset.query("SELECT image_id FROM images")["image_id"].to_pylist()
    )


def count_masks(dataset: Dataset, samples: SimpleNamespace, number: int) -> int:
    return int(dataset.masks_of_image(samples.make_image(number)[0].image_id).num_rows)


def lose_rows(dataset: Dataset, commit: Commit) -> None:
    for part in commit.parts:
        if part.key.endswith(".parquet"):
            dataset.store.delete(part.key)


def amend(dataset: Dataset, samples: SimpleNamespace, mask_id: int) -> Commit:
    """Commits one mask in the place of another one of the only image."""
    (address,) = (commit.address for commit in dataset.image_shards())
    ((image, _),) = dataset.read_images(address)
    inputs = (address, MaskKey(image_id=image.image_id, mask_id=mask_id))
    plan = dataset.new_plan("amendments", [PlannedShard.from_inputs(*inputs)], {"reason": "bitten edge"})
    (shard,) = plan.shards
    return dataset.write_masks(plan, shard, [(image, samples.make_masks(image, plan, shard, 1))])


def test_two_amendments_with_one_reason_both_bring_their_masks(dataset: Dataset, samples: SimpleNamespace) -> None:
    mask(dataset, samples, store_images(dataset, samples, PLACES[0], 0))
    dataset.fold()
    _, masks = rows(dataset)
    for row in masks[:2]:
        amend(dataset, samples, row["mask_id"])
        dataset.fold()
    assert count_masks(dataset, samples, 0) == 3
    assert dataset.maintenance.verify().faults == ()


def test_a_compaction_keeps_the_newest_decision_about_a_copy(
    dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy was folded in a small fold, and folded again in a large one when the owner lost the image."""
    monkeypatch.setattr(folds, "_SMALL_FOLD", 1)
    plans = []
    for place, numbers in zip(PLACES, ([0, 1], [0, 2], [3], [4]), strict=False):
        plans.append(store_images(dataset, samples, place, *numbers))
        dataset.fold()
    redo(dataset, samples, plans[0], 1)
    redo(dataset, samples, plans[2], 3)
    dataset.fold()
    before = rows(dataset)
    monkeypatch.setattr(folds, "_COMPACTION_EVERY", newest_done(dataset.store).number + 1)
    dataset.fold()
    compaction = read_fold(dataset.store, newest_done(dataset.store).number)
    assert (compaction.action, len(compaction.records)) == ("compact", 1)
    assert rows(dataset) == before
    assert images_held(dataset, samples, 5) == [0, 1, 2, 3, 4]
    assert dataset.maintenance.verify().faults == ()


def test_a_redo_moves_no_image_that_its_owner_still_has(dataset: Dataset, samples: SimpleNamespace) -> None:
    """The redo loses image 0, of which two shards have copies; one of them owns image 5, the other has a copy of it."""
    first = store_images(dataset, samples, PLACES[7], 0, 1)
    dataset.fold()
    second = store_images(dataset, samples, PLACES[6], 0, 5)
    dataset.fold()
    mask(dataset, samples, second)
    dataset.fold()
    third = store_images(dataset, samples, PLACES[0], 0, 5, 6)
    mask(dataset, samples, third)
    dataset.fold()
    (owner,) = (row for row in rows(dataset)[0] if row["image_id"] == samples.make_image(5)[0].image_id)
    redo(dataset, samples, first, 1)
    dataset.fold()
    assert owner in rows(dataset)[0]
    assert count_masks(dataset, samples, 5) == 3
    assert images_held(dataset, samples, 7) == [0, 1, 5, 6]
    assert dataset.maintenance.verify().faults == ()


def test_a_copy_that_becomes_the_owner_brings_no_second_set_of_masks(
    dataset: Dataset, samples: SimpleNamespace
) -> None:
    owner = store_images(dataset, samples, PLACES[0], 0, 1)
    mask(dataset, samples, owner)
    dataset.fold()
    mask(dataset, samples, store_images(dataset, samples, PLACES[1], 0, 2))
    dataset.fold()
    redo(dataset, samples, owner, 1)
    dataset.fold()
    assert images_held(dataset, samples, 3) == [0, 1, 2]
    assert len(rows(dataset)[1]) == 9
    assert dataset.maintenance.verify().faults == ()


def test_a_lost_record_of_a_copy_stops_no_redo(dataset: Dataset, samples: SimpleNamespace) -> None:
    owner = store_images(dataset, samples, PLACES[0], 0, 1)
    dataset.fold()
    copy = store_images(dataset, samples, PLACES[1], 0, 2)
    dataset.fold()
    dataset.store.delete(copy.address(copy.shards[0]).key)
    redo(dataset, samples, owner, 1, 3)
    dataset.fold()
    assert images_held(dataset, samples, 4) == [1, 2, 3]


@pytest.mark.parametrize("step", ["_take_folded", "put_rebuilt"])
def test_a_rebuild_beside_folds_keeps_their_owners(
    dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Others fold an image shard, one whose address sorts before it, and masks, before the rebuild has a number."""
    store_images(dataset, samples, PLACES[4], 1)
    dataset.fold()
    published: list[tuple[list[Any], list[Any]]] = []
    real = getattr(rebuild, step)

    def beside_folds(*args: Any) -> Any:
        result = real(*args)
        if not published:
            others = Dataset.open(dataset.uri)
            first = store_images(others, samples, PLACES[7], 2)
            others.fold()
            store_images(others, samples, PLACES[0], 2, 3)
            others.fold()
            mask(others, samples, first)
            others.fold()
            published.append(rows(others))
        return result

    monkeypatch.setattr(rebuild, step, beside_folds)
    dataset.maintenance.rebuild_tables()
    assert newest_done(dataset.store).folder != "tables"
    assert [rows(dataset)] == published
    assert dataset.maintenance.verify().faults == ()
    monkeypatch.undo()
    dataset.maintenance.rebuild_tables()
    assert [rows(dataset)] == published


def test_of_two_rebuilds_at_once_the_second_begins_again(
    dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_images(dataset, samples, PLACES[4], 1)
    dataset.fold()
    store_images(dataset, samples, PLACES[0], 1, 2)
    published: list[tuple[list[Any], list[Any]]] = []
    step = "claim_to_publish"
    real = getattr(rebuild, step)

    def beside_a_rebuild(*args: Any) -> None:
        monkeypatch.setattr(rebuild, step, real)
        Dataset.open(dataset.uri).maintenance.rebuild_tables()
        published.append(rows(dataset))
        real(*args)

    monkeypatch.setattr(rebuild, step, beside_a_rebuild)
    report = dataset.maintenance.rebuild_tables()
    assert (report.newest, report.records) == (3, 2)
    assert [rows(dataset)] == published
    assert dataset.maintenance.verify().faults == ()


def test_a_copy_takes_the_place_of_an_image_whose_rows_are_lost(dataset: Dataset, samples: SimpleNamespace) -> None:
    owner = store_images(dataset, samples, PLACES[0], 0, 1)
    dataset.fold()
    store_images(dataset, samples, PLACES[1], 0, 2)
    dataset.fold()
    lose_rows(dataset, *dataset.commits(owner))
    dataset.maintenance.rebuild_tables()
    assert images_held(dataset, samples, 3) == [0, 2]
    redo(dataset, samples, owner, 1)
    dataset.fold()
    assert images_held(dataset, samples, 3) == [0, 1, 2]
    dataset.maintenance.rebuild_tables()
    assert images_held(dataset, samples, 3) == [0, 1, 2]


def test_copies_of_earlier_folds_are_found_although_later_rows_are_lost(
    dataset: Dataset, samples: SimpleNamespace
) -> None:
    for number, numbers in enumerate(([0, 1], [0, 2])):
        store_images(dataset, samples, PLACES[number], *numbers)
        dataset.fold()
        fields = json.loads(dataset.store.get(f"folds/{number + 1:08d}.json"))
        for record in fields["records"]:
            del record["kept_out"]  # as an earlier version wrote it
        dataset.store.put(f"folds/{number + 1:08d}.json", json_bytes(fields))
    later = [store_images(dataset, samples, place, 3 + at) for at, place in enumerate(PLACES[2:5])]
    dataset.fold()
    for plan in later:
        lose_rows(dataset, *dataset.commits(plan))
    dataset.maintenance.rebuild_tables()
    assert images_held(dataset, samples, 6) == [0, 1, 2]


def test_a_withdrawal_whose_rows_are_lost_still_counts_after_a_rebuild(
    dataset: Dataset, samples: SimpleNamespace
) -> None:
    mask(dataset, samples, store_images(dataset, samples, PLACES[0], 0))
    dataset.fold()
    first, second, third = rows(dataset)[1]
    lose_rows(dataset, dataset.withdraw([(first["image_id"], first["mask_id"])], "a face"))
    dataset.maintenance.rebuild_tables()
    dataset.withdraw([(second["image_id"], second["mask_id"])], "wrong")
    assert rows(dataset)[1] == [third]


def test_an_amendment_whose_rows_are_lost_withdraws_nothing_after_a_rebuild(
    dataset: Dataset, samples: SimpleNamespace
) -> None:
    mask(dataset, samples, store_images(dataset, samples, PLACES[0], 0))
    dataset.fold()
    before = rows(dataset)
    commit = amend(dataset, samples, before[1][0]["mask_id"])
    dataset.fold()
    lose_rows(dataset, commit)
    dataset.maintenance.rebuild_tables()
    assert rows(dataset) == before
    assert {fault.key for fault in dataset.maintenance.verify().faults} >= {part.key for part in commit.rows()}


def test_a_rebuild_needs_no_log_at_all(dataset: Dataset, samples: SimpleNamespace) -> None:
    store_images(dataset, samples, PLACES[0], 0, 1)
    dataset.fold()
    for key in list(dataset.store.list("folds/")):
        dataset.store.delete(key)
    assert dataset.maintenance.rebuild_tables().newest == 0
    assert images_held(dataset, samples, 2) == [0, 1]


def test_a_redo_with_the_settings_of_another_plan_does_not_double_its_masks(
    dataset: Dataset, samples: SimpleNamespace
) -> None:
    samples.ingest(dataset, shards=1)
    first, second = (samples.mask(dataset, {"model": name}) for name in ("a", "b"))
    dataset.fold()
    redo = dataset.maintenance.plan_redo(first, [first.shards[0].name], dict(second.settings))
    samples.write_mask_shard(dataset, redo, redo.shards[0])
    dataset.fold()
    by_settings = "SELECT config_hash, count(*) AS n FROM masks GROUP BY config_hash"
    assert dataset.query(by_settings).to_pylist() == [{"config_hash": second.settings_hash, "n": 6}]
    again = dataset.maintenance.plan_redo(second, [second.shards[0].name], {"model": "c"})
    samples.write_mask_shard(dataset, again, again.shards[0])
    dataset.fold()
    settings = {row["config_hash"]: row["n"] for row in dataset.query(by_settings).to_pylist()}
    assert settings == {second.settings_hash: 6, again.settings_hash: 6}  # those of the first redo take their place
    assert dataset.maintenance.verify().faults == ()
    dataset.maintenance.rebuild_tables()
    assert {row["config_hash"]: row["n"] for row in dataset.query(by_settings).to_pylist()} == settings
    assert dataset.maintenance.verify().faults == ()
