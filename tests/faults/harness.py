"""Faults upon a dataset, by the thousand, and what they cost: nothing lost, doubled or torn, and `verify` says so.

    python -m tests.faults.harness [--faults 5000] [--s3-faults 500] [--jobs 2] [--seed 0] [--folder /tmp]
    python -m tests.faults.harness --sabotage [KIND ...]

The kinds of faults are the files of kinds/: a job is killed or frozen at each of its steps, the power is cut there,
the reply to each of its puts is lost; plans overlap, rebuilds race with folds, workers thaw after a restart; strangers'
files lie about, and stored bytes are destroyed; images are erased meanwhile; and one dataset is kept under fire while a
reader reads on. After each the bytes are checked without the dataset's code (checks/), and `verify` is asked: it must
be silent where nothing is wrong, and name what the harness has destroyed.

While it runs, each process prints the sums of each kind that it is through with, and says what was found; at the end
comes one JSON line a figure. The last line has the sums: `lost` (with shards that stay unfinished), `doubled` (with
what must not be there at all), `torn` (with damaged objects and torn reads), `false_alarms` and `missed` of `verify`. A
snapshot that was acknowledged and is gone counts as lost, one that says something else as torn. Exit status 1 where one
of them is not 0, or a worker failed in a way that was not meant.

`--sabotage` proves that the harness can fail: it breaks the protocol in each way of sabotage.py and counts the faults
until that is noticed; exit status 1 where one never is.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import boto3

from tests import s3_server
from tests.faults import sabotage
from tests.faults.checks.files import BucketFiles, FolderFiles
from tests.faults.kinds.cases import JOBS, Case, Template, make_templates, strike
from tests.faults.kinds.chaos import LOCAL_KINDS, S3_KINDS, S3_SPAN_S, S3_STEPS, SMALL_DISK_KINDS, Chaos, Kinds, Place
from tests.faults.kinds.damage import damages
from tests.faults.kinds.disks import LoopDisk, SimulatedDisk
from tests.faults.kinds.erasures import ERASURE_JOBS, erasures
from tests.faults.kinds.every_step import every_step
from tests.faults.kinds.planted import TO_FOLD, foreign_files, poisoned_parts
from tests.faults.kinds.power import power_cuts
from tests.faults.kinds.replies import lost_replies
from tests.faults.kinds.replies_on_s3 import BUCKET, lost_replies_on_s3
from tests.faults.kinds.thaws import rebuilds, thaws
from tests.faults.kinds.two_plans import two_plans
from tests.faults.network import LosingNetwork, Network
from tests.faults.processes import Worker, warm_up
from tests.faults.tally import Tally, done

SHARES = {
    "every step": 0.25,
    "power": 0.2,
    "lost replies": 0.1,
    "thaws": 0.08,
    "rebuilds": 0.04,
    "strangers' files": 0.03,
    "destroyed parts": 0.05,
    "damage": 0.02,
    "erasures": 0.06,
    "two plans": 0.08,
    "small disk": 0.05,
}
"""Fractions of the faults on a local disk, by kind; the rest is chaos."""
SHARE_OF_REPLIES_ON_S3 = 0.4
"""Of the faults on S3, those that lose the reply to one put of a job; the rest is chaos behind a failing network."""
PER_DATASET = 40  # faults of chaos upon one dataset


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that disks are unmounted and servers ended
    warm_up()
    every = Tally()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gigamask-faults-") as name:
        if arguments.sabotage is not None:
            kinds = arguments.sabotage or list(sabotage.KINDS)
            sys.exit(not prove(Path(name), kinds, arguments.faults, arguments.seed, arguments.jobs))
        for where, count, run in (("local disk", arguments.faults, run_local), ("S3", arguments.s3_faults, run_s3)):
            if count:
                start = time.monotonic()
                tally = run(Path(name), count, arguments.seed, arguments.jobs)
                print_lines(tally, where, time.monotonic() - start, arguments.seed)
                every.add(tally)
    print(json.dumps(every.sums), flush=True)
    sys.exit(every.bad)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=5000, help="on local disk")
    parser.add_argument("--s3-faults", type=int, default=0, help="on a real S3 server, started here (see s3_server.py)")
    parser.add_argument("--jobs", type=int, default=2, help="processes that strike side by side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the datasets lie meanwhile; default: the temporary folder")
    parser.add_argument(
        "--sabotage", nargs="*", choices=sabotage.KINDS, help="break the protocol; none named: each way"
    )
    return parser.parse_args()


def print_lines(tally: Tally, where: str, seconds: float, seed: int) -> None:
    figures: dict[str, tuple[float, str]] = {
        "faults": (tally.faults.total(), "faults"),
        **{f"faults: {kind}": (count, "faults") for kind, count in sorted(tally.faults.items()) if count},
        **{name: (count, "findings") for name, count in tally.sums.items() if name != "faults"},
        "failed workers": (len(tally.failures), "workers"),
        "reads": (tally.reads, "reads"),
        "verify runs": (tally.verified, "runs"),
        "masks checked": (tally.masks, "masks"),
        "datasets under fire": (tally.datasets, "datasets"),
        "seconds": (round(seconds, 1), "s"),
    }
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {where}"
    for metric, (value, unit) in figures.items():
        line = {"bench": "faults", "metric": metric, "value": value, "unit": unit, "machine": machine, "seed": seed}
        print(json.dumps(line), flush=True)


def print_progress(tally: Tally, kind: str, job: int) -> None:
    """The sums of one process's faults of one kind as soon as they are known: a run that is ended has told them.

    On standard output: the processes have no other (processes.py).
    """
    line = {"bench": "faults", "metric": f"done by job {job}: {kind}", "value": tally.faults.total(), "unit": "faults"}
    print(json.dumps({**line, **tally.sums}), flush=True)
    for number, each in enumerate(tally.in_words[:40]):
        found = {"bench": "faults", "metric": f"found by job {job}: {kind}, {number}", "value": each, "unit": ""}
        print(json.dumps(found), flush=True)


def side_by_side(calls: Sequence[Callable[[], Tally]]) -> list[Tally]:
    """Each call in a process of its own; their tallies."""
    workers = [Worker("", lambda _, call=call: call()) for call in calls]  # type: ignore[misc]
    try:
        return [done(worker).answer for worker in workers]
    finally:
        for worker in workers:
            if worker.ended is None:  # this process is told to end: so that they put their disks and servers away
                os.kill(worker.pid, signal.SIGTERM)
                os.waitpid(worker.pid, 0)


def summed(tallies: Sequence[Tally]) -> Tally:
    every = Tally()
    for each in tallies:
        every.add(each)
    return every


def part_of(count: int, job: int, jobs: int) -> int:
    """How many of `count` faults one of the jobs makes."""
    return count // jobs + (job < count % jobs)


# On a local disk


def run_local(folder: Path, count: int, seed: int, jobs: int) -> Tally:
    templates = make_templates(folder / "templates", {**JOBS, **ERASURE_JOBS})
    loop = LoopDisk.is_possible(folder / "loop")
    if not loop:
        print("no loop device can be mounted here: power is cut on the simulated disk alone", file=sys.stderr)

    def one_job(job: int) -> Tally:
        home = folder / f"job-{job}"
        home.mkdir()
        dice, tally = random.Random(f"{seed} {job}"), Tally()
        for kind, found in strike_local(home, part_of(count, job, jobs), templates, loop, dice):
            print_progress(found, kind, job)
            tally.add(found)
        return tally

    return summed(side_by_side([partial(one_job, job) for job in range(jobs)]))


def strike_local(
    home: Path, count: int, templates: Mapping[str, Template], loop: bool, dice: random.Random
) -> Iterator[tuple[str, Tally]]:
    """Strikes with one kind of faults after the other, and yields what each has found."""
    struck = 0
    for kind, cases in local_cases(home, templates, loop).items():
        tally = Tally()
        strike(cases, home, round(count * SHARES[kind]), dice, tally)
        struck += tally.faults.total()
        yield kind, tally
    with small_disk(home) as disk:
        if disk is not None:
            tally = Tally()
            in_folder(disk / "dataset", round(count * SHARES["small disk"]), home, dice, tally, SMALL_DISK_KINDS)
            struck += tally.faults.total()
            yield "small disk", tally
    tally = Tally()
    while (left := count - struck - tally.faults.total()) > 0:
        in_folder(home / uuid.uuid4().hex, min(PER_DATASET, left), home, dice, tally, LOCAL_KINDS)
    yield "chaos", tally


def local_cases(home: Path, templates: Mapping[str, Template], loop: bool) -> dict[str, list[Case]]:
    """The cases of each kind that come in cases."""
    disks = [SimulatedDisk(home / "simulated"), *([LoopDisk(home / "loop")] if loop else [])]
    erasing = [each for name, each in templates.items() if name in ERASURE_JOBS]
    templates = {name: each for name, each in templates.items() if name in JOBS}
    return {
        "every step": every_step(templates.values()),
        "lost replies": lost_replies(home, templates.values()),
        "thaws": thaws(templates.values()),
        "rebuilds": rebuilds([templates["rebuild"]]) if "rebuild" in templates else [],
        "strangers' files": foreign_files(templates.values()),
        "destroyed parts": poisoned_parts(each for name, each in templates.items() if name in TO_FOLD),
        "two plans": two_plans(templates["plan"]) if "plan" in templates else [],
        "damage": damages(templates["plan"]) if "plan" in templates else [],
        "erasures": erasures(erasing),
        "power": [case for disk in disks for case in power_cuts(templates.values(), disk)],
    }


def in_folder(root: Path, count: int, folder: Path, dice: random.Random, tally: Tally, kinds: Kinds) -> None:
    """Chaos upon a dataset in a local folder."""
    place = Place(uri=str(root), files=lambda: FolderFiles(root), folder=root)
    Chaos(place, random.Random(dice.random()), tally, kinds).run(count, folder)
    shutil.rmtree(root)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of its own with 64 MiB, where this user may mount one."""
    disk = folder / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    mounted = (
        mount
        and not subprocess.run([mount, "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True).returncode
    )
    try:
        yield disk if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", disk], check=True)


# On S3


def run_s3(folder: Path, count: int, seed: int, jobs: int) -> Tally:
    """The same on a real S3 server, behind a network that fails: at least half of the faults are those of workers."""
    with s3_server.serving(folder / "s3") as endpoint:
        os.environ.update(s3_server.environment(endpoint))
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        templates = make_templates(folder / "s3-templates")

        def one_job(job: int) -> Tally:
            replies, chaos, home = Tally(), Tally(), folder / f"s3-job-{job}"
            home.mkdir()
            own, dice = part_of(count, job, jobs), random.Random(f"{seed} {job}")
            with LosingNetwork(endpoint, home) as network:
                cases = lost_replies_on_s3(network, endpoint, templates.values())
                strike(cases, home, round(own * SHARE_OF_REPLIES_ON_S3), dice, replies)
            print_progress(replies, "lost replies on S3", job)
            strike_s3(home, endpoint, own - replies.faults.total(), dice, chaos)
            print_progress(chaos, "chaos on S3", job)
            return summed([replies, chaos])

        return summed(side_by_side([partial(one_job, job) for job in range(jobs)]))


def strike_s3(home: Path, endpoint: str, count: int, dice: random.Random, tally: Tally) -> None:
    """Chaos behind a network that fails at random."""
    with Network(endpoint, dice.random(), home / "network.log") as network:

        def left() -> int:
            of_workers = tally.faults.total()
            return max(count - of_workers - network.counts().total(), count // 2 - of_workers)

        while left() > 0:
            prefix = uuid.uuid4().hex
            place = Place(
                uri=f"s3://{BUCKET}/{prefix}",
                files=lambda prefix=prefix: BucketFiles(endpoint, BUCKET, prefix),  # type: ignore[misc]
                through={"AWS_ENDPOINT_URL": network.address},
                most_steps=S3_STEPS,
                span_s=S3_SPAN_S,
            )
            Chaos(place, random.Random(dice.random()), tally, S3_KINDS).run(min(left(), PER_DATASET // 2), home)
        tally.faults.update(network.counts())


# Sabotage


def prove(folder: Path, kinds: Sequence[str], most: int, seed: int, jobs: int) -> bool:
    """Strikes a protocol broken in each of these ways, at most so many times, until that is noticed."""
    struck = {sabotage.KINDS[kind].template or sabotage.KINDS[kind].job for kind in kinds}
    needed = {name: each for name, each in {**JOBS, **ERASURE_JOBS}.items() if name in struck}
    templates = make_templates(folder / "templates", needed)  # made by the sound protocol
    calls = [partial(noticed_after, folder / kind, kind, templates, most, seed) for kind in kinds]
    return all_noticed(kinds, calls, seed, jobs)


def all_noticed(kinds: Sequence[str], calls: Sequence[Callable[[], Tally]], seed: int, jobs: int) -> bool:
    """Makes the call of each kind of sabotage, prints what it noticed, and says whether each has noticed something."""
    noticed = []
    for start in range(0, len(calls), jobs):
        for kind, tally in zip(kinds[start:], side_by_side(calls[start : start + jobs]), strict=False):
            what = next(iter(tally.in_words), "nothing")
            metric = f"sabotage of {kind}: noticed" if tally.bad else f"sabotage of {kind}: not noticed"
            line = {"bench": "faults", "metric": metric, "value": tally.faults.total(), "unit": "faults", "what": what}
            print(json.dumps({**line, "seed": seed}), flush=True)
            noticed.append(tally.bad)
    return all(noticed)


def noticed_after(home: Path, kind: str, templates: Mapping[str, Template], most: int, seed: int) -> Tally:
    """Strikes until something is found; upon the simulated disk alone."""
    broken, tally = sabotage.KINDS[kind], Tally(first_is_enough=True)
    home.mkdir()
    template = broken.template or broken.job
    every = local_cases(home, {template: templates[template]}, loop=False)
    cases = [case for some in every.values() for case in some if (case.name, case.how) == (broken.job, broken.how)]
    broken.install(setattr)
    strike(cases, home, most, random.Random(seed), tally)
    return tally


if __name__ == "__main__":
    main()
