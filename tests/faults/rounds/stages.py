"""A case is one fault upon a fresh copy of a world; a stage is that copy in use, with the looks taken at it."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from storage import rle
from storage.dataset import Dataset
from storage.workspace.workspace import Workspace
from tests.faults.checks.files import FolderFiles
from tests.faults.checks.findings import TORN, Finding
from tests.faults.processes import Ended, Strike, Worker
from tests.faults.rounds.checks.closed import RoundChecker
from tests.faults.rounds.checks.refold import digest
from tests.faults.rounds.checks.workspace_rows import Tables, check_rows
from tests.faults.rounds.databases import Databases
from tests.faults.rounds.jobs import DONE, JOBS, Outcome, RoundJob, attempt, prepared
from tests.faults.rounds.lead_acts import close_all
from tests.faults.rounds.steps import count_steps
from tests.faults.rounds.worlds import World, make_base
from tests.faults.tally import UNREADABLE, Tally, done, in_child

VERIFY_EVERY = 3
"""Of so many complete looks, one asks `verify` and compares the workspace's own fold of the operations."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """A world prepared for a job, which is not done yet."""

    name: str
    job: RoundJob
    world: World
    steps: int
    """Steps that the job takes."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is done to a copy of a world at the given folder."""

    name: str
    """Name of the job that is struck."""
    how: str
    """How it is struck: a kind of fault."""
    run: Callable[[Path, random.Random, Tally], None]


def make_templates(folder: Path, databases: Databases, names: Sequence[str] = tuple(JOBS)) -> dict[str, Template]:
    """Prepares a world for each of these jobs, and counts the job's steps."""
    root = folder / "base"
    root.mkdir(parents=True)
    empty = World(root=root, place=databases.create(root), databases=databases)
    base = in_child(lambda: make_base(empty))
    return {name: make_template(folder, base, name) for name in names}


def make_template(folder: Path, base: World, name: str) -> Template:
    job = JOBS[name]
    world = base.copy(folder / name.replace(" ", "-"))
    world = in_child(lambda: prepared(world, job))
    return Template(name=name, job=job, world=world, steps=steps_of(world, job))


def steps_of(world: World, job: RoundJob) -> int:
    """Steps that a job takes, tried on a copy."""
    trial = world.copy(world.root.parent / "trial")
    ended = done(start(trial, job))
    assert ended.answer.kind == DONE, ended.answer.message
    shutil.rmtree(trial.root)
    trial.databases.remove(trial.place)
    return ended.steps


def start(world: World, job: RoundJob, strike: Strike | None = None) -> Worker:
    """A worker at a job."""
    return Worker("", lambda _: attempt(world, job), strike, more_steps=count_steps)


def strike_all(cases: Sequence[Case], folder: Path, count: int, dice: random.Random, tally: Tally) -> None:
    """Runs cases in a random order, each again once all have been run, until `count` faults have struck."""
    struck = 0
    while struck < count:
        before = tally.faults.total()
        for case in dice.sample(cases, len(cases)):
            earlier = tally.faults.total()
            case.run(folder / "copy", dice, tally)
            struck += tally.faults.total() - earlier
            if struck >= count or tally.over:
                return
        assert tally.faults.total() > before, f"no case of {cases[0].how} ever struck"


@dataclass(kw_only=True)
class Stage:
    """A copy of a world in use."""

    world: World
    when: str
    tally: Tally
    steady_clock: bool = True
    """Whether the server's clock is never set back."""
    may_be_taken_back: bool = False
    """Whether the masks of `world.taken_back` may be in the dataset or not: it depends on who was first."""

    @classmethod
    def copy(cls, template: Template, root: Path, when: str, tally: Tally) -> "Stage":
        tally.datasets += 1
        return cls(world=template.world.copy(root), when=f"{template.name}, {when}", tally=tally)

    def remove(self) -> None:
        """Puts the copy away."""
        self.world.databases.remove(self.world.place)
        shutil.rmtree(self.world.root)

    def start(self, job: RoundJob, strike: Strike | None = None) -> Worker:
        return start(self.world, job, strike)

    def heard(self, ended: Ended, what: str = "") -> Outcome | None:
        """What a worker answered; it counts from now on. None for a worker that was killed."""
        if ended.signal:
            return None
        if ended.code:
            self.tally.failures.append(f"{self.when}{what}: code {ended.code}: {ended.message}")
            return None
        outcome: Outcome = ended.answer
        self.world.promises.add(outcome.promises)
        return outcome

    def do(self, job: RoundJob, what: str) -> None:
        """A job that nothing hinders, and that must be done."""
        outcome = self.heard(self.start(job).wait(), what)
        if outcome and outcome.kind != DONE:
            self.tally.false_alarms.append(f"{self.when}{what}: {outcome.kind}: {outcome.message}")

    def finish(self) -> None:
        """All rounds are closed, however they stand; then everything must be there."""
        self.do(RoundJob(do=close_all), ", closed at the end")
        self.look(complete=True)

    def look(self, *, complete: bool = False, job: RoundJob | None = None) -> None:
        """Checks rows and bytes while nobody moves. `job`: one that is done, so that its effect must be there."""
        world = self.world
        asks = complete and self.tally.datasets % VERIFY_EVERY == 0

        def check() -> Tally:
            seen = Tally(reads=1, verified=asks)
            tables = Tables.read(world.place)
            seen.findings += check_rows(tables, world.promises, steady_clock=self.steady_clock)
            seen.findings += torn_batch(world, tables)
            if job:
                seen.findings += job.effect(world, tables)
            try:
                certain = (complete or job is not None) and not self.may_be_taken_back
                checker = RoundChecker(FolderFiles(world.dataset), tables, world.taken_back, for_certain=certain)
                seen.findings += checker.check(complete=complete)
            except UNREADABLE as error:
                seen.findings.append(Finding(kind=TORN, thing="object", what=repr(error)))
            if asks and not seen.findings:
                faults = Dataset.open(world.dataset).maintenance.verify(fast=True).faults
                seen.false_alarms += [f"verify: {fault.key}: {fault.what}" for fault in faults]
                seen.findings += folded_otherwise(world, tables)
            seen.masks = sum(row["masks"] for row in tables.submissions)
            return seen

        seen = in_child(check)
        when = f"{self.when}{', at the end' if complete else ''}"
        seen.findings = [replace(each, what=f"{when}: {each.what}") for each in seen.findings]
        for found in (seen.false_alarms, seen.missed):
            found[:] = [f"{when}: {each}" for each in found]
        self.tally.add(seen)


def torn_batch(world: World, tables: Tables) -> list[Finding]:
    """The batch of the job is stored whole or not at all."""
    sent = {each.op_id for each in world.facts.get("batch", ())}
    stored = sent & {row["op_id"] for row in tables.operations}
    return (
        [Finding(kind=TORN, thing="batch", what=f"{len(stored)} of {len(sent)}")] if stored not in (set(), sent) else []
    )


def folded_otherwise(world: World, tables: Tables) -> list[Finding]:
    """Lines of which the workspace says other masks than their operations."""
    findings = []
    with Workspace.open(world.place) as workspace:
        for row in tables.assignments:
            task_id, annotator, revision = row["task_id"], row["annotator"], row["revision"]
            state = workspace.operations.state(task_id, annotator)
            own = tables.refold(task_id, annotator, revision)
            said = {each.mask: (digest(rle.decode(each.rle)), str(each.origin)) for each in state.masks}
            if said != {name: (each.pixels, each.origin) for name, each in own.masks.items()}:
                findings.append(Finding(kind=TORN, thing="derived state", what=f"task {task_id} of {annotator}"))
    return findings
