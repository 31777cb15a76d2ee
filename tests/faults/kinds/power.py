"""Power cuts: what is left of a dataset when the machine loses power at any step of a job.

After each cut, on a simulated disk or on a real one (disks.py), the bytes are checked from outside (checker.py): what
was acknowledged before the cut is there and unchanged, also what the job itself had put and was told that it is there.
Then the next run finishes, and the dataset must be complete.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from storage.dataset import Dataset
from tests.faults.checks.files import FolderFiles
from tests.faults.checks.promises import KEPT, Promises, acknowledged
from tests.faults.kinds.cases import Case, Stage, Template
from tests.faults.kinds.disks import Disk
from tests.faults.processes import FREEZE, Job, Strike, Worker
from tests.faults.tally import Tally, in_child

POWER_CUT = "power cut"
PUTS = ("put_if_absent", "put", "put_file", "write")


def power_cuts(templates: Iterable[Template], disk: Disk) -> list[Case]:
    """A cut at each step of each job and right after it has returned, with each of the disk's modes."""
    return [
        Case(name=template.name, how=POWER_CUT, run=partial(one_cut, disk, template, at, mode))
        for template in templates
        for at in (*range(template.steps), None)
        for mode in disk.modes
    ]


def one_cut(
    disk: Disk, template: Template, at: int | None, mode: str, root: Path, dice: random.Random, tally: Tally
) -> None:
    """Cut the power once; what was acknowledged must be there, and the next run must complete the dataset."""
    when = f"power cut {'after' if at is None else f'at step {at} of'} {template.name}, {mode}"
    with _running(disk, template, at, root.with_name("acknowledged")) as promised:
        tally.faults[f"{POWER_CUT}: {template.name}"] += 1
        stage = Stage(root=disk.cut(mode, dice), promised=promised, when=when, tally=tally)
        stage.look()
        stage.finish()


@contextmanager
def _running(disk: Disk, template: Template, at: int | None, log: Path) -> Iterator[Promises]:
    """The job stopped before the step of the cut, or ended; gives what it and its dataset had acknowledged."""
    log.write_text("")
    disk.begin(template.folder)
    worker = Worker(str(disk.root), disk.watched(acknowledging(template.job, log)), Strike(at=at, signal=FREEZE))
    try:
        worker.wait_for_stop()
        keys = {*template.promised, *log.read_text().splitlines()}
        yield in_child(lambda: acknowledged(FolderFiles(disk.root), keys))
    finally:
        worker.kill()
        worker.wait()
        disk.end()


def acknowledging(job: Job, log: Path) -> Job:
    """The job, with a line in `log` for each object that its store says is there."""

    def work(dataset: Dataset) -> object:
        dataset.store = AcknowledgingStore(dataset.store, log)
        return job(dataset)

    return work


class AcknowledgingStore:
    """A store that notes the key of each put that has returned."""

    def __init__(self, store: Any, log: Path) -> None:
        self._store, self._log = store, log

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Any] = getattr(self._store, name)
        if name not in PUTS:
            return call

        def put(key: str, *args: Any, **kwargs: Any) -> Any:
            answer = call(key, *args, **kwargs)
            if key.startswith((*KEPT, "models/")):
                with self._log.open("a") as log:
                    log.write(f"{key}\n")
            return answer

        return put
