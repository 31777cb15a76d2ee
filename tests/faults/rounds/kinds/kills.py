"""Strikes each job at each of its steps: killed and done again, or frozen while another goes ahead, and thawed.

Two that meet are two of the same job, or those of CONTESTS. A frozen worker may hold locks; then the other one waits in
them until it is thawed.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.faults.processes import FREEZE, Strike, Worker
from tests.faults.rounds.jobs import JOBS, UNAVAILABLE, RoundJob
from tests.faults.rounds.lead_acts import close_the_other
from tests.faults.rounds.stages import Case, Stage, Template
from tests.faults.rounds.work_acts import claim_for_ann, fix_by_another
from tests.faults.tally import Tally

KILLED, OVERTAKEN = "killed", "frozen while another went ahead"
ENDINGS = ("close", "close beside another", "withdraw before closing", "withdraw after closing")
"""Jobs after which the round is closed each time; after others, each third time."""
CLAIM = RoundJob(do=claim_for_ann)
CONTESTS: dict[str, Mapping[str, RoundJob]] = {
    "close": {name: JOBS[name] for name in ("close", "withdraw before closing", "cancel", "extend")},
    "close beside another": {"closing of the other": RoundJob(do=close_the_other)},
    "submit": {"close": JOBS["close"], "release": JOBS["release"]},
    "append": {"close": JOBS["close"], "release": JOBS["release"]},
    "claim": {"claim": CLAIM, "close": JOBS["close"]},
    "accept": {"close": JOBS["close"], "withdraw before closing": JOBS["withdraw before closing"]},
    "send back": {"close": JOBS["close"], "withdraw before closing": JOBS["withdraw before closing"]},
    "fix": {
        **{name: JOBS[name] for name in ("close", "withdraw before closing", "send back", "accept")},
        "fix of another": RoundJob(do=fix_by_another),
    },
    "withdraw before closing": {"close": JOBS["close"]},
    "extend": {"close": JOBS["close"]},
    "cancel": {"close": JOBS["close"]},
}
"""Other jobs that a job meets, beside another of its own; what they need to know, it knows, too."""
WAITING_S, LONGEST_S = 0.3, 60.0
"""How long the other one has, in seconds, where the frozen one holds locks, and where it holds none."""


def kills(templates: Iterable[Template]) -> list[Case]:
    """Each job killed at each of its steps."""
    return [
        Case(name=template.name, how=KILLED, run=partial(one_kill, template, at))
        for template in templates
        for at in range(template.steps)
    ]


def one_kill(template: Template, at: int, root: Path, dice: random.Random, tally: Tally) -> None:
    stage = Stage.copy(template, root, f"{KILLED} at {at}", tally)
    ended = stage.start(template.job, Strike(at=at)).wait()
    stage.heard(ended)
    tally.faults[f"{KILLED}: {template.name}"] += ended.signal != 0
    if dice.random() < 0.5:
        stage.look()
    do_again_and_end(stage, template, dice)


def do_again_and_end(stage: Stage, template: Template, dice: random.Random) -> None:
    """The job is done again, and has its effect; in the end the round is closed, often."""
    stage.do(template.job, ", done again")
    stage.look(job=template.job)
    if template.name in ENDINGS or dice.random() < 1 / 3:
        stage.finish()
    stage.remove()


def freezes(templates: Iterable[Template]) -> list[Case]:
    """Each job frozen at each of its steps, while each other that it may meet goes ahead."""
    return [
        Case(name=template.name, how=OVERTAKEN, run=partial(one_freeze, template, at, name, other))
        for template in templates
        for name, other in {template.name: template.job, **CONTESTS.get(template.name, {})}.items()
        for at in range(template.steps)
    ]


def one_freeze(
    template: Template, at: int, name: str, other: RoundJob, root: Path, dice: random.Random, tally: Tally
) -> None:
    stage = Stage.copy(template, root, f"frozen at {at} beside {name}", tally)
    if "withdraw before closing" in (name, template.name):  # which takes masks back if the round is closed by then
        taken = frozenset({(stage.world.round_id, "ann")})
        stage.world, stage.may_be_taken_back = replace(stage.world, taken_back=taken), True
    worker = stage.start(template.job, Strike(at=at, signal=FREEZE))
    if worker.wait_for_stop():
        held = stage.world.databases.is_held(stage.world.place)
        beside = stage.start(other)
        beside.ends_within(WAITING_S if held else LONGEST_S)
        worker.thaw()
        came_through(stage, beside, f", beside as {name}")
        tally.faults[f"{OVERTAKEN}: {template.name} and {name}"] += 1
    came_through(stage, worker, ", thawed")
    stage.look()
    if template.name in ENDINGS or dice.random() < 1 / 3:
        stage.finish()
    stage.remove()


def came_through(stage: Stage, worker: Worker, what: str) -> None:
    """A worker that was hindered: done or refused, but never without the database."""
    outcome = stage.heard(worker.wait(), what)
    if outcome and outcome.kind == UNAVAILABLE:
        stage.tally.false_alarms.append(f"{stage.when}{what}: {outcome.message}")
