"""A worker frozen at a step and thawed after a restart; rebuilds beside folds, and several at once.

While the worker stands still, the command is started again, with the same or with other settings, everything is
finished and folded, and then what nobody expects to be survived: folds up to a compaction, a rebuild, both. A snapshot
that was taken meanwhile must still say what it said when the worker has thawed.
"""

import random
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from storage.dataset import Dataset
from storage.tables.fold_log import newest_done
from tests.faults import workers
from tests.faults.datasets import of_kind, plan_images, plan_masks, rebuild, redo_all, snapshot
from tests.faults.kinds.cases import Case, Stage, Template
from tests.faults.processes import COMPACTION_EVERY, FREEZE, Job, Strike
from tests.faults.tally import Tally, expect_beaten, finished

THAWED, REBUILT_BESIDE = "thawed after a restart", "rebuilt beside folds"


def restart(dataset: Dataset) -> None:
    """The same commands again: every plan is found again, and finished."""
    workers.finish(dataset)


def restart_with_other_settings(dataset: Dataset) -> None:
    """Masks of the same images by other settings, and the same shards once more by others again."""
    images = of_kind(dataset, "images")[0]
    plan_masks(dataset, images, variant=70, skip=0)
    workers.finish(dataset)
    redo_all(dataset, of_kind(dataset, "masks")[0].plan_id, {"variant": 71, "skip": 0, "inherit": False})
    workers.finish(dataset)


def fold_until_compacted(dataset: Dataset) -> None:
    """Small folds until one of them was a compaction."""
    begun = newest_done(dataset.store).number
    while (number := newest_done(dataset.store).number) // COMPACTION_EVERY == begun // COMPACTION_EVERY:
        one_more_fold(dataset, first=1000 + 3 * number)


def rebuild_and_fold(dataset: Dataset) -> None:
    rebuild(dataset)
    one_more_fold(dataset, first=2000 + 3 * newest_done(dataset.store).number)


def one_more_fold(dataset: Dataset, first: int) -> None:
    plan_images(dataset, range(1), first=first)
    workers.finish(dataset)


RESTARTS: dict[str, Job] = {"the same": restart, "other settings": restart_with_other_settings}
AFTERWARDS: dict[str, tuple[Job, ...]] = {
    "a fold": (),
    "a compaction": (fold_until_compacted,),
    "a rebuild": (rebuild_and_fold,),
    "a compaction and a rebuild": (fold_until_compacted, rebuild_and_fold),
}


def thaws(templates: Iterable[Template]) -> list[Case]:
    """Each job at each of its steps, with each restart and each thing that comes afterwards."""
    return [
        Case(name=template.name, how=THAWED, run=partial(one_thaw, template, at, settings, after))
        for template in templates
        for at in range(template.steps)
        for settings in RESTARTS
        for after in AFTERWARDS
    ]


def one_thaw(
    template: Template, at: int, settings: str, after: str, root: Path, dice: random.Random, tally: Tally
) -> None:
    when = f"{template.name}, frozen at {at}, restarted with {settings}, thawed after {after}"
    stage = Stage.copy(template, root, when, tally)
    worker = stage.start(template.job, Strike(at=at, signal=FREEZE))
    if worker.wait_for_stop():
        for job in (RESTARTS[settings], *AFTERWARDS[after], snapshot):
            stage.do(job, job.__name__)
        stage.promise()
        worker.thaw()
        tally.faults[f"{THAWED} and {after}: {template.name}"] += 1
    expect_beaten(worker.wait(), tally)
    stage.look()
    stage.finish()


def rebuilds(templates: Iterable[Template]) -> list[Case]:
    """One to three rebuilds beside folds and a snapshot; one of them frozen meanwhile, or not."""
    return [
        Case(name=template.name, how=REBUILT_BESIDE, run=partial(one_rebuild, template, number, frozen))
        for template in templates
        for number in (1, 2, 3)
        for frozen in (True, False)
    ]


def one_rebuild(template: Template, number: int, frozen: bool, root: Path, dice: random.Random, tally: Tally) -> None:
    stage = Stage.copy(template, root, f"{number} rebuilds beside folds of {template.name}", tally)
    at = dice.randrange(template.steps) if frozen else None
    rebuilders = [stage.start(rebuild, Strike(at=at, signal=FREEZE))]
    stopped = frozen and rebuilders[0].wait_for_stop()
    rebuilders += [stage.start(rebuild) for _ in range(number - 1)]
    for each in range(dice.randint(1, 3)):
        stage.do(partial(one_more_fold, first=3000 + 3 * each), "a fold beside")
    stage.do(snapshot, "a snapshot beside")
    stage.promise()
    if stopped:
        rebuilders[0].thaw()
    tally.faults[f"{REBUILT_BESIDE}: {number}{', one frozen' if stopped else ''}"] += number
    for rebuilder in rebuilders:
        finished(rebuilder.wait(), tally, stage.when)
    stage.look()
    stage.finish()
