"""Faults upon a dataset, by the thousand, and what they cost: nothing lost, nothing doubled, no torn state ever seen.

    python -m tests.faults.harness [--faults 1000] [--s3-faults 200] [--seed 0] [--folder /tmp]
    python -m tests.faults.harness --sabotage [KIND ...]

Three kinds of runs. `every_step` kills or freezes a worker at each of its steps in turn, on a fresh copy of a dataset,
and lets the next run finish. `power` cuts the power at those steps and goes on with what is on the disk. `chaos` keeps
one dataset under fire: workers killed, frozen and thawed too late, doubled, out of space, cut off in the middle of a
file, with wrong clocks, beside cleaning and folding ones, while a reader reads on. After each the bytes are checked
without the dataset's code (checker.py). One JSON line a figure; exit status 1 where a mask was lost or doubled, a
reader saw a torn state, or a worker failed in a way that was not meant.

`--sabotage` proves that the harness can fail: it breaks the protocol in each way of sabotage.py and counts the faults
of `every_step` until that is noticed; exit status 1 where one never is.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

from tests import s3_server
from tests.faults import sabotage, workers
from tests.faults.chaos import LOCAL_KINDS, S3_KINDS, S3_SPAN_S, S3_STEPS, SMALL_DISK_KINDS, Chaos, Kinds, Place
from tests.faults.checker import BucketFiles, FolderFiles
from tests.faults.every_step import Case, every_case, every_step, strike_some
from tests.faults.network import Network
from tests.faults.power import POWER_CUT, Disk, LoopDisk, SimulatedDisk, power_cuts
from tests.faults.tally import Tally, in_child

SHARE_OF_STEPS = 0.4  # of the faults on a local disk, those that every_step makes
SHARE_OF_SMALL_DISK = 0.1
SHARE_OF_POWER_CUTS = 0.2
PER_DATASET = 40  # faults of chaos upon one dataset


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that disks are unmounted and servers ended
    workers.warm_up()
    bad = False
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gigamask-faults-") as name:
        if arguments.sabotage is not None:
            sys.exit(
                not prove(Path(name), arguments.sabotage or list(sabotage.KINDS), arguments.faults, arguments.seed)
            )
        for where, count, run in (("local disk", arguments.faults, run_local), ("S3", arguments.s3_faults, run_s3)):
            if count:
                start = time.monotonic()
                tally = Tally()
                run(Path(name), count, random.Random(arguments.seed), tally)
                print_lines(tally, where, time.monotonic() - start, arguments.seed)
                bad = bad or tally.bad
    sys.exit(bad)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=1000, help="on local disk")
    parser.add_argument("--s3-faults", type=int, default=0, help="on a real S3 server, started here (see s3_server.py)")
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
        "masks lost": (tally.of_kind("lost", "mask"), "masks"),
        "masks doubled": (tally.of_kind("doubled", "mask"), "masks"),
        "other findings": (
            len([each for each in tally.findings if each.kind not in ("lost", "doubled") or "mask" not in each.thing]),
            "findings",
        ),
        "torn reads": (len(tally.torn), "reads"),
        "failed workers": (len(tally.failures), "workers"),
        "reads": (tally.reads, "reads"),
        "masks checked": (tally.masks, "masks"),
        "datasets": (tally.datasets, "datasets"),
        "seconds": (round(seconds, 1), "s"),
    }
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {where}"
    for metric, (value, unit) in figures.items():
        line = {"bench": "faults", "metric": metric, "value": value, "unit": unit, "machine": machine, "seed": seed}
        print(json.dumps(line), flush=True)
    for each in [*map(str, tally.findings), *tally.torn, *tally.failures][:40]:
        print(each, file=sys.stderr, flush=True)


def prove(folder: Path, kinds: list[str], most: int, seed: int) -> bool:
    """Strikes a protocol broken in each of these ways, at most so many times, until that is noticed."""
    struck = [sabotage.KINDS[kind] for kind in kinds]
    cases = every_case(folder, sorted({each.job for each in struck if each.how != POWER_CUT}))  # made by the sound one
    noticed = [noticed_after(folder, kind, cases, most, seed) for kind in kinds]
    return all(noticed)


def noticed_after(folder: Path, kind: str, cases: list[Case], most: int, seed: int) -> bool:
    broken = sabotage.KINDS[kind]
    shown = [case for case in cases if (case.name, case.how) == (broken.job, broken.how)]

    def run() -> Tally:
        broken.install(setattr)
        tally = Tally(first_is_enough=True)
        if broken.how == POWER_CUT:
            power_cuts(folder / kind, SimulatedDisk(folder / kind), most, random.Random(seed), tally, [broken.job])
            return tally
        strike_some(shown, folder / kind, most, random.Random(seed), tally)
        return tally

    tally = in_child(run)
    what = next(iter([*map(str, tally.findings), *tally.torn, *tally.failures]), "nothing")
    metric = f"sabotage of {kind}: noticed" if tally.bad else f"sabotage of {kind}: not noticed"
    line = {"bench": "faults", "metric": metric, "value": tally.faults.total(), "unit": "faults", "what": what}
    print(json.dumps({**line, "seed": seed}), flush=True)
    return tally.bad


def run_local(folder: Path, count: int, dice: random.Random, tally: Tally) -> None:
    every_step(folder, round(count * SHARE_OF_STEPS), dice, tally)
    cut_power(folder / "power", round(count * SHARE_OF_POWER_CUTS), dice, tally)
    with small_disk(folder) as disk:
        if disk is not None:
            in_folder(disk / "dataset", round(count * SHARE_OF_SMALL_DISK), folder, dice, tally, SMALL_DISK_KINDS)
    while tally.faults.total() < count and not tally.over:
        wanted = min(PER_DATASET, count - tally.faults.total())
        in_folder(folder / uuid.uuid4().hex, wanted, folder, dice, tally, LOCAL_KINDS)


def cut_power(folder: Path, count: int, dice: random.Random, tally: Tally) -> None:
    """Power cuts on a simulated disk and, where this user may mount one, on a real file system."""
    disks: list[Disk] = [SimulatedDisk(folder / "simulated")]
    if LoopDisk.is_possible(folder / "loop"):
        disks.append(LoopDisk(folder / "loop"))
    else:
        print("no loop device can be mounted here: power is cut on the simulated disk alone", file=sys.stderr)
    for number, disk in enumerate(disks):
        power_cuts(folder / f"jobs-{number}", disk, round(count / len(disks)), dice, tally)


def in_folder(root: Path, count: int, folder: Path, dice: random.Random, tally: Tally, kinds: Kinds) -> None:
    """Chaos upon a dataset in a local folder."""
    place = Place(uri=str(root), files=lambda: FolderFiles(root), folder=root)
    Chaos(place, random.Random(dice.random()), tally, kinds).run(count, folder)
    shutil.rmtree(root)


def run_s3(folder: Path, count: int, dice: random.Random, tally: Tally) -> None:
    """The same on a real S3 server, behind a network that fails: at least half of the faults are those of workers."""
    with s3_server.serving(folder / "s3") as endpoint:
        os.environ.update(s3_server.environment(endpoint))
        boto3.client("s3").create_bucket(Bucket="faults")
        with Network(endpoint, dice.random(), folder / "network.log") as network:

            def left() -> int:
                of_workers = tally.faults.total()
                return max(count - of_workers - network.counts().total(), count // 2 - of_workers)

            while left() > 0:
                prefix = uuid.uuid4().hex
                place = Place(
                    uri=f"s3://faults/{prefix}",
                    files=lambda prefix=prefix: BucketFiles(endpoint, "faults", prefix),  # type: ignore[misc]
                    through={"AWS_ENDPOINT_URL": network.address},
                    most_steps=S3_STEPS,
                    span_s=S3_SPAN_S,
                )
                Chaos(place, random.Random(dice.random()), tally, S3_KINDS).run(min(left(), PER_DATASET // 2), folder)
            tally.faults.update(network.counts())


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


if __name__ == "__main__":
    main()
