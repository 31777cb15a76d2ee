"""A case is one fault, or a few that belong together, upon a fresh copy of a dataset.

A template is such a dataset, prepared for a job; it is made once, and its copies are struck, by many processes at once.
"""

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.dataset import Dataset
from tests.faults import workers
from tests.faults.checks.files import FolderFiles
from tests.faults.checks.promises import Promises, acknowledged
from tests.faults.datasets import (
    copy_dataset,
    make_base,
    nine_versions,
    nothing,
    prepare_clean,
    prepare_masks,
    prepare_redo,
    prepare_whole_redo,
    publish_model,
    rebuild,
    snapshot,
    then_write,
    withdraw_some,
    withdraw_unfolded,
    write_again,
    write_first_missing,
)
from tests.faults.lost_replies import NONE_LOST
from tests.faults.processes import Job, Strike, Worker
from tests.faults.tally import NOTHING, Destroyed, Tally, create, done, finished, in_child, look

JOBS: dict[str, tuple[Job, Job]] = {
    "write images": (nothing, write_first_missing),
    "write masks": (prepare_masks, write_first_missing),
    "write a finished shard": (nothing, write_again),
    "redo": (prepare_redo, write_first_missing),
    "redo a whole shard": (prepare_whole_redo, write_first_missing),
    "fold new shards": (write_first_missing, workers.fold),
    "fold new masks": (then_write(prepare_masks), workers.fold),
    "fold a newer generation": (then_write(prepare_whole_redo), workers.fold),
    "fold a withdrawal": (withdraw_unfolded, workers.fold),
    "fold at a checkpoint": (nine_versions, workers.fold),
    "withdraw": (nothing, withdraw_some),
    "plan": (nothing, prepare_redo),
    "clean": (prepare_clean, workers.clean),
    "snapshot": (write_first_missing, snapshot),
    "rebuild": (write_first_missing, rebuild),
    "publish a model": (nothing, publish_model),
}
"""By name: how a dataset is prepared for a job, and the job."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """A dataset prepared for a job, which is not done yet."""

    name: str
    folder: Path
    job: Job
    steps: int
    """Steps that the job takes."""
    puts: tuple[str, ...]
    """Names of the job's puts, in order."""
    promised: Promises
    """What the dataset has acknowledged."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is done to a dataset at the given folder, which the case makes itself."""

    name: str
    """Name of the job that is struck, or of what is done."""
    how: str
    """How it is struck: a kind of fault."""
    run: Callable[[Path, random.Random, Tally], None]


def make_templates(folder: Path, jobs: Mapping[str, tuple[Job, Job]] = JOBS) -> dict[str, Template]:
    """Prepares a dataset for each of these jobs, and counts its steps and puts."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "base"
    create(str(base))
    done(Worker(str(base), make_base))
    return {name: make_template(folder, base, name, prepare, job) for name, (prepare, job) in jobs.items()}


def make_template(folder: Path, base: Path, name: str, prepare: Job, job: Job) -> Template:
    template, trial = folder / name.replace(" ", "-"), folder / "trial"
    copy_dataset(base, template)
    done(Worker(str(template), prepare))
    copy_dataset(template, trial)
    tried = done(Worker(str(trial), job, Strike(lost_reply=NONE_LOST)))
    shutil.rmtree(trial)
    promised = in_child(lambda: acknowledged(FolderFiles(template)))
    return Template(name=name, folder=template, job=job, steps=tried.steps, puts=tuple(tried.puts), promised=promised)


def strike(cases: Sequence[Case], folder: Path, count: int, dice: random.Random, tally: Tally) -> None:
    """Runs cases in a random order, each again once all have been run, until `count` faults have struck."""
    before, struck = tally.faults.total(), 0
    while struck < count:
        for case in dice.sample(cases, len(cases)):
            case.run(folder / "copy", dice, tally)
            shutil.rmtree(folder / "copy", ignore_errors=True)
            struck = tally.faults.total() - before
            if struck >= count or tally.over:
                return
        assert struck, f"no case of {cases[0].how} ever struck"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A copy of a template in use, with the looks taken at it."""

    root: Path
    promised: Promises
    when: str
    tally: Tally

    @classmethod
    def copy(cls, template: Template, root: Path, when: str, tally: Tally) -> "Stage":
        copy_dataset(template.folder, root)
        return cls(root=root, promised=dict(template.promised), when=when, tally=tally)

    def start(self, job: Job, strike: Strike | None = None) -> Worker:
        return Worker(str(self.root), job, strike)

    def do(self, job: Job, what: str = "") -> object:
        """A job that nothing hinders: its answer."""
        return finished(self.start(job).wait(), self.tally, f"{self.when}, {what}").answer

    def promise(self) -> None:
        """From now on what is acknowledged here must stay as it is."""
        self.promised.update(in_child(lambda: acknowledged(FolderFiles(self.root))))

    def look(self, *, complete: bool = False, destroyed: Destroyed = NOTHING) -> None:
        look(
            str(self.root),
            lambda: FolderFiles(self.root),
            self.tally,
            complete=complete,
            when=f"{self.when}{', and finished' if complete else ''}",
            promised=self.promised,
            destroyed=destroyed,
        )

    def finish(self, destroyed: Destroyed = NOTHING) -> None:
        """The next run does what is left; then everything must be there."""
        self.do(finish_and_clean, "and finished")
        self.look(complete=True, destroyed=destroyed)


def finish_and_clean(dataset: Dataset) -> None:
    workers.finish(dataset)
    workers.clean(dataset)
