"""Walks: one worker plays several annotators at random, and is disturbed at random; each disturbance is a fault.

What must come of each act is told by plain SQL: whether the lease is that which its slot knows. An act that goes
through and should not have is missed; one that is refused for no reason is a false alarm.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from storage.workspace.leases import StaleLease
from storage.workspace.workspace import Workspace
from tests.faults.processes import Worker
from tests.faults.rounds.clients import Page
from tests.faults.rounds.databases import Rows
from tests.faults.rounds.promises import Promises
from tests.faults.rounds.stages import Case, Stage, Template
from tests.faults.rounds.worlds import World
from tests.faults.tally import Tally

ACTS = 24
"""Acts of one walk."""
PEOPLE = ("ann", "bob", "cyd", "dan")


@dataclass(kw_only=True)
class Walk:
    """A walk in progress, in its worker."""

    world: World
    workspace: Workspace
    dice: random.Random
    promises: Promises = field(default_factory=Promises)
    pages: list[Page] = field(default_factory=list)
    """Pages that are open, on leases that live or have ended."""
    late: set[str] = field(default_factory=set)
    """Sessions whose work goes to a branch."""
    faults: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)

    def is_current(self, page: Page) -> bool:
        """Whether the slot knows the page's lease."""
        with Rows(self.world.place) as rows:
            return bool(rows.of(f"SELECT 1 AS one FROM slots WHERE token = '{page.token}'"))

    def expect_refusal(self, call: Callable[[], object], page: Page, what: str) -> bool:
        """Does what needs a live lease; whether it was done."""
        current = self.is_current(page)
        try:
            call()
        except StaleLease as error:
            if current:
                self.false_alarms.append(f"{what}: {error}")
            return False
        if not current:
            self.missed.append(f"{what} with a lease that had ended")
        return True


@dataclass(frozen=True, kw_only=True)
class Walked:
    """What came of a walk."""

    promises: Promises
    faults: Counter[str]
    missed: list[str]
    false_alarms: list[str]


def walks(how: str, take_part: Callable[[Walk], None], templates: list[Template], *, steady_clock: bool) -> list[Case]:
    """A walk through each of these worlds."""
    return [
        Case(name=template.name, how=how, run=partial(one_walk, how, take_part, template, steady_clock))
        for template in templates
    ]


def one_walk(
    how: str,
    take_part: Callable[[Walk], None],
    template: Template,
    steady_clock: bool,
    root: Path,
    dice: random.Random,
    tally: Tally,
) -> None:
    stage = Stage.copy(template, root, how, tally)
    stage.steady_clock = steady_clock
    seed = dice.random()
    ended = Worker("", lambda _: walk(stage.world, take_part, seed)).wait()
    if ended.code or ended.signal:
        tally.failures.append(f"{stage.when}, seed {seed}: {ended.message}")
        stage.remove()
        return
    walked: Walked = ended.answer
    stage.world.promises.add(walked.promises)
    tally.faults += walked.faults
    tally.missed += [f"{stage.when}, seed {seed}: {each}" for each in walked.missed]
    tally.false_alarms += [f"{stage.when}, seed {seed}: {each}" for each in walked.false_alarms]
    stage.when += f", seed {seed}"
    stage.look()
    stage.finish()
    stage.remove()


def walk(world: World, take_part: Callable[[Walk], None], seed: float) -> Walked:
    """A walk, in a worker."""
    opened = world.open()
    walking = Walk(world=world, workspace=opened.workspace, dice=random.Random(seed))
    take_part(walking)
    return Walked(
        promises=walking.promises,
        faults=walking.faults,
        missed=walking.missed,
        false_alarms=walking.false_alarms,
    )
