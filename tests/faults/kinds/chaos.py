"""One dataset under fire: its workers die, freeze, race, run out of space, while a reader reads on."""

import os
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.faults import workers
from tests.faults.checks.files import Files
from tests.faults.datasets import plan_images, plan_masks, rebuild, redo_all, snapshot, some_masks
from tests.faults.processes import FREEZE, KILL, STORE_FAILED, Ended, Job, Strike, Worker
from tests.faults.reader import Reader
from tests.faults.tally import Tally, create, expect_beaten, finished, look

MOST_STEPS = {
    "images": 45,
    "masks": 50,
    "fold": 60,
    "withdraw": 120,
    "rebuild": 150,
}  # where a random step is drawn from
SPAN_S = {"images": 0.12, "masks": 0.12, "fold": 0.3}  # when a random instant is drawn from
S3_STEPS = {"images": 14, "masks": 18, "fold": 20, "withdraw": 36, "rebuild": 26}  # no steps of a disk
S3_SPAN_S = {"images": 0.3, "masks": 0.3, "fold": 0.6}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a dataset lies, and how its bytes are reached without its code."""

    uri: str
    files: Callable[[], Files]
    folder: Path | None = None  # of a local one
    through: dict[str, str] = field(default_factory=dict)  # environment of workers: the way that fails
    most_steps: dict[str, int] = field(default_factory=lambda: MOST_STEPS)
    span_s: dict[str, float] = field(default_factory=lambda: SPAN_S)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A planned shard, or a withdrawal, with the record that says it is done."""

    kind: str
    job: Job
    record: str


class Chaos:
    """One dataset under fire."""

    def __init__(self, place: Place, dice: random.Random, tally: Tally, kinds: "Kinds") -> None:
        self.place, self.dice, self.tally, self.kinds = place, dice, tally, kinds
        self.units: list[Unit] = []
        self.images: list[str] = []  # plans whose shards have no masks yet
        self.masked: list[str] = []  # plans of masks that nobody redoes yet
        self.next_photo, self.next_variant = 0, 1

    def run(self, count: int, folder: Path) -> None:
        create(self.place.uri)
        before = self.tally.faults.total()
        reader = Reader(self.place.uri, self.place.files, folder / f"reader-{uuid.uuid4().hex}.json")
        while self.tally.faults.total() - before < count and not self.tally.over:
            companion = self.start(self.unit(), Strike()) if self.dice.random() < 0.3 else None
            self.dice.choice(self.kinds)(self)
            if companion:
                ended = companion.wait()
                if not (self.kinds is SMALL_DISK_KINDS and ended.code == STORE_FAILED):  # the disk was full for it, too
                    self.expect_ended(ended)
        for _ in range(5 if self.place.through else 1):  # a failing network may need the command again
            ended = self.worker(workers.finish).wait()
            if not (self.place.through and ended.code == STORE_FAILED):
                break
        finished(ended, self.tally)
        seen = reader.stop()
        self.tally.reads += seen.reads
        self.tally.torn += seen.torn
        look(self.place.uri, self.place.files, self.tally, complete=True, when="after chaos")
        self.tally.datasets += 1

    # Work

    def unit(self) -> Unit:
        """A shard that nobody has finished; plans more where there is none."""
        while not (open_units := [unit for unit in self.units if not self.is_done(unit)]):
            self.units = []
            self.plan_more()
        return self.dice.choice(open_units)

    def is_done(self, unit: Unit) -> bool:
        try:
            self.place.files().get(unit.record)
        except KeyError:
            return False
        return True

    def plan_more(self) -> None:
        if self.masked:
            plan_id = self.masked.pop()
            self.next_variant += 1
            settings = {"variant": self.next_variant, "skip": 0, "inherit": self.dice.random() < 0.5}
            job: Job = lambda dataset: redo_all(dataset, plan_id, settings)  # noqa: E731
        elif self.images:
            plan_id, self.next_variant = self.images.pop(), self.next_variant + 1
            variant = self.next_variant
            job = lambda dataset: plan_masks(dataset, dataset.plan(plan_id), variant=variant, skip=1)  # noqa: E731
        else:
            first, self.next_photo = self.next_photo, self.next_photo + 100
            job = lambda dataset: plan_images(dataset, range(4), first)  # noqa: E731
        plan = self.insist(job)
        if not plan.redoes:
            (self.images if plan.kind == "images" else self.masked).append(plan.plan_id)
        for shard in plan.shards:
            record = f"commits/{plan.address(shard)}.json"
            self.units.append(Unit(kind=plan.kind, job=workers.write_unit(plan.plan_id, shard.name), record=record))

    def insist(self, job: Job) -> Any:
        """A job's answer, past whatever the network does."""
        for _ in range(5):
            ended = self.worker(job).wait()
            if ended.code != STORE_FAILED or not self.place.through:
                break
        return finished(ended, self.tally).answer

    def worker(self, job: Job, strike: Strike | None = None) -> Worker:
        if not self.place.through:
            return Worker(self.place.uri, job, strike)
        before = {name: os.environ[name] for name in self.place.through}
        os.environ.update(self.place.through)
        try:
            return Worker(self.place.uri, job, strike)
        finally:
            os.environ.update(before)

    def start(self, unit: Unit, strike: Strike) -> Worker:
        return self.worker(unit.job, strike)

    def foldable(self) -> Unit:
        """A fold that has something to take."""
        self.insist(self.unit().job)
        return Unit(kind="fold", job=workers.fold, record="")

    def victim(self) -> Unit:
        """What is struck: a shard, or now and then a fold."""
        return self.foldable() if self.dice.random() < 0.35 else self.unit()

    def count(self, kind: str, number: int = 1) -> None:
        self.tally.faults[kind] += number

    def expect_ended(self, ended: Ended) -> None:
        """A worker that nobody struck must have come to its end; behind a failing network it may give up in words."""
        if not (self.place.through and ended.code == STORE_FAILED):
            finished(ended, self.tally)

    def a_step(self, kind: str) -> int:
        return self.dice.randrange(self.place.most_steps[kind])

    # Faults

    def kill_at_an_instant(self) -> None:
        unit = self.victim()
        worker = self.start(unit, Strike())
        time.sleep(self.dice.uniform(0, self.place.span_s[unit.kind]))
        worker.kill()
        self.count(f"killed at an instant: {unit.kind}", worker.wait().signal == KILL)

    def kill_at_a_step(self) -> None:
        unit = self.victim()
        ended = self.start(unit, Strike(at=self.a_step(unit.kind))).wait()
        self.count(f"killed at a step: {unit.kind}", ended.signal == KILL)

    def freeze(self) -> None:
        """Frozen at a step; another worker does its work; thawed when all is over."""
        unit = self.victim()
        worker = self.start(unit, Strike(at=self.a_step(unit.kind), signal=FREEZE))
        if not worker.wait_for_stop():
            return self.expect_ended(worker.wait())
        self.insist(unit.job)
        if self.dice.random() < 0.5:
            self.insist(self.dice.choice([workers.fold, workers.clean]))
        worker.thaw()
        self.count(f"frozen and thawed: {unit.kind}")
        return expect_beaten(worker.wait(), self.tally)

    def freeze_over_a_redo(self) -> None:
        """Thawed only after its shard was finished by another, folded, and made again as a newer generation."""
        unit = self.unit()
        worker = self.start(unit, Strike(at=self.a_step(unit.kind), signal=FREEZE))
        if not worker.wait_for_stop():
            return self.expect_ended(worker.wait())
        self.insist(unit.job)
        self.insist(workers.fold)
        home, _, name = unit.record.removeprefix("commits/").removesuffix(".json").partition("/")
        self.next_variant += 1
        settings = {"variant": self.next_variant, "skip": 0, "inherit": False}
        shard = name.rpartition(".g")[0]
        redo = self.insist(lambda dataset: dataset.maintenance.plan_redo(dataset.plan(home), [shard], settings))
        self.insist(workers.write_unit(redo.plan_id, shard))
        if self.dice.random() < 0.5:
            self.insist(workers.fold)
        worker.thaw()
        self.count(f"older generation thawed after a redo: {unit.kind}")
        return expect_beaten(worker.wait(), self.tally)

    def duplicate(self) -> None:
        unit = self.victim()
        several = [self.start(unit, Strike()) for _ in range(self.dice.randint(2, 4))]
        for worker in several:
            self.expect_ended(worker.wait())
        self.count(f"duplicate workers: {unit.kind}", len(several) - 1)

    def clean_beside(self) -> None:
        """Two live workers on one shard, and cleaning beside them."""
        unit = self.victim()
        several = [self.start(unit, Strike()) for _ in range(2)]
        time.sleep(self.dice.uniform(0, self.place.span_s[unit.kind]))
        self.expect_ended(self.worker(workers.clean).wait())
        for worker in several:
            expect_beaten(worker.wait(), self.tally)
        self.count("cleaned beside live workers")

    def skew_clock(self) -> None:
        unit = self.victim()
        offset = timedelta(days=self.dice.choice([-20000, -400, -1, 1, 400, 20000]))
        self.expect_ended(self.start(unit, Strike(clock_off_by=offset)).wait())
        self.count(f"wrong clock: {unit.kind}")

    def cut_a_file(self) -> None:
        """Ended by the kernel in the middle of a file."""
        unit = self.victim()
        ended = self.start(unit, Strike(cut_file_at=self.dice.randrange(6000))).wait()
        self.count(f"killed within a file: {unit.kind}", ended.signal != 0)

    def run_out_of_space(self) -> None:
        """Writes past a size fail, as on a full disk."""
        unit = self.victim()
        ended = self.start(unit, Strike(no_space_after=self.dice.randrange(6000))).wait()
        if ended.code == STORE_FAILED:
            self.count(f"no space: {unit.kind}")
        else:
            self.expect_ended(ended)

    def fill_the_disk(self) -> None:
        """Next to nothing is left on the disk while a worker writes."""
        assert self.place.folder is not None
        unit, filler = self.victim(), self.place.folder.with_name("filler")
        with filler.open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            file.truncate(max(0, file.tell() - (self.dice.randrange(64) << 10)))
        ended = self.start(unit, Strike()).wait()
        filler.unlink()
        if ended.code == STORE_FAILED:
            self.count(f"full disk: {unit.kind}")
        else:
            self.expect_ended(ended)

    def plant_torn_files(self) -> None:
        """What half a copy, or a dead writer of long ago, leaves: torn files under names nobody knows."""
        assert self.place.folder is not None
        unit = self.unit()
        plan, _, shard = unit.record.removeprefix("commits/").partition("/")
        data = self.dice.randbytes(self.dice.randrange(2000))
        attempt = f"g0-{uuid.UUID(int=self.dice.getrandbits(128)).hex}"
        home = self.place.folder / "data" / plan / shard.partition(".")[0]
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{attempt}.tar").write_bytes(data)
        for folder, name in ((home, f"{attempt}.parquet"), (self.place.folder / "folds", "00000001.json")):
            (folder / f".gigamask-tmp-{uuid.uuid4().hex}-{name}").write_bytes(data[:100])
        self.insist(self.dice.choice([unit.job, workers.clean, workers.fold]))
        self.count("torn files planted")

    def withdraw(self) -> None:
        """Masks taken back by a worker that dies at it."""
        self.foldable()
        self.insist(workers.fold)
        pairs = self.insist(some_masks)[:2]
        if pairs:
            job = workers.withdraw(pairs, f"reason {self.dice.random()}")
            ended = self.worker(job, Strike(at=self.a_step("withdraw"))).wait()
            self.count("killed at a step: withdraw", ended.signal == KILL)
            self.insist(job)

    def rebuild(self) -> None:
        """Tables made anew, killed half-way, beside one who folds."""
        self.foldable()
        rebuilder, folder = self.worker(rebuild, Strike(at=self.a_step("rebuild"))), self.worker(workers.fold)
        self.count("killed at a step: rebuild", rebuilder.wait().signal == KILL)
        self.expect_ended(folder.wait())

    def snapshot_and_freeze(self) -> None:
        self.insist(snapshot)
        self.freeze()


Kinds = tuple[Callable[[Chaos], None], ...]
SHARED_KINDS: Kinds = (
    Chaos.kill_at_an_instant,
    Chaos.kill_at_a_step,
    Chaos.freeze,
    Chaos.freeze_over_a_redo,
    Chaos.duplicate,
    Chaos.clean_beside,
    Chaos.skew_clock,
    Chaos.withdraw,
    Chaos.rebuild,
    Chaos.snapshot_and_freeze,
)
LOCAL_KINDS: Kinds = (
    *SHARED_KINDS,
    Chaos.kill_at_an_instant,
    Chaos.cut_a_file,
    Chaos.run_out_of_space,
    Chaos.plant_torn_files,
)
S3_KINDS: Kinds = (
    *SHARED_KINDS,
    Chaos.kill_at_an_instant,
    Chaos.kill_at_a_step,
    Chaos.freeze,
    Chaos.duplicate,
)
SMALL_DISK_KINDS: Kinds = (Chaos.fill_the_disk, Chaos.fill_the_disk, Chaos.kill_at_a_step)
