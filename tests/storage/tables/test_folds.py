"""Folding: every record once, the four tables together, whoever dies or races."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from storage.dataset import Dataset
from storage.errors import Corrupt
from storage.objects.local import LocalStore
from storage.objects.stores import ObjectStore
from storage.protocol.commits import commit_to_json
from storage.protocol.inputs import ShardAddress
from storage.tables import delta, folds
from storage.tables import rebuild as rebuilding
from storage.tables.columns import MASKS, SCHEMAS
from storage.tables.fold_log import DoneFold, FoldedRecord, newest_done, put_done, read_fold
from storage.tables.query import query
from storage.tables.withdrawals import withdraw
from tests.paths import ROOT

STEPS = ["plan", *(f"apply {name}" for name in SCHEMAS), "make durable", "done"]
COUNTS = """SELECT (SELECT count(*) FROM images) AS images, (SELECT count(*) FROM masks) AS masks,
    (SELECT count(*) FROM shards) AS shards, (SELECT count(*) FROM rejects) AS rejects"""


def counts(dataset: Dataset, snapshot: str | None = None) -> tuple[int, ...]:
    (row,) = dataset.query(COUNTS, snapshot).to_pylist()
    return tuple(row.values())


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    """Two image shards of 2 images and a reject each, two mask shards of 6 masks each; nothing folded."""
    samples.ingest(dataset)
    samples.mask(dataset)
    return dataset


def test_a_fold_brings_every_record_into_the_tables_once(filled: Dataset) -> None:
    assert counts(filled) == (0, 0, 0, 0)
    report = filled.fold()
    assert (report.folds, report.records, report.newest) == (1, 4, 1)
    assert counts(filled) == (4, 12, 4, 2)


def test_a_fold_and_a_rebuild_say_how_many_records_are_done(filled: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "MAX_RECORDS", 3)
    monkeypatch.setattr(rebuilding, "MAX_RECORDS", 3)
    told: list[tuple[int, int]] = []
    filled.snapshot(on_records=lambda *now: told.append(now))
    assert list(dict.fromkeys(told)) == [(0, 4), (3, 4)]
    told.clear()
    filled.maintenance.rebuild_tables(on_records=lambda *now: told.append(now))
    assert told == [(0, 4), (3, 4)]


def test_folding_again_changes_nothing(filled: Dataset) -> None:
    filled.fold()
    before = [delta.open_table(filled.store, "tables", name).version() for name in SCHEMAS]
    report = filled.fold()
    assert (report.folds, report.records, report.newest) == (0, 0, 1)
    assert [delta.open_table(filled.store, "tables", name).version() for name in SCHEMAS] == before
    assert counts(filled) == (4, 12, 4, 2)


class Died(BaseException):
    """Nothing catches it: as good as a kill between two steps."""


@pytest.mark.parametrize("step", STEPS)
def test_a_fold_that_died_before_any_step_was_never_seen_and_the_next_one_completes_it(
    filled: Dataset, samples: SimpleNamespace, step: str
) -> None:
    def die(at: str | None) -> None:
        if at == step:
            raise Died

    with pytest.raises(Died):
        folds.fold(filled.store, before_step=die)
    assert counts(filled) == (0, 0, 0, 0)
    samples.ingest(filled, shards=1, first=50)  # comes while the fold lies half done
    filled.fold()
    assert counts(filled) == (6, 12, 5, 3)
    assert filled.maintenance.verify().faults == ()


def test_a_fold_killed_at_random_moments_is_completed_by_the_next(filled: Dataset) -> None:
    script = f"from storage.dataset import Dataset; print('go', flush=True); Dataset.open({filled.uri!r}).fold()"
    for milliseconds in (5, 20, 40, 60, 80, 100):
        child = subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
        )
        child.stdout.readline()
        try:
            child.wait(timeout=milliseconds / 1000)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        child.communicate()
        assert counts(filled) in ((0, 0, 0, 0), (4, 12, 4, 2))
    filled.fold()
    assert counts(filled) == (4, 12, 4, 2)
    assert filled.maintenance.verify().faults == ()


def test_readers_see_the_old_fold_whole_until_the_new_one_is_whole(filled: Dataset, samples: SimpleNamespace) -> None:
    filled.fold()
    samples.ingest(filled, shards=1, first=50)
    seen = []
    folds.fold(filled.store, before_step=lambda step: seen.append((step, counts(filled))))
    assert seen == [(step, (4, 12, 4, 2)) for step in STEPS]
    assert counts(filled) == (6, 12, 5, 3)


def test_racing_folders_fold_every_record_once(filled: Dataset, samples: SimpleNamespace) -> None:
    barrier, errors = threading.Barrier(6), []

    def work() -> None:
        barrier.wait()
        try:
            filled.fold()
        except Exception as error:
            errors.append(error)

    for round_number in range(3):
        samples.ingest(filled, shards=2, first=100 * (round_number + 1))
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert counts(filled) == (4 + 12, 12, 4 + 6, 2 + 6)
    assert filled.maintenance.verify().faults == ()


def test_a_folder_thawed_with_an_old_handle_cannot_write_its_rows_again(filled: Dataset) -> None:
    """Its handle was opened before another process applied the same fold."""
    old_handle = DeltaTable(filled.store.table_uri("tables", "images"))
    filled.fold()
    rows = delta.open_table(filled.store, "tables", "images").to_pyarrow_table()
    once = CommitProperties(app_transactions=[Transaction("fold", 1)], max_commit_retries=0)
    with pytest.raises(Exception, match=r"transaction|version|conflict"):
        write_deltalake(old_handle, rows, mode="append", commit_properties=once)
    assert counts(filled) == (4, 12, 4, 2)
    assert delta.open_table(filled.store, "tables", "images").to_pyarrow_table().num_rows == 4


def test_a_record_changed_after_its_fold_began_is_refused(filled: Dataset) -> None:
    def change(step: str) -> None:
        if step == "apply images":
            raise Died

    with pytest.raises(Died):
        folds.fold(filled.store, before_step=change)
    record = filled.commits(filled.plans()[0])[0]
    filled.store.put(f"commits/{record.address}.json", commit_to_json(replace(record, seconds=9.0)))
    with pytest.raises(Corrupt, match="changed after it was folded"):
        filled.fold()


def test_large_folds_are_split(filled: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "MAX_RECORDS", 3)
    assert filled.fold().folds == 2
    assert counts(filled) == (4, 12, 4, 2)


def num_files(dataset: Dataset, name: str) -> int:
    done = newest_done(dataset.store)
    return len(delta.open_table(dataset.store, done.folder, name, done.versions[name]).file_uris())


@pytest.fixture
def crowded(filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Three folds, of which the second replaces a shard; the fourth puts their files together."""
    filled.fold()
    redo_plan = filled.maintenance.plan_redo(filled.plans()[1], ["00000"], {"model": "better"})
    samples.write_mask_shard(filled, redo_plan, redo_plan.shards[0], count=2)
    filled.fold()
    (pair,) = filled.query("SELECT image_id, mask_id FROM masks ORDER BY mask_id LIMIT 1").to_pylist()
    filled.withdraw([tuple(pair.values())], "wrong")
    monkeypatch.setattr(folds, "_COMPACTION_EVERY", 4)
    return filled


CROWDED = (4, 9, 5, 2)


def test_the_files_of_small_folds_are_put_together_and_no_answer_changes(crowded: Dataset) -> None:
    done, sql = newest_done(crowded.store), "SELECT * FROM masks ORDER BY image_id, mask_id"
    rows, versions = query(crowded.store, done, sql), done.versions
    assert (done.number, num_files(crowded, "shards")) == (3, 2)
    report = crowded.fold()
    assert (report.folds, report.records, report.newest) == (1, 0, 4)
    filled_tables = [name for name in SCHEMAS if name != "annotations"]
    assert {name: num_files(crowded, name) for name in filled_tables} == dict.fromkeys(filled_tables, 1)
    assert crowded.query(sql) == query(crowded.store, done, sql) == rows
    assert newest_done(crowded.store).versions != versions
    assert crowded.maintenance.verify().faults == ()
    assert crowded.fold().folds == 0


def test_large_folds_are_left_as_they_are(crowded: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "_SMALL_FOLD", 1)
    crowded.fold()
    assert num_files(crowded, "images") == 1  # of the first fold, with 4 records
    assert counts(crowded) == CROWDED
    assert crowded.maintenance.verify().faults == ()


def test_a_shard_that_a_large_fold_replaced_is_not_put_together_as_it_was_before(
    dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.ingest(dataset, shards=3)
    plan = samples.plan_masks(dataset)
    for shard in plan.shards:
        samples.write_mask_shard(dataset, plan, shard)
        dataset.fold()
    redo_plan = dataset.maintenance.plan_redo(plan, [shard.name for shard in plan.shards], {"model": "better"})
    for shard in redo_plan.shards:
        samples.write_mask_shard(dataset, redo_plan, shard, count=2)
    assert dataset.fold().newest == 4
    monkeypatch.setattr(folds, "_COMPACTION_EVERY", 5)
    monkeypatch.setattr(folds, "_SMALL_FOLD", 2)
    samples.ingest(dataset, shards=1, first=50)
    seen = []
    folds.fold(dataset.store, before_step=lambda step: seen.append(counts(dataset)[1]))
    assert {*seen, counts(dataset)[1]} == {12}
    assert dataset.maintenance.verify().faults == ()


@pytest.mark.parametrize("step", STEPS)
def test_who_dies_while_putting_files_together_is_never_seen_and_the_next_one_completes_it(
    crowded: Dataset, samples: SimpleNamespace, step: str
) -> None:
    def die(at: str | None) -> None:
        if at == step:
            raise Died

    with pytest.raises(Died):
        folds.fold(crowded.store, before_step=die)
    assert counts(crowded) == CROWDED
    samples.ingest(crowded, shards=1, first=50)
    crowded.fold()
    assert counts(crowded) == (6, 9, 6, 3)
    assert crowded.maintenance.verify().faults == ()


def test_racing_folders_that_put_files_together_fold_every_record_once(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "_COMPACTION_EVERY", 3)
    errors = []

    def work() -> None:
        try:
            filled.fold()
        except Exception as error:
            errors.append(error)

    for number in range(1, 5):
        samples.ingest(filled, shards=1, first=50 * number)
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert "compact" in [read_fold(filled.store, number).action for number in range(1, 5)]
    assert counts(filled) == (4 + 8, 12, 4 + 4, 2 + 4)
    assert filled.maintenance.verify().faults == ()


def test_a_part_that_is_damaged_is_never_folded_and_is_named(filled: Dataset) -> None:
    commit = filled.commits(filled.plans()[1])[0]
    (part,) = commit.rows()
    data = filled.store.get(part.key)
    filled.store.put(part.key, data[:-1] + b"!")
    assert filled.fold().set_aside == (str(commit.address),)
    assert counts(filled) == (4, 6, 3, 2)
    assert [fault.key for fault in filled.maintenance.verify().faults] == [part.key]
    filled.store.put(part.key, data)
    filled.fold()
    assert counts(filled) == (4, 12, 4, 2)


def test_the_rows_of_a_shard_lie_together_and_carry_their_documentation(
    dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "_BATCH_ROWS", 9)  # batches of three shards, written in whatever order they are ready
    samples.ingest(dataset, shards=24, images=1)
    samples.mask(dataset)
    dataset.fold()
    table = delta.open_table(dataset.store, "tables", "masks")
    rows = table.to_pyarrow_table()
    places = list(zip(*(rows.column(name).to_pylist() for name in ("plan", "shard")), strict=True))
    assert rows.column("ordinal").to_pylist() == [0, 1, 2] * 24
    assert [places[start] for start in range(0, 72, 3)] == [place for place, _ in groupby(places)]
    assert len(set(places)) == 24
    comments = {field.name: field.metadata.get("comment") for field in table.schema().fields}
    assert comments == {field.name: field.metadata[b"comment"].decode() for field in MASKS}


def test_a_dataset_without_its_folds_says_it_is_incomplete(dataset: Dataset) -> None:
    for key in list(dataset.store.list("folds/")):
        dataset.store.delete(key)
    with pytest.raises(Corrupt, match="copied in part"):
        dataset.query("SELECT 1")


def test_tables_are_rebuilt_from_the_records_alone(filled: Dataset) -> None:
    filled.fold()
    before = filled.snapshot()
    snapshot_key = f"snapshots/{before.snapshot_id}.json"
    rows = filled.query("SELECT * FROM masks ORDER BY image_id, mask_id")
    for table in ("images", "masks"):
        for key in list(filled.store.list(f"tables/{table}/")):
            filled.store.delete(key)
    with pytest.raises(Corrupt, match="run `gigamask verify`"):
        filled.query("SELECT * FROM masks")
    named = {fault.key for fault in filled.maintenance.verify().faults}
    assert named >= {"tables/images", "tables/masks", snapshot_key}
    report = filled.maintenance.rebuild_tables()
    assert (report.records, report.newest) == (4, 2)
    assert counts(filled) == (4, 12, 4, 2)
    assert filled.query("SELECT * FROM masks ORDER BY image_id, mask_id") == rows
    assert filled.snapshot().records_sha256 == before.records_sha256
    assert [fault.key for fault in filled.maintenance.verify().faults] == [snapshot_key]  # its own tables are gone


def test_folding_goes_on_after_a_rebuild_and_a_half_done_fold_is_in_it(
    filled: Dataset, samples: SimpleNamespace
) -> None:
    def die(step: str) -> None:
        if step == "apply shards":
            raise Died

    with pytest.raises(Died):
        folds.fold(filled.store, before_step=die)
    filled.maintenance.rebuild_tables()
    assert counts(filled) == (4, 12, 4, 2)
    assert filled.fold().records == 0
    samples.ingest(filled, shards=1, first=50)
    assert filled.fold().records == 1
    assert counts(filled) == (6, 12, 5, 3)
    assert filled.maintenance.verify().faults == ()


def test_a_rebuild_mends_a_fold_that_cannot_be_read_for_good(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "_COMPACTION_EVERY", 5)
    filled.fold()
    filled.store.put("folds/00000001.done.json", b"torn")
    with pytest.raises(Corrupt):
        filled.fold()
    filled.maintenance.rebuild_tables()
    for number in (1, 2, 3):
        samples.ingest(filled, shards=1, first=50 * number)
        filled.fold()
    assert [read_fold(filled.store, number).action for number in (3, 4, 5)] == ["append", "append", "compact"]
    assert counts(filled) == (10, 12, 7, 5)
    assert filled.maintenance.verify().faults == ()


def test_a_rebuild_takes_what_others_fold_meanwhile(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, overtaken = rebuilding._take_folded, list[str]()

    def take_folded(store: ObjectStore, built: DoneFold, *more: Any) -> tuple[DoneFold, list[FoldedRecord]]:
        taken = real(store, built, *more)
        if not overtaken:
            overtaken.append(built.folder)
            samples.ingest(filled, shards=1, first=50)
            filled.fold()
        return taken

    monkeypatch.setattr(rebuilding, "_take_folded", take_folded)
    filled.maintenance.rebuild_tables()
    assert counts(filled) == (6, 12, 5, 3)
    assert newest_done(filled.store).folder == overtaken[0]
    assert filled.maintenance.verify().faults == ()


def test_a_withdrawal_that_lands_during_a_rebuild_is_wholly_in_it(
    filled: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.fold()
    (pair,) = filled.query("SELECT image_id, mask_id FROM masks ORDER BY mask_id LIMIT 1").to_pylist()
    real, seen = rebuilding._take_folded, list[Any]()

    def take_folded(store: ObjectStore, built: DoneFold, *more: Any) -> tuple[DoneFold, list[FoldedRecord]]:
        if not seen:
            seen.append(withdraw(store, newest_done(store), [tuple(pair.values())], "wrong"))
        return real(store, built, *more)

    monkeypatch.setattr(rebuilding, "_take_folded", take_folded)
    filled.maintenance.rebuild_tables()
    assert counts(filled) == (4, 11, 5, 2)
    assert filled.maintenance.verify().faults == ()
    filled.fold()
    assert counts(filled) == (4, 11, 5, 2)
    assert filled.maintenance.verify().faults == ()


def test_a_rebuild_ends_though_somebody_folds_between_all_its_tries(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try takes what came meanwhile, so that the tables of the first one are published in the end."""
    real, tries = put_done, list[Any]()

    def put(store: ObjectStore, done: DoneFold) -> None:
        if done.folder != "tables" and len(tries) < 4:
            tries.append(done.folder)
            samples.ingest(filled, shards=1, first=50 * len(tries))
            filled.fold()
        real(store, done)

    monkeypatch.setattr(rebuilding, "put_done", put)
    filled.maintenance.rebuild_tables()
    assert set(tries) == {newest_done(filled.store).folder}
    assert counts(filled) == (12, 12, 8, 6)
    assert filled.maintenance.verify().faults == ()


def test_a_rebuild_whose_answer_is_lost_keeps_the_tables_it_published(
    filled: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks again and is told that the object is there: its own."""
    filled.fold()
    real = LocalStore.put_if_absent

    def put_twice(self: LocalStore, key: str, data: bytes) -> None:
        real(self, key, data)
        if key.endswith(".done.json"):
            real(self, key, data)

    monkeypatch.setattr(LocalStore, "put_if_absent", put_twice)
    filled.maintenance.rebuild_tables()
    assert counts(filled) == (4, 12, 4, 2)
    snapshot = filled.snapshot().snapshot_id
    monkeypatch.undo()
    filled.maintenance.rebuild_tables()
    assert counts(filled, snapshot) == (4, 12, 4, 2)


def test_a_snapshot_whose_tables_lost_a_version_is_refused(filled: Dataset) -> None:
    snapshot = filled.snapshot().snapshot_id
    counts(filled, snapshot)
    (newest,) = list(filled.store.list("tables/masks/_delta_log/00000000000000000001"))
    filled.store.put(newest, b"")  # as a power cut leaves it
    with pytest.raises(Corrupt, match=r"table masks has 0 rows, 12 expected"):
        Dataset.open(filled.uri).query("SELECT 1", snapshot)


def test_a_fold_refuses_tables_that_are_behind_the_fold_before(filled: Dataset, samples: SimpleNamespace) -> None:
    filled.fold()
    (newest,) = list(filled.store.list("tables/masks/_delta_log/00000000000000000001"))
    filled.store.delete(newest)
    samples.ingest(filled, shards=1, first=50)
    with pytest.raises(Corrupt, match=r"masks: is at version 0, but fold 1 published 1; run `gigamask rebuild`"):
        filled.fold()
    filled.maintenance.rebuild_tables()
    assert counts(filled) == (6, 12, 5, 3)


def test_a_record_whose_rows_are_lost_is_set_aside_and_stops_nothing_else(
    filled: Dataset, samples: SimpleNamespace
) -> None:
    lost = filled.image_shards()[0]
    (rows,) = lost.rows()
    kept = filled.store.get(rows.key)
    filled.store.delete(rows.key)
    report = filled.fold()
    assert (report.records, report.set_aside) == (3, (str(lost.address),))
    assert counts(filled) == (2, 12, 3, 1)
    assert len(filled.known_image_ids()) == 2
    assert [fault.key for fault in filled.maintenance.verify().faults] == [rows.key]

    samples.ingest(filled, shards=1, first=50)
    assert filled.fold().records == 1
    assert filled.maintenance.rebuild_tables().set_aside == (str(lost.address),)
    filled.store.put(rows.key, kept)  # brought back from a copy
    assert (filled.fold().records, filled.fold().set_aside) == (1, ())
    assert counts(filled) == (6, 12, 5, 3)
    assert filled.maintenance.verify().faults == ()


@pytest.mark.parametrize("folded_first", [True, False])
def test_where_the_rows_of_a_redo_are_lost_the_generation_before_it_stays(
    filled: Dataset, samples: SimpleNamespace, folded_first: bool
) -> None:
    if folded_first:
        filled.fold()
    redo_plan = filled.maintenance.plan_redo(filled.plans()[1], ["00000"], {"model": "better"})
    redo = samples.write_mask_shard(filled, redo_plan, redo_plan.shards[0], count=2)
    (rows,) = redo.rows()
    filled.store.delete(rows.key)
    assert filled.fold().set_aside == (str(redo.address),)
    assert counts(filled) == (4, 12, 4, 2)
    assert filled.maintenance.rebuild_tables().set_aside == (str(redo.address),)
    assert counts(filled) == (4, 12, 4, 2)
    assert [fault.key for fault in filled.maintenance.verify().faults] == [rows.key]


def test_a_damaged_part_stops_neither_fold_nor_rebuild(filled: Dataset, samples: SimpleNamespace) -> None:
    lost = filled.image_shards()[0]
    (rows,) = lost.rows()
    data = bytearray(filled.store.get(rows.key))
    data[40] ^= 1
    filled.store.put(rows.key, bytes(data))
    assert filled.fold().set_aside == (str(lost.address),)
    samples.ingest(filled, shards=1, first=50)
    assert filled.fold().records == 1
    assert filled.maintenance.rebuild_tables().set_aside == (str(lost.address),)


def test_a_compaction_leaves_out_records_whose_rows_are_lost(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "_COMPACTION_EVERY", 4)
    filled.fold()
    for number in (1, 2):
        samples.ingest(filled, shards=1, first=50 * number)
        filled.fold()
    before = counts(filled)
    (rows,) = filled.image_shards()[-1].rows()
    filled.store.delete(rows.key)
    filled.fold()
    assert read_fold(filled.store, 4).action == "compact"
    assert counts(filled) == before


def test_a_withdrawal_whose_rows_are_lost_still_holds_after_a_rebuild(filled: Dataset) -> None:
    filled.fold()
    (pair,) = filled.query("SELECT image_id, mask_id FROM masks ORDER BY mask_id LIMIT 1").to_pylist()
    withdrawal = filled.withdraw([tuple(pair.values())], "wrong")
    assert counts(filled) == (4, 11, 5, 2)
    for part in withdrawal.parts:
        filled.store.delete(part.key)
    filled.fold()
    filled.maintenance.rebuild_tables()
    assert filled.query("SELECT count(*) AS masks FROM masks").to_pylist() == [{"masks": 11}]


def test_a_withdrawal_from_a_shard_whose_rows_are_lost_waits_and_stops_nothing(
    filled: Dataset, samples: SimpleNamespace
) -> None:
    filled.fold()
    (mask,) = filled.query("SELECT image_id, mask_id, plan, shard FROM masks ORDER BY mask_id LIMIT 1").to_pylist()
    (rows,) = filled.commit_of(ShardAddress(plan_id=mask["plan"], shard=mask["shard"])).rows()
    filled.store.delete(rows.key)
    withdrawal = withdraw(filled.store, newest_done(filled.store), [(mask["image_id"], mask["mask_id"])], "wrong")
    assert filled.fold().set_aside == (str(withdrawal.address),)
    samples.ingest(filled, shards=1, first=50)
    assert filled.fold().records == 1


def test_a_late_folder_undoes_nothing_of_a_fold_that_is_done(filled: Dataset, samples: SimpleNamespace) -> None:
    """It finds a file of a later fold missing for a moment, and must not take that fold back."""
    filled.fold()
    before = newest_done(filled.store)
    samples.ingest(filled, shards=1, first=50)
    filled.fold()
    newest = newest_done(filled.store)
    table = delta.open_table(filled.store, "tables", "images")
    (added,) = set(table.file_uris()) - set(
        delta.open_table(filled.store, "tables", "images", before.versions["images"]).file_uris()
    )
    away = Path(added).rename(added + ".away")
    with pytest.raises(delta.Overtaken):
        delta.change_once(
            filled.store, "tables", "images", newest.number, None, since=before.versions["images"], is_done=lambda: True
        )
    away.rename(added)
    assert delta.open_table(filled.store, "tables", "images").version() == newest.versions["images"]
    assert counts(filled) == (6, 12, 5, 3)
