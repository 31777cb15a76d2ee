"""Strikes each job of a dataset at each of its steps in turn, on a fresh copy, and lets the next run finish.

A strike is a kill, at a step or within a file; or a freeze, while another finishes all there is to do, or cleans, and
then the thaw. Nothing here hangs on time: the same dice strike the same steps.
"""

import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from storage.dataset import Dataset
from tests.faults import workers
from tests.faults.checker import FolderFiles
from tests.faults.datasets import (
    make_base,
    nine_versions,
    nothing,
    prepare_clean,
    prepare_masks,
    prepare_redo,
    prepare_whole_redo,
    rebuild,
    snapshot,
    then_write,
    withdraw_some,
    withdraw_unfolded,
    write_again,
    write_first_missing,
)
from tests.faults.tally import Tally, create, done, expect_beaten, finished, look
from tests.faults.workers import FREEZE, Job, Strike, Worker

JOBS: dict[str, tuple[Job, Job]] = {
    "write images": (nothing, write_first_missing),
    "write masks": (prepare_masks, write_first_missing),
    "write a finished shard": (nothing, write_again),
    "redo": (prepare_redo, write_first_missing),
    "redo a whole shard": (prepare_whole_redo, write_first_missing),
    "fold new shards": (write_first_missing, workers.fold),
    "fold a newer generation": (then_write(prepare_whole_redo), workers.fold),
    "fold a withdrawal": (withdraw_unfolded, workers.fold),
    "fold at a checkpoint": (nine_versions, workers.fold),
    "withdraw": (nothing, withdraw_some),
    "plan": (nothing, prepare_redo),
    "clean": (prepare_clean, workers.clean),
    "snapshot": (write_first_missing, snapshot),
    "rebuild": (write_first_missing, rebuild),
}


def finish_and_clean(dataset: Dataset) -> None:
    workers.finish(dataset)
    workers.clean(dataset)


KILLED, CUT_OFF = "killed", "killed within a file"
OVERTAKEN, CLEANED_BESIDE = "frozen while another finished", "frozen while another cleaned"
CUTS = (0, 1, 50, 300, 1000, 2500, 6000)  # bytes, after which a file is cut off and its writer with it


@dataclass(frozen=True, kw_only=True)
class Case:
    """One job, to be struck upon a copy of `template`. `other`: what another does while the worker stands still."""

    name: str
    template: Path
    job: Job
    how: str
    strike: Strike
    other: Job | None = None


def every_step(folder: Path, count: int, dice: random.Random, tally: Tally) -> None:
    """Strikes each job at each of its steps in each way, or at `count` of them drawn at random."""
    strike_some(every_case(folder), folder, count, dice, tally)


def strike_some(cases: list[Case], folder: Path, count: int, dice: random.Random, tally: Tally) -> None:
    """Until `count` have struck, or the tally is over."""
    for case in dice.sample(cases, len(cases)):
        if tally.faults.total() < count and not tally.over:
            one_step(folder / "copy", case, tally)


def every_case(folder: Path, names: Iterable[str] = tuple(JOBS)) -> list[Case]:
    """Prepares a dataset for each of these jobs, counts its steps, and gives each way to strike at each of them."""
    base = folder / "base"
    create(str(base))
    done(Worker(str(base), make_base))
    cases = []
    for name in names:
        prepare, job = JOBS[name]
        template, trial = folder / name.replace(" ", "-"), folder / "trial"
        shutil.copytree(base, template)
        done(Worker(str(template), prepare))
        shutil.copytree(template, trial)
        steps = done(Worker(str(trial), job)).steps
        shutil.rmtree(trial)
        case = partial(Case, name=name, template=template, job=job)
        for at in range(steps):
            cases.append(case(how=KILLED, strike=Strike(at=at)))
            freeze = Strike(at=at, signal=FREEZE)
            cases.append(case(how=OVERTAKEN, strike=freeze, other=finish_and_clean))
            cases.append(case(how=CLEANED_BESIDE, strike=freeze, other=workers.clean))
        cases += [case(how=CUT_OFF, strike=Strike(cut_file_at=size)) for size in CUTS]
    return cases


def one_step(root: Path, case: Case, tally: Tally) -> None:
    """Strikes once; what is left must be sound, for a reader too, and once another has finished, complete."""
    shutil.copytree(case.template, root)
    place = case.strike.cut_file_at if case.strike.at is None else case.strike.at
    when = f"{case.name}, {case.how} at {place}"
    uri, files = str(root), lambda: FolderFiles(root)
    worker = Worker(uri, case.job, case.strike)
    struck = worker.wait_for_stop() if case.other else worker.wait().signal != 0
    tally.faults[f"{case.how}: {case.name}"] += struck
    look(uri, files, tally, complete=False, when=when)
    if case.other and struck:
        finished(Worker(uri, case.other).wait(), tally)
        worker.thaw()
    if case.other or not struck:
        expect_beaten(worker.wait(), tally)
    finished(Worker(uri, finish_and_clean).wait(), tally)
    look(uri, files, tally, complete=True, when=f"{when}, and finished")
    shutil.rmtree(root)
