"""Faults upon annotation rounds, and what they cost: no operation lost or doubled, no task given twice, closed once.

    python -m tests.faults.rounds.harness [--faults 700] [--postgresql-faults 300] [--jobs 2] [--seed 0] [--folder /tmp]
    python -m tests.faults.rounds.harness --sabotage [KIND ...]

The kinds of faults are the files of kinds/: everything that people and leads do to a round is killed at each of its
steps, or frozen there while another goes ahead; the database goes away; clocks jump; batches of operations come twice,
late and out of order; replies of the server are lost. After each the rows of the workspace and the bytes of the dataset
are checked without the code of either (checks/).

The lines are those of `make faults`. In the last one `lost`, `doubled` and `torn` are what was acknowledged or stated
by a submission and is gone, there twice, or not as it was; `false_alarms` are refusals and errors that nothing called
for; `missed` are acts that should have been refused. Exit status 1 where one of them is not 0, or a worker failed.

`--sabotage` proves that the harness can fail: it breaks the code in each way of sabotage.py and counts the faults until
that is noticed.
"""

import argparse
import json
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests import postgresql_server
from tests.faults.harness import all_noticed, part_of, print_lines, print_progress, side_by_side, summed
from tests.faults.processes import warm_up
from tests.faults.rounds import sabotage
from tests.faults.rounds.databases import Databases, PostgresqlDatabases, SqliteFiles
from tests.faults.rounds.jobs import JOBS
from tests.faults.rounds.kinds.batches import batches
from tests.faults.rounds.kinds.clocks import clocks
from tests.faults.rounds.kinds.drops import drops
from tests.faults.rounds.kinds.kills import freezes, kills
from tests.faults.rounds.kinds.replies import replies
from tests.faults.rounds.stages import Case, Template, make_templates, steps_of, strike_all
from tests.faults.tally import Tally

KINDS: dict[str, tuple[float, Callable[[Sequence[Template]], list[Case]]]] = {
    "killed": (0.28, kills),
    "clocks": (0.08, clocks),
    "batches": (0.1, batches),
    "replies": (0.08, replies),
    "database gone": (0.18, drops),
    "frozen": (0.28, freezes),
}
"""By kind, the fraction of the faults and the cases; the last kind, of which there is most, gets what is left."""


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are ended
    warm_up()
    every = Tally()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gigamask-faults-rounds-") as name:
        if arguments.sabotage is not None:
            kinds = arguments.sabotage or list(sabotage.KINDS)
            sys.exit(not prove(Path(name), kinds, arguments.faults, arguments.seed, arguments.jobs))
        for kind, count in (("SQLite", arguments.faults), ("PostgreSQL", arguments.postgresql_faults)):
            if count:
                start, cpu_s = time.monotonic(), cpu_seconds()
                tally = run(Path(name) / kind, kind, count, arguments)
                print_lines(tally, f"rounds on {kind}", time.monotonic() - start, arguments.seed)
                cpu = {"bench": "faults", "metric": "CPU seconds", "value": round(cpu_seconds() - cpu_s), "unit": "s"}
                print(json.dumps({**cpu, "machine": f"rounds on {kind}", "seed": arguments.seed}), flush=True)
                every.add(tally)
    print(json.dumps(every.sums), flush=True)
    sys.exit(every.bad)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=700, help="on workspaces in SQLite files")
    parser.add_argument("--postgresql-faults", type=int, default=0, help="on a real server; see postgresql_server.py")
    parser.add_argument("--jobs", type=int, default=2, help="processes that strike side by side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where datasets and files lie meanwhile; default: the temporary one"
    )
    parser.add_argument("--struck", nargs="+", choices=JOBS, default=list(JOBS), help="jobs that are struck")
    parser.add_argument("--sabotage", nargs="*", choices=sabotage.KINDS, help="break the code; none named: each way")
    return parser.parse_args()


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that have ended below it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def run(folder: Path, database: str, count: int, arguments: argparse.Namespace) -> Tally:
    """So many faults of all kinds, by several processes, each with a server of its own."""

    def one_job(job: int) -> Tally:
        home = folder / f"job-{job}"
        home.mkdir(parents=True)
        dice, tally = random.Random(f"{arguments.seed} {job}"), Tally()
        with serving(database) as databases:
            templates = list(make_templates(home / "templates", databases, arguments.struck).values())
            for kind, found in strike(home, part_of(count, job, arguments.jobs), templates, dice):
                print_progress(found, f"{kind}, {database}", job)
                tally.add(found)
        return tally

    return summed(side_by_side([partial(one_job, job) for job in range(arguments.jobs)]))


def strike(home: Path, count: int, templates: Sequence[Template], dice: random.Random) -> Iterator[tuple[str, Tally]]:
    """Strikes with one kind of faults after the other, and yields what each has found."""
    struck = 0
    for kind, (fraction, cases) in KINDS.items():
        tally = Tally()
        wanted = count - struck if kind == list(KINDS)[-1] else round(count * fraction)
        if wanted > 0 and (found := cases(templates)):
            strike_all(found, home, wanted, dice, tally)
        struck += tally.faults.total()
        yield kind, tally


@contextmanager
def serving(database: str) -> Iterator[Databases]:
    """Databases of one kind."""
    if database == "SQLite":
        yield SqliteFiles()
        return
    if postgresql_server.programs() is None:
        sys.exit("--postgresql-faults: no PostgreSQL is installed (Debian: postgresql)")
    with postgresql_server.serving() as server:
        yield PostgresqlDatabases(server)


# Sabotage


def prove(folder: Path, kinds: Sequence[str], most: int, seed: int, jobs: int) -> bool:
    """Strikes code broken in each of these ways, at most so many times, until that is noticed."""
    needed = {sabotage.KINDS[kind].job for kind in kinds}
    names = [name for name in JOBS if name in needed]
    templates = make_templates(folder / "templates", SqliteFiles(), names)  # made by the sound code
    calls = [partial(noticed_after, folder / kind.replace(" ", "-"), kind, templates, most, seed) for kind in kinds]
    return all_noticed(kinds, calls, seed, jobs)


def noticed_after(home: Path, kind: str, templates: Mapping[str, Template], most: int, seed: int) -> Tally:
    """Strikes until something is found."""
    broken, tally = sabotage.KINDS[kind], Tally(first_is_enough=True)
    template = templates[broken.job]
    world = template.world.copy(home / "world")
    broken.install(setattr)
    template = replace(template, world=world, steps=steps_of(world, template.job))  # broken code may take others
    cases = [each for _, make in KINDS.values() for each in make([template]) if each.how == broken.how]
    strike_all(cases, home, most, random.Random(seed), tally)
    return tally


if __name__ == "__main__":
    main()
