"""Strikes each job of a dataset at each of its steps in turn, on a fresh copy, and lets the next run finish.

A strike is a kill, at a step or within a file; or a freeze, while another finishes all there is to do, or cleans, and
then the thaw. Nothing here hangs on time: the same dice strike the same steps.
"""

import random
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from tests.faults import workers
from tests.faults.kinds.cases import Case, Stage, Template, finish_and_clean
from tests.faults.processes import FREEZE, Job, Strike
from tests.faults.tally import Tally, expect_beaten, finished

KILLED, CUT_OFF = "killed", "killed within a file"
OVERTAKEN, CLEANED_BESIDE = "frozen while another finished", "frozen while another cleaned"
CUTS = (0, 1, 50, 300, 1000, 2500, 6000)  # bytes, after which a file is cut off and its writer with it


def every_step(templates: Iterable[Template]) -> list[Case]:
    """Each way to strike at each step of each job."""
    cases = []
    for template in templates:

        def case(how: str, strike: Strike, other: Job | None = None, template: Template = template) -> Case:
            run = partial(one_step, template, how, strike, other)
            return Case(name=template.name, how=how, run=run)

        for at in range(template.steps):
            freeze = Strike(at=at, signal=FREEZE)
            cases.append(case(KILLED, Strike(at=at)))
            cases.append(case(OVERTAKEN, freeze, finish_and_clean))
            cases.append(case(CLEANED_BESIDE, freeze, workers.clean))
        cases += [case(CUT_OFF, Strike(cut_file_at=size)) for size in CUTS]
    return cases


def one_step(
    template: Template,
    how: str,
    strike: Strike,
    other: Job | None,
    root: Path,
    dice: random.Random,
    tally: Tally,
) -> None:
    """Strikes once; what is left must be sound, for a reader too, and once another has finished, complete.

    `other`: what another does while the worker stands still.
    """
    place = strike.cut_file_at if strike.at is None else strike.at
    stage = Stage.copy(template, root, f"{template.name}, {how} at {place}", tally)
    worker = stage.start(template.job, strike)
    struck = worker.wait_for_stop() if other else worker.wait().signal != 0
    tally.faults[f"{how}: {template.name}"] += struck
    if dice.random() < 0.5:
        stage.look()
    if other and struck:
        finished(stage.start(other).wait(), tally, stage.when)
        worker.thaw()
    if other or not struck:
        expect_beaten(worker.wait(), tally)
    stage.finish()
