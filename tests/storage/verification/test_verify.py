from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from deltalake import CommitProperties
from deltalake.exceptions import DeltaError

from storage.dataset import Dataset
from storage.errors import Corrupt
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, Part, commit_to_json
from storage.protocol.inputs import image_inputs
from storage.protocol.plans import PlannedShard, read_plan
from storage.tables import contents, delta, fold_log, folds
from storage.tables.columns import SCHEMAS
from storage.tables.fold_log import newest_done
from tests.image_records import photo_key


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
    record = commit.address.key
    assert [fault.key for fault in faults] == [*(part.key for part in parts), "tables/masks", "tables/shards", record]
    assert "2 images and 6 masks, the record says 2 and 7" in faults[0].what


def test_a_torn_record_and_a_changed_plan_are_named(filled: Dataset) -> None:
    commit, plan = mask_commit(filled), filled.plans()[0]
    filled.store.put(f"commits/{commit.address}.json", b'{"format":1,')
    filled.store.put(f"plans/{plan.plan_id}.json", b"")
    expected = [f"plans/{plan.plan_id}.json", f"commits/{commit.address}.json"]
    assert [fault.key for fault in filled.maintenance.verify().faults] == expected


def test_a_plan_that_is_gone_is_named_where_records_name_it(filled: Dataset) -> None:
    key = f"plans/{filled.plans()[1].plan_id}.json"
    filled.store.delete(key)
    assert [(fault.key, fault.what) for fault in filled.maintenance.verify().faults] == [
        (key, "no such object, but records name the plan")
    ]


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


def keys(dataset: Dataset, *, fast: bool = False) -> list[str]:
    return [fault.key for fault in dataset.maintenance.verify(fast=fast).faults]


def republish(dataset: Dataset) -> None:
    """Publishes the tables' newest versions, with proofs of what they are now, as a hostile writer would."""
    done = newest_done(dataset.store)
    versions = {name: delta.open_table(dataset.store, done.folder, name).version() for name in SCHEMAS}
    changed = replace(done, versions=versions, proofs=folds.publish(dataset.store, done.folder, versions))
    dataset.store.delete(f"folds/{done.number:08d}.done.json")
    fold_log.put_done(dataset.store, changed)


def test_a_redo_a_withdrawal_given_up_shards_a_compaction_and_a_rebuild_are_no_faults(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "_COMPACTION_EVERY", 4)
    redo = filled.maintenance.plan_redo(filled.plans()[1], ["00000"])
    samples.write_mask_shard(filled, redo, redo.shards[0], count=2)
    (withdrawn,) = filled.query("SELECT image_id, mask_id FROM masks WHERE shard = '00001' LIMIT 1").to_pylist()
    filled.withdraw([(withdrawn["image_id"], withdrawn["mask_id"])], "test")
    filled.maintenance.close(samples.plan_masks(filled, {"model": "other"}))
    assert filled.snapshot() is not None
    filled.fold()
    assert any(b'"compact"' in filled.store.get(key) for key in filled.store.list("folds/"))
    filled.snapshot()
    assert filled.maintenance.verify().faults == ()
    filled.maintenance.rebuild_tables()
    samples.ingest(filled, shards=1, first=50)
    filled.fold()
    filled.snapshot()
    assert filled.maintenance.verify().faults == ()
    assert filled.maintenance.verify(fast=True).faults == ()


@pytest.mark.parametrize(
    "error",
    [KeyError, AttributeError, RecursionError, MemoryError, OverflowError, OSError, pa.ArrowInvalid, DeltaError],
)
def test_whatever_an_object_raises_is_a_fault_that_names_it(
    filled: Dataset, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(store: ObjectStore, part: Part) -> pa.Table:
        raise error("x")

    monkeypatch.setattr(contents, "read_rows", fail)
    parts = {part.key for plan in filled.plans() for commit in filled.commits(plan) for part in commit.rows()}
    faults = filled.maintenance.verify().faults
    assert {fault.key for fault in faults} == parts
    assert all(error.__name__ in fault.what and fault.advice for fault in faults)


def test_deep_json_is_a_fault_wherever_it_lies(filled: Dataset) -> None:
    filled.snapshot()
    record, plan = mask_commit(filled).address.key, f"plans/{filled.plans()[0].plan_id}.json"
    (snapshot,) = filled.store.list("snapshots/")
    for key in (record, plan, snapshot, "folds/00000001.json"):
        filled.store.put(key, b'{"format":' + b"[" * 200_000)
    assert keys(filled) == [plan, "folds/00000001.json", record, snapshot]
    with pytest.raises(Corrupt, match="restore it from a copy"):
        read_plan(filled.store, plan.removeprefix("plans/").removesuffix(".json"))


def test_a_lost_log_of_folds_is_a_fault(filled: Dataset) -> None:
    filled.store.put("folds/00000001.done.json", b"{")
    assert set(keys(filled)) == {"folds/00000001.done.json", "folds/"}
    for key in list(filled.store.list("folds/")):
        filled.store.delete(key)
    assert keys(filled) == ["folds/"]


@pytest.mark.parametrize("name", [".DS_Store", ".nfs00001", "x.json~", "copy of 00000003.done.json", "0.g01.json"])
def test_foreign_files_are_named_and_in_nobodys_way(filled: Dataset, samples: SimpleNamespace, name: str) -> None:
    filled.snapshot()
    home = filled.plans()[1].plan_id
    foreign = [f"{folder}/{name}" for folder in (f"plans{'/x' if '01' in name else ''}", f"commits/{home}", "folds")]
    foreign += [f"snapshots/{name}"]
    for key in foreign:
        filled.store.put(key, b"{}")
    faults = filled.maintenance.verify().faults
    assert [fault.key for fault in faults] == foreign
    assert all(fault.advice == "move it out of the dataset" for fault in faults)
    samples.ingest(filled, shards=1, first=50)
    assert filled.fold().records == 1
    assert filled.query("SELECT count(*) AS n FROM images").to_pylist() == [{"n": 6}]


def test_rows_lost_from_shards_are_named_with_and_without_their_masks(filled: Dataset) -> None:
    plan = filled.plans()[1].plan_id
    delta.open_table(filled.store, "tables", "shards").delete(f"plan = '{plan}' AND shard = '00001'")
    republish(filled)
    assert keys(filled, fast=True) == ["tables/masks", "tables/shards"]
    delta.open_table(filled.store, "tables", "masks").delete("shard = '00001'")
    republish(filled)
    faults = filled.maintenance.verify().faults
    assert [fault.key for fault in faults] == ["tables/shards"]
    assert f"{plan}/00001.g0" in faults[0].what


@pytest.mark.parametrize(
    ("name", "changed"),
    [(name, {"plan": "masks-foreign"}) for name in SCHEMAS if name != "annotations"]
    + [(name, {"generation": 7}) for name in ("masks", "shards")],
)
def test_rows_that_no_record_names_are_named(filled: Dataset, name: str, changed: dict[str, object]) -> None:
    table = delta.open_table(filled.store, "tables", name)
    (row,) = filled.query(f"SELECT * FROM {name} LIMIT 1").to_pylist()
    columns = {"image_id": 5} if name in ("images", "masks") else {}
    delta.appending(name, lambda: [pa.Table.from_pylist([row | columns | changed], schema=SCHEMAS[name])])(
        table, CommitProperties()
    )
    republish(filled)
    assert f"tables/{name}" in keys(filled, fast=True)


def test_an_image_that_is_there_twice_is_named(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "find_duplicates", lambda *_: {})  # a fold that takes copies, as earlier versions did
    shard = PlannedShard(name="00000", inputs=(photo_key("elsewhere"),))
    plan = filled.new_plan("images", [shard], {"license": "another"})
    filled.write_images(plan, shard, [samples.make_image(0)])
    filled.fold()
    (fault,) = filled.maintenance.verify(fast=True).faults
    assert (fault.key, fault.what) == ("tables/images", "1 images are there more than once")


def test_proofs_of_the_newest_fold_are_checked(filled: Dataset) -> None:
    key = "folds/00000001.done.json"
    proof = newest_done(filled.store).proofs["rejects"]
    changed = filled.store.get(key).replace(proof.log_sha256.encode(), b"0" * 64)
    filled.store.put(key, changed)
    (fault,) = filled.maintenance.verify(fast=True).faults
    assert fault.key == "tables/rejects"
    assert "log entry" in fault.what


def test_a_destroyed_snapshot_is_named(filled: Dataset) -> None:
    snapshot = filled.snapshot()
    filled.maintenance.rebuild_tables()
    assert keys(filled) == []
    for key in list(filled.store.list("tables/masks/")):
        if key.endswith(".parquet"):
            filled.store.delete(key)
    assert keys(filled, fast=True) == [f"snapshots/{snapshot.snapshot_id}.json"]


@pytest.mark.parametrize(
    ("name", "updates"),
    [
        ("images", {"license": "'CC-BY-4.0'"}),
        ("masks", {"predicted_iou": "0.25"}),
        ("shards", {"seconds": "7.0"}),
        ("rejects", {"reason": "'other'"}),
    ],
)
def test_a_changed_value_is_named(filled: Dataset, name: str, updates: dict[str, str]) -> None:
    delta.open_table(filled.store, "tables", name).update(updates, predicate="shard = '00001'")
    republish(filled)
    faults = filled.maintenance.verify().faults
    assert {fault.key for fault in faults} == {f"tables/{name}"}
    assert all("values differ" in fault.what and "/00001.g0" in fault.what for fault in faults)


def test_a_changed_value_is_named_beside_withdrawn_masks(filled: Dataset) -> None:
    (withdrawn,) = filled.query("SELECT image_id, mask_id FROM masks WHERE shard = '00001' LIMIT 1").to_pylist()
    filled.withdraw([(withdrawn["image_id"], withdrawn["mask_id"])], "test")
    filled.fold()
    assert keys(filled) == []
    delta.open_table(filled.store, "tables", "masks").update(
        {"x0": "x0 + 1"}, predicate="shard = '00001' AND ordinal = 2"
    )
    republish(filled)
    (fault,) = filled.maintenance.verify().faults
    assert fault.what.endswith("values differ from those of its Parquet parts: x0")


def test_a_part_with_more_rows_than_its_record_counts_is_refused_unread(filled: Dataset) -> None:
    commit = mask_commit(filled)
    (part,) = commit.rows()
    fewer = replace(part, masks=part.masks - 1)
    with pytest.raises(Corrupt, match="6 rows, the record counts 5"):
        contents.read_rows(filled.store, fewer)


@pytest.mark.parametrize("key", ["../victim/x", "data/../plans/x", "plans/x.json", "data/x\n", "data", "data//x"])
def test_parts_of_a_record_lie_below_data_alone(filled: Dataset, key: str) -> None:
    commit = mask_commit(filled)
    parts = tuple(replace(part, key=key) for part in commit.parts)
    filled.store.put(commit.address.key, commit_to_json(replace(commit, parts=parts)))
    (fault,) = filled.maintenance.verify().faults
    assert fault.key == commit.address.key
    assert f"{key!r} does not match" in fault.what
