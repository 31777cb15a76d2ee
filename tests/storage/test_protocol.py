"""The protocol under any order of events: workers that freeze and thaw, redos, withdrawals, closing, cleaning, rebuilds
and folds that die half-way. A plain dictionary says what must be in the dataset.
"""

import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import folds, tables
from storage.commits import begin_attempt
from storage.contents import put_masks
from storage.dataset import Dataset
from storage.plans import PlannedShard

STEPS = ["plan", *(f"apply {name}" for name in tables.SCHEMAS), "done"]


class Died(BaseException):
    """Nothing catches it: as good as a kill between two steps."""


class Protocol:
    """A dataset of one image and three mask shards, and what it must hold."""

    def __init__(self, samples, folder):
        self.samples = samples
        self.dataset = Dataset.create(folder / "dataset")
        self.image, _ = samples.make_image(1)
        self.plan = self.dataset.new_plan("masks", [PlannedShard(name=name) for name in "abc"], {})
        self.jobs = [(self.plan, shard) for shard in self.plan.shards]  # that somebody may work at
        self.frozen = []  # (attempt, number of masks): written, not yet committed
        self.masks: dict[tuple[str, int], int | None] = {}  # (shard, generation) -> masks; None for a closed one
        self.withdrawn: set[tuple[str, int]] = set()  # (shard, mask_id)
        self.live: set[str] = set()  # keys of attempts that have neither won nor lost
        self.snapshots: dict[str, int] = {}

    def write_an_attempt_and_freeze(self, number):
        plan, shard = self.jobs[number % len(self.jobs)]
        count = 1 + number % 4
        attempt = begin_attempt(self.dataset.store, plan, shard)
        put_masks(attempt, [(self.image, self.samples.make_masks(self.image, plan, shard, count))])
        self.live |= {part.key for part in attempt.parts}
        self.frozen.append((attempt, count))

    def thaw_and_commit(self, number):
        if not self.frozen:
            return
        attempt, count = self.frozen.pop(number % len(self.frozen))
        place = (attempt.shard.name, attempt.shard.generation)
        first = place not in self.masks
        own = {part.key for part in attempt.parts}
        assert (attempt.commit().attempt_id == attempt.attempt_id) == first
        if first:
            self.masks[place] = count
        else:
            assert own.isdisjoint(self.dataset.store.list("data/"))
        self.live -= own

    def plan_a_redo(self, number):
        name = "abc"[number % 3]
        if self.newest(name) is None:
            with pytest.raises(ValueError, match="only finished shards are redone"):
                self.dataset.plan_redo(self.plan, [name])
            return
        redo = self.dataset.plan_redo(self.plan, [name])
        assert redo.shards[0].generation == self.newest(name) + 1
        self.jobs.append((redo, redo.shards[0]))

    def close_a_plan(self, number):
        plan, _ = self.jobs[number % len(self.jobs)]
        missing = [(shard.name, shard.generation) for shard in self.dataset.missing(plan)]
        assert [(each.shard, each.generation) for each in self.dataset.close(plan)] == missing
        self.masks |= dict.fromkeys(missing)

    def fold(self, number):
        self.dataset.fold()
        assert self.in_tables() == self.expected()

    def fold_and_die(self, number):
        def die(at):
            if at == STEPS[number % len(STEPS)]:
                raise Died

        try:
            folds.fold(self.dataset.store, before_step=die)
        except Died:
            return

    def withdraw_a_mask(self, number):
        self.dataset.fold()
        rows = self.dataset.query("SELECT image_id, mask_id, shard FROM masks ORDER BY mask_id").to_pylist()
        if rows:
            row = rows[number % len(rows)]
            self.dataset.withdraw([(row["image_id"], row["mask_id"])], f"reason {number}")
            self.withdrawn.add((row["shard"], row["mask_id"]))
            assert self.in_tables() == self.expected()

    def clean(self, number):
        report = self.dataset.clean(delete=number % 2 == 0)
        beaten = {key for key in self.live if self.generation_is_decided(key)}
        assert set(report.garbage) == beaten
        assert set(report.kept) == self.live - beaten
        self.live -= beaten if report.deleted else set()

    def rebuild(self, number):
        self.dataset.rebuild_tables()
        assert self.in_tables() == self.expected()

    def take_a_snapshot(self, number):
        snapshot = self.dataset.snapshot()
        self.snapshots.setdefault(snapshot.snapshot_id, sum(self.in_tables().values()))

    def check(self):
        """What holds at every moment, between any two events."""
        answer = self.dataset.query(
            "SELECT s.shard, s.masks, count(m.mask_id) AS n FROM shards s LEFT JOIN masks m USING (plan, shard) "
            "WHERE s.kind = 'masks' GROUP BY s.shard, s.masks"
        )
        for row in answer.to_pylist():
            gone = sum(1 for shard, _ in self.withdrawn if shard == row["shard"])
            assert row["masks"] - gone <= row["n"] <= row["masks"]
        for snapshot_id, count in self.snapshots.items():
            assert self.dataset.query("SELECT count(*) AS n FROM masks", snapshot_id).to_pylist() == [{"n": count}]
        assert self.dataset.verify(fast=True).faults == ()

    def newest(self, name):
        return max((generation for shard, generation in self.masks if shard == name), default=None)

    def expected(self):
        """Masks of each shard that has any, by the dictionary."""
        counts = {}
        for name in "abc":
            generation = self.newest(name)
            made = self.masks[name, generation] if generation is not None else None
            ids = [mask.mask_id for mask in self.made(name, generation, made or 0)]
            counts[name] = sum((name, mask_id) not in self.withdrawn for mask_id in ids)
        return {name: count for name, count in counts.items() if count}

    def made(self, name, generation, count):
        if not count:
            return []
        record = self.dataset.commit_of(f"{self.plan.plan_id}/{name}.g{generation}")
        plan = self.dataset.plan(record.made_by)
        return self.samples.make_masks(self.image, plan, plan.shard(name), count)

    def in_tables(self):
        rows = self.dataset.query("SELECT shard, count(*) AS n FROM masks GROUP BY shard").to_pylist()
        return {row["shard"]: row["n"] for row in rows}

    def generation_is_decided(self, key):
        _, _, name, attempt = key.split("/")
        return (name, int(attempt.partition("-")[0][1:])) in self.masks


ACTIONS = [
    *[Protocol.write_an_attempt_and_freeze] * 4,
    *[Protocol.thaw_and_commit] * 4,
    *[Protocol.plan_a_redo] * 2,
    *[Protocol.fold_and_die] * 2,
    *[Protocol.withdraw_a_mask] * 2,
    Protocol.close_a_plan,
    Protocol.fold,
    Protocol.clean,
    Protocol.rebuild,
    Protocol.take_a_snapshot,
]
events = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 59)), min_size=20, max_size=30)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(events)
def test_no_order_of_events_loses_or_doubles_a_mask(samples, some):
    folder = Path(tempfile.mkdtemp())
    with mock.patch("os.fsync"):  # no power is cut here, and thousands of syncs take minutes
        protocol = Protocol(samples, folder)
        for action, number in some:
            action(protocol, number)
            protocol.check()
        protocol.fold(0)
        assert protocol.dataset.verify().faults == ()
    shutil.rmtree(folder)
