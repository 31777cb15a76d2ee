"""Cleaning removes what can no longer matter, and nothing that may still win."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from storage.dataset import Dataset
from storage.protocol.commits import Attempt, begin_attempt
from storage.protocol.plans import Plan, PlannedShard
from storage.tables.contents import put_images

SHARDS = [PlannedShard(name="done"), PlannedShard(name="open")]


@pytest.fixture
def littered(dataset: Dataset, samples: SimpleNamespace) -> tuple[Dataset, Plan, Attempt, Attempt]:
    """A committed shard with a crashed attempt beside it, and a shard with an attempt still at work."""
    plan = dataset.new_plan("images", SHARDS, {})
    photos = [samples.make_image(1)]
    crashed, working = (begin_attempt(dataset.store, plan, shard) for shard in SHARDS)
    put_images(crashed, photos)
    put_images(working, photos)
    dataset.write_images(plan, SHARDS[0], photos)
    for shard in ("done", "open"):
        attempt = "g0-" + "0" * 32
        folder = Path(dataset.uri) / "data" / plan.plan_id / shard
        (folder / f".gigamask-tmp-abc-{attempt}.tar").write_bytes(b"half")
    return dataset, plan, crashed, working


def keys(attempt: Attempt) -> tuple[str, ...]:
    return tuple(sorted(part.key for part in attempt.parts))


def test_a_dry_run_says_what_it_would_delete_and_deletes_nothing(
    littered: tuple[Dataset, Plan, Attempt, Attempt],
) -> None:
    dataset, _, crashed, working = littered
    before = list(dataset.store.list("data/"))
    report = dataset.maintenance.clean()
    assert (report.garbage, report.kept, report.unfinished) == (keys(crashed), keys(working), 1)
    assert report.nbytes == sum(part.nbytes for part in crashed.parts)
    assert not report.deleted
    assert list(dataset.store.list("data/")) == before


def test_cleaning_deletes_beaten_attempts_and_leaves_those_that_may_still_win(
    littered: tuple[Dataset, Plan, Attempt, Attempt],
) -> None:
    dataset, plan, _, working = littered
    assert dataset.maintenance.clean(delete=True).deleted
    assert dataset.maintenance.clean().garbage == ()
    assert len(list(dataset.store.unfinished())) == 1
    assert working.commit().attempt_id == working.attempt_id
    assert dataset.missing(plan) == []
    assert dataset.maintenance.verify().faults == ()


def test_closing_a_plan_beats_its_workers_and_lets_their_objects_go(
    littered: tuple[Dataset, Plan, Attempt, Attempt],
) -> None:
    dataset, plan, crashed, working = littered
    (closed,) = dataset.maintenance.close(plan)
    assert (closed.shard, closed.attempt_id) == ("open", "")
    assert dataset.maintenance.close(plan) == []
    assert dataset.missing(plan) == []
    assert set(dataset.maintenance.clean().garbage) == {*keys(crashed), *keys(working)}
    assert working.commit() == closed
    assert len(list(dataset.store.list("data/"))) == 4  # the loser took its own objects along
    dataset.fold()
    attempts = dataset.query("SELECT shard, attempt IS NULL AS closed FROM shards ORDER BY shard").to_pylist()
    assert attempts == [{"shard": "done", "closed": False}, {"shard": "open", "closed": True}]
    assert [commit.shard for commit in dataset.commits(plan)] == ["done"]
    assert dataset.maintenance.verify().faults == ()


def test_a_shard_whose_redo_is_closed_stays_what_it_was(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset)
    plan = samples.mask(dataset)
    dataset.fold()
    rows = dataset.query("SELECT * FROM masks ORDER BY image_id, mask_id")
    redo = dataset.maintenance.plan_redo(plan, ["00000"], {"model": "better"})
    frozen = begin_attempt(dataset.store, redo, redo.shards[0])
    (closed,) = dataset.maintenance.close(redo)
    assert frozen.commit() == closed
    assert [commit.parts for commit in dataset.commits(redo)] == [closed.parts]
    dataset.fold()
    assert dataset.query("SELECT * FROM masks ORDER BY image_id, mask_id") == rows
    assert dataset.query(
        "SELECT shard, generation, masks FROM shards WHERE kind = 'masks' ORDER BY shard"
    ).to_pylist() == [
        {"shard": "00000", "generation": 1, "masks": 6},
        {"shard": "00001", "generation": 0, "masks": 6},
    ]
    assert dataset.maintenance.verify().faults == ()
    assert dataset.maintenance.plan_redo(plan, ["00000"], {"model": "best"}).shards[0].previous == closed.record_sha256


def test_objects_that_a_newer_generation_inherits_and_those_of_its_workers_stay(
    dataset: Dataset, samples: SimpleNamespace
) -> None:
    plan = samples.ingest(dataset, shards=1)
    (old,) = dataset.commits(plan)
    redo = dataset.maintenance.plan_redo(plan)
    working = begin_attempt(dataset.store, redo, redo.shards[0])
    put_images(working, [samples.make_image(9)], old)
    assert dataset.maintenance.clean(delete=True).kept == keys(working)
    working.commit(inherited=old.parts)
    assert dataset.maintenance.clean(delete=True).garbage == ()
    assert len(list(dataset.read_images(dataset.commits(plan)[0]))) == 3
    assert dataset.maintenance.verify().faults == ()
