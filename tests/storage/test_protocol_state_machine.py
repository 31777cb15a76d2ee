"""The protocol in every order of its smallest steps: a dozen workers, each frozen between any two calls of its store.

A puppet is a real worker in a thread that stands still before each call of its store (and between checking a table and
changing it) until it is told to go on; it may stay frozen for as long as the machine likes, die there, or be told that
the call failed. Whatever happened: readers see the records of their fold, and in the end every mask is there once.
"""

import shutil
import tempfile
import threading
from pathlib import Path
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from storage import delta
from storage.dataset import Dataset
from storage.stores import StoreError
from tests.faults import datasets, workers
from tests.faults.checker import Checker, FolderFiles

LONG = 1000  # steps: more than any job has
STEPS = st.sampled_from([14, 18, 10, 22, 6, 26, LONG, 3, 1])


class Died(BaseException):
    """Nothing catches it: as good as a kill."""


class Puppet:
    """A worker that takes as many steps as it is told, then stands still."""

    here = threading.local()

    def __init__(self, uri, name, job):
        self.name, self.uri, self.job = name, uri, job
        self.steps, self.dying, self.failing, self.over, self.error = 0, False, False, False, None
        self.moved = threading.Condition()
        self.still = False
        self.thread = threading.Thread(target=self.live, daemon=True)
        self.thread.start()

    def live(self):
        Puppet.here.puppet = self
        try:
            dataset = Dataset.open(self.uri)
            dataset.store = workers.SteppedStore(dataset.store, self.step)
            self.step()
            self.job(dataset)
        except (Died, StoreError, ValueError) as error:
            self.error = error
        except Exception as error:
            self.error = AssertionError(f"{self.name} failed: {error!r}")
        with self.moved:
            self.over = self.still = True
            self.moved.notify_all()

    def step(self):
        with self.moved:
            self.still = True
            self.moved.notify_all()
            self.moved.wait_for(lambda: self.steps or self.dying)
            self.still = False
            if self.dying:
                raise Died
            self.steps -= 1
            if self.failing:
                self.failing = False
                raise StoreError("connection reset")

    def go(self, steps, *, fail=False):
        """Lets it take so many steps (the first of which may fail) and waits until it stands still again."""
        with self.moved:
            if self.over:
                return
            self.steps, self.failing, self.still = steps, fail, False
            self.moved.notify_all()
            assert self.moved.wait_for(lambda: self.over or (self.still and not self.steps), timeout=60), self.name

    def die(self):
        with self.moved:
            self.dying = True
            self.moved.notify_all()
        self.thread.join(timeout=60)

    @staticmethod
    def stepping(call):
        def stepped(*args, **kwargs):
            puppet = getattr(Puppet.here, "puppet", None)
            if puppet is not None:
                puppet.step()
            return call(*args, **kwargs)

        return stepped


class Protocol(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.patch = mock.patch.object(delta, "CommitProperties", Puppet.stepping(delta.CommitProperties))
        self.patch.start()
        self.dataset = Dataset.create(self.folder / "dataset")
        datasets.make_base(self.dataset)
        datasets.write_first_missing(self.dataset)  # there is something to fold
        datasets.prepare_masks(self.dataset)
        self.puppets = []
        self.variant, self.shards = 1, 1
        self.seen = 0

    def start(self, name, job, steps):
        puppet = Puppet(self.dataset.uri, name, job)
        puppet.go(steps)
        self.puppets.append(puppet)

    @rule(data=st.data(), late=st.booleans(), steps=STEPS)
    def start_a_shard(self, data, late, steps):
        """An open one, or any, of any generation: whoever comes late must lose."""
        plans = [plan for plan in self.dataset.plans() if plan.kind != "withdrawals"]
        every = [(plan, shard) for plan in plans for shard in plan.shards]
        missing = [(plan, shard) for plan in plans for shard in self.dataset.missing(plan)]
        plan, shard = data.draw(st.sampled_from(every if late or not missing else missing))
        self.start(plan.address(shard), workers.write_unit(plan.plan_id, shard.name), steps)

    @rule(steps=STEPS)
    def start_a_fold(self, steps):
        """With something to take."""
        self.shards += 1
        datasets.plan_images(self.dataset, range(1), first=100 * self.shards)
        datasets.write_first_missing(self.dataset)
        self.start("fold", workers.fold, steps)

    @rule(job=st.sampled_from([workers.clean, datasets.rebuild, datasets.snapshot]), steps=STEPS)
    def start_a_job(self, job, steps):
        self.start(job.__name__, job, steps)

    @rule(job=st.sampled_from([workers.fold, workers.clean]))
    def somebody_else_does(self, job):
        """At one go, while all the others stand still."""
        job(self.dataset)

    @rule(steps=STEPS)
    def start_a_withdrawal(self, steps):
        self.start("withdraw", datasets.withdraw_some, steps)

    @rule(inherit=st.booleans(), which=st.integers(0, 1))
    def redo(self, inherit, which):
        plan = datasets.of_kind(self.dataset, "masks")[0]
        self.variant += 1
        self.dataset.plan_redo(
            plan, [plan.shards[which].name], {"variant": self.variant, "skip": 0, "inherit": inherit}
        )

    @precondition(lambda self: self.puppets)
    @rule(data=st.data(), steps=STEPS)
    def thaw(self, data, steps):
        data.draw(st.sampled_from(self.puppets)).go(steps)

    @precondition(lambda self: self.puppets)
    @rule(data=st.data())
    def fail_its_next_call(self, data):
        data.draw(st.sampled_from(self.puppets)).go(1, fail=True)

    @precondition(lambda self: self.puppets)
    @rule(data=st.data())
    def kill(self, data):
        puppet = data.draw(st.sampled_from(self.puppets))
        puppet.die()

    @invariant()
    def readers_see_the_records_of_their_fold(self):
        checker = Checker(FolderFiles(self.folder / "dataset"))
        number = checker.newest_done()
        assert number >= self.seen
        if number > self.seen:
            assert checker.table_findings(number) == []
        self.seen = number
        assert [puppet.error for puppet in self.puppets if isinstance(puppet.error, AssertionError)] == []
        self.puppets = [puppet for puppet in self.puppets if not puppet.over]

    def teardown(self):
        try:
            for puppet in self.puppets:
                puppet.die()
            workers.finish(self.dataset)
            assert Checker(FolderFiles(self.folder / "dataset")).check(complete=True) == []
            assert self.dataset.verify().faults == ()
        finally:
            self.patch.stop()
            shutil.rmtree(self.folder)


def test_whatever_order_frozen_workers_go_on_in_every_mask_is_there_once():
    run_state_machine_as_test(
        Protocol,
        settings=settings(max_examples=15, stateful_step_count=30, deadline=None, derandomize=True, database=None),
    )
