"""Kills each job of a dataset at each of its steps in turn, on a fresh copy, and lets the next run finish."""

import random
import shutil
from pathlib import Path

from tests.faults import workers
from tests.faults.checker import FolderFiles
from tests.faults.datasets import (
    make_base,
    nothing,
    prepare_clean,
    prepare_masks,
    prepare_redo,
    rebuild,
    snapshot,
    then_write,
    withdraw_some,
    withdraw_unfolded,
    write_again,
    write_first_missing,
)
from tests.faults.tally import Tally, create, done, finished, look
from tests.faults.workers import KILL, Job, Strike, Worker

JOBS: dict[str, tuple[Job, Job]] = {
    "write images": (nothing, write_first_missing),
    "write masks": (prepare_masks, write_first_missing),
    "write a finished shard": (nothing, write_again),
    "redo": (prepare_redo, write_first_missing),
    "fold new shards": (write_first_missing, workers.fold),
    "fold a newer generation": (then_write(prepare_redo), workers.fold),
    "fold a withdrawal": (withdraw_unfolded, workers.fold),
    "withdraw": (nothing, withdraw_some),
    "plan": (nothing, prepare_redo),
    "clean": (prepare_clean, workers.clean),
    "snapshot": (write_first_missing, snapshot),
    "rebuild": (write_first_missing, rebuild),
}


def every_step(folder: Path, count: int, dice: random.Random, tally: Tally) -> None:
    """Kills each job at each of its steps, or at `count` of them drawn at random."""
    base = folder / "base"
    create(str(base))
    done(Worker(str(base), make_base))
    cases = []
    for name, (prepare, job) in JOBS.items():
        template = folder / name.replace(" ", "-")
        shutil.copytree(base, template)
        done(Worker(str(template), prepare))
        trial = folder / "trial"
        shutil.copytree(template, trial)
        steps = done(Worker(str(trial), job)).steps
        shutil.rmtree(trial)
        cases += [(name, template, job, at) for at in range(steps)]
    chosen = cases if count >= len(cases) else dice.sample(cases, count)
    for name, template, job, at in chosen:
        if not tally.over:
            one_step(folder / "copy", name, template, job, at, tally)


def one_step(root: Path, name: str, template: Path, job: Job, at: int, tally: Tally) -> None:
    shutil.copytree(template, root)
    ended = Worker(str(root), job, Strike(at=at)).wait()
    if ended.signal == KILL:
        tally.faults[f"killed at a step: {name}"] += 1
    else:
        tally.failures.append(f"{name}, step {at}: {ended}")
    look(lambda: FolderFiles(root), tally, complete=False, when=f"killed at step {at} of {name}")
    finished(Worker(str(root), workers.finish).wait(), tally)
    look(lambda: FolderFiles(root), tally, complete=True, when=f"killed at step {at} of {name}, and finished")
    shutil.rmtree(root)
