"""The database goes away under a job, at each of its steps: between transactions and within them.

PostgreSQL ends the job's connections, or crashes and recovers. A file of SQLite is locked by somebody else for longer
than the job waits, or the disk has no space left for what it writes.
"""

import random
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from storage.workspace import database
from tests.faults.processes import FREEZE, Ended, Strike
from tests.faults.rounds.databases import PostgresqlDatabases, SqliteFiles
from tests.faults.rounds.jobs import DONE, REFUSED, RoundJob
from tests.faults.rounds.kinds.kills import do_again_and_end
from tests.faults.rounds.promises import Promises
from tests.faults.rounds.stages import Case, Stage, Template
from tests.faults.rounds.worlds import Opened
from tests.faults.tally import Tally

ENDED, CRASHED, LOCKED, FULL = "connections ended", "server crashed", "locked by another", "disk full"
CRASH_EVERY = 12
"""Of so many steps, one has the whole server crash: starting again takes seconds."""
SPACES = (0, 4_000, 12_000, 30_000, 60_000, 100_000, 150_000, 200_000, 250_000, 300_000)
"""Sizes, in bytes, up to which a file may grow on the full disk."""
PATIENCE_S = 0.05
"""Longest time that a job waits for a lock of SQLite, in seconds, while somebody else holds it."""


def drops(templates: Iterable[Template]) -> list[Case]:
    """Each job, at each of its steps."""
    cases = []
    for template in templates:
        for at in range(template.steps):
            if template.world.databases.name == "PostgreSQL":
                how = CRASHED if at % CRASH_EVERY == CRASH_EVERY - 1 else ENDED
                cases.append(Case(name=template.name, how=how, run=partial(one_cut, template, at, how)))
            else:
                cases.append(Case(name=template.name, how=LOCKED, run=partial(one_lock, template, at)))
        if template.world.databases.name == "SQLite":
            cases += [
                Case(name=template.name, how=FULL, run=partial(one_full_disk, template, space)) for space in SPACES
            ]
    return cases


def one_cut(template: Template, at: int, how: str, root: Path, dice: random.Random, tally: Tally) -> None:
    stage = Stage.copy(template, root, f"{how} at {at}", tally)
    databases = stage.world.databases
    assert isinstance(databases, PostgresqlDatabases)
    if how == CRASHED:
        databases.checkpoint()
    worker = stage.start(template.job, Strike(at=at, signal=FREEZE))
    if worker.wait_for_stop():
        if how == CRASHED:
            databases.restart()
            tally.faults[f"{how}: {template.name}"] += 1
        else:
            tally.faults[f"{how}: {template.name}"] += databases.end_connections(stage.world.place) > 0
        worker.thaw()
    said_so(stage, worker.wait())
    do_again_and_end(stage, template, dice)


def one_lock(template: Template, at: int, root: Path, dice: random.Random, tally: Tally) -> None:
    stage = Stage.copy(template, root, f"{LOCKED} at {at}", tally)
    databases = stage.world.databases
    assert isinstance(databases, SqliteFiles)
    worker = stage.start(impatient(template.job), Strike(at=at, signal=FREEZE))
    if worker.wait_for_stop():
        with databases.held(stage.world.place) as held:
            tally.faults[f"{LOCKED}: {template.name}"] += held
            worker.thaw()
            ended = worker.wait()
    else:
        ended = worker.wait()
    said_so(stage, ended)
    do_again_and_end(stage, template, dice)


def impatient(job: RoundJob) -> RoundJob:
    """The job of a worker that soon gives up waiting for a lock."""

    def do(opened: Opened, promises: Promises) -> None:
        database.BUSY_TIMEOUT_S = PATIENCE_S  # type: ignore[assignment]
        opened.workspace.close()
        job.do(opened.world.open(), promises)

    return replace(job, do=do)


def one_full_disk(template: Template, space: int, root: Path, dice: random.Random, tally: Tally) -> None:
    stage = Stage.copy(template, root, f"{FULL} after {space} bytes", tally)
    ended = stage.start(template.job, Strike(no_space_after=space)).wait()
    outcome = stage.heard(ended)
    tally.faults[f"{FULL}: {template.name}"] += outcome is not None and outcome.kind != DONE
    do_again_and_end(stage, template, dice)


def said_so(stage: Stage, ended: Ended) -> None:
    """A job without its database is done all the same, or says that the database is away; it refuses nothing."""
    outcome = stage.heard(ended)
    if outcome and outcome.kind == REFUSED:
        stage.tally.false_alarms.append(f"{stage.when}: {outcome.message}")
