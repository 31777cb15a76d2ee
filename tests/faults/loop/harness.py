"""Loops under fire: `gigamask loop`, then `gigamask masks`, while what they consist of is killed at random times.

    python -m tests.faults.loop.harness [--kills 50] [--rounds 2] [--seed 0] [--folder /tmp]
    python -m tests.faults.loop.harness --sabotage [KIND ...]

Simulated annotators, real Prefect, Ray and PostgreSQL, a network with random weights and small photographs. SIGKILL
hits the command itself, Prefect's server, the annotation server, the database's first process, or a process of Ray. A
command that ends with an error is run again, and the servers started again, as a supervisor does. Loop after loop runs
until there were so many kills; each must leave what an undisturbed one leaves: masks, models, decisions and figures.

At the end of each, the bytes and the rows of its rounds are checked without its code (checker.py), and `verify` is
asked. In the last line `lost`, `doubled` and `torn` are rounds, answers, masks, decisions and models that are gone,
there twice or not as they must be; `false_alarms` are errors that nothing called for, unclear ones, and faults that
`verify` named where nothing was wrong; `missed` is what it did not name; `left_over` counts processes that outlived
their command. Exit status 1 where one of them is not 0 or something is not equal.

`--sabotage` proves that the harness can fail: it breaks the loop in each way of sabotage.py and looks what is noticed.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from engine.model.weights import save_model
from engine.training.initialise import fresh_sam
from storage.dataset import Dataset
from tests import postgresql_server
from tests.engine.training.tiny import TINY_SAM
from tests.faults.checks.findings import DAMAGED, LOST
from tests.faults.loop import sabotage
from tests.faults.loop.checker import Left, read_left
from tests.faults.loop.fire import ANNOTATE, DATABASE, FLOW, PREFECT, RAY, Course, Fire, PrefectServer
from tests.faults.stage import CHANGED, CONFIG
from tests.faults.tally import Tally
from tests.flows.loop.squares import write_squares
from tests.flows.loop.whole_loop import QUICK
from tests.tiny_network import tiny_card

PHOTOS = 16
KILLS_OF_A_LOOP = 25
"""Most kills in one loop, so that it comes to its end."""
FRACTION_OF_MASKS = 0.2
"""Fraction of a loop's kills that hit its end, the automatic masks."""
FRACTION_OF_TIME = 0.25
"""Longest time from one kill to the next, as a fraction of the time of an undisturbed command."""
NAMES = ("pool", "measured")
STEADY = ("retrain.gate.gate.max_latency_ratio=1000000",)
"""Settings without which a decision would depend on how busy the machine is."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A loop that came to its end."""

    result: Mapping[str, Any]
    """What `gigamask loop` printed."""
    left: Left
    seconds: tuple[float, float]
    """Time of the loop and of the automatic masks."""


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the database is ended
    if postgresql_server.programs() is None:
        sys.exit("no PostgreSQL is installed (Debian: postgresql)")
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gigamask-faults-loop-") as name,
        postgresql_server.serving() as database,
        closing(PrefectServer(Path(name) / "prefect")) as prefect,
    ):
        loops = Loops(Path(name), database, prefect, arguments.rounds)
        if arguments.sabotage is not None:
            sys.exit(not prove(loops, arguments.sabotage or list(sabotage.KINDS), arguments.seed))
        sys.exit(not strike(loops, arguments.kills, arguments.seed))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2, help="of each loop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where everything lies meanwhile; default: the temporary folder")
    parser.add_argument("--sabotage", nargs="*", choices=sabotage.KINDS, help="break the loop; none named: each way")
    return parser.parse_args()


class Loops:
    """Loops over the same photographs from the same model."""

    def __init__(self, folder: Path, database: postgresql_server.Server, prefect: PrefectServer, rounds: int) -> None:
        self.course = Course()
        self._folder, self._database, self._prefect = folder, database, prefect
        self._rounds, self._number = rounds, 0
        save_model(folder / "tiny.safetensors", fresh_sam(TINY_SAM, 5).eval(), tiny_card(TINY_SAM))
        write_squares(folder / "data", PHOTOS)

    def run(
        self, *, kills: int = 0, kind: str = "", dice: random.Random | None = None, times: Sequence[float] = (0, 0)
    ) -> Ended:
        """Run one loop to its end, and look at what it left."""
        # Its places
        self._number += 1
        home, dice = self._folder / f"loop-{self._number}", dice or random.Random(0)
        home.mkdir()
        template = self._database.url(f"loop_{self._number}_{{name}}")
        places = {name: template.format(name=f"seed_0_{name}") for name in NAMES}
        with psycopg.connect(self._database.url("postgres"), autocommit=True) as connection:
            for place in places.values():
                connection.execute(f"CREATE DATABASE {place.rpartition('/')[2]}".encode())

        # The loop, and the automatic masks of the model that it promoted
        fire = Fire(home, self._database, self._prefect, self.course, kind)
        of_masks = round(kills * FRACTION_OF_MASKS)
        began = time.monotonic()
        whom = (FLOW, PREFECT, ANNOTATE, DATABASE)
        result = fire.run(self._loop(home, template), kills - of_masks, whom, FRACTION_OF_TIME * times[0], dice)
        between = time.monotonic()
        if not kind:
            fire.run(self._masks(home), of_masks, (FLOW, PREFECT, RAY), FRACTION_OF_TIME * times[1], dice)
        seconds = (between - began, time.monotonic() - between)
        fire.finish()
        return Ended(result=result, left=read_left(home / "work" / "seed-0", places, result), seconds=seconds)

    def verify(self) -> list[str]:
        """Ask `verify` about the datasets of the last loop."""
        work = self._folder / f"loop-{self._number}" / "work" / "seed-0"
        reports = [Dataset.open(work / name / "dataset").maintenance.verify() for name in NAMES]
        return [str(fault) for report in reports for fault in report.faults]

    def _loop(self, home: Path, workspaces: str) -> list[str]:
        command = ["loop", "--json", "--model", str(self._folder / "tiny.safetensors"), "--rounds", str(self._rounds)]
        command += ["--data", str(self._folder / "data"), "--steps", "2", "--work", str(home / "work")]
        settings = [*QUICK, *STEADY, f"workspaces={json.dumps(workspaces)}"]
        return [*command, *(f"--set={each}" for each in settings)]

    def _masks(self, home: Path) -> list[str]:
        command = ["masks", "--json", "--dataset", str(home / "work" / "seed-0" / "pool" / "dataset")]
        settings = [
            *(f"generate.{name}={getattr(CONFIG, name)}" for name in CHANGED),
            "pool.workers=1",
            "pool.threads=1",
        ]
        return [*command, "--model", "promoted", *(f"--set={each}" for each in settings)]


def strike(loops: Loops, kills: int, seed: int) -> bool:
    """Strike loop after loop, print what was found, and say whether all is well."""
    began = time.monotonic()
    tally, unequal = Tally(), Counter[str]()
    undisturbed = loops.run()
    look(loops, undisturbed, undisturbed, tally, unequal)
    dice, number = random.Random(seed), 0
    while (done := loops.course.kills.total()) < kills:
        number += 1
        ended = loops.run(kills=min(KILLS_OF_A_LOOP, kills - done), dice=dice, times=undisturbed.seconds)
        look(loops, ended, undisturbed, tally, unequal)
        progress = {"metric": f"done: loop {number}", "value": loops.course.kills.total(), "unit": "kills"}
        more = {"alarms": len(loops.course.alarms), "left_over": len(loops.course.left_over)}
        unlike = {f"unlike {name}": count for name, count in unequal.items()}
        print(json.dumps({"bench": "faults", **progress, **unlike, **more, **tally.sums}), flush=True)
    course = loops.course
    figures: dict[str, tuple[float, str]] = {
        "loops": (number, "loops"),
        **{f"kills: {victim}": (count, "kills") for victim, count in sorted(course.kills.items())},
        "runs of a command": (course.runs, "runs"),
        "masks checked": (tally.masks, "masks"),
        "seconds": (round(time.monotonic() - began, 1), "s"),
    }
    for metric, (value, unit) in figures.items():
        line = {"bench": "faults", "metric": metric, "value": value, "unit": unit, "machine": "loops", "seed": seed}
        print(json.dumps(line), flush=True)
    sums = tally.sums | {"false_alarms": len(tally.false_alarms) + len(course.alarms)}
    sums = {"kills": course.kills.total(), **{name: sums[name] for name in list(sums)[1:]}}
    sums["left_over"] = len(course.left_over)
    same = {f"{name}_equal": not unequal[name] for name in ("masks", "models", "decisions", "figures")}
    for each in (*tally.in_words, *course.alarms, *course.left_over)[:40]:
        print(each, file=sys.stderr, flush=True)
    print(json.dumps({**sums, **same}), flush=True)
    return not any(value for name, value in sums.items() if name != "kills") and all(same.values())


def look(loops: Loops, ended: Ended, undisturbed: Ended, tally: Tally, unequal: Counter[str]) -> None:
    """Compare a loop with the undisturbed one, and what `verify` says with what is wrong."""
    left, wanted = ended.left, undisturbed.left
    tally.findings += left.findings
    tally.masks += left.masks.total()
    faults = loops.verify()
    destroyed = [each for each in left.findings if each.thing == "object" and each.kind in (LOST, DAMAGED)]
    tally.false_alarms += faults if not left.findings else []
    tally.missed += [str(each) for each in destroyed] if not faults else []
    unequal["masks"] += left.masks != wanted.masks
    unequal["models"] += left.models != wanted.models
    unequal["decisions"] += left.decisions != wanted.decisions
    unequal["figures"] += ended.result != undisturbed.result
    unlike = {"here": (left.masks - wanted.masks, left.models - wanted.models)}
    unlike["undisturbed"] = (wanted.masks - left.masks, wanted.models - left.models)
    for where, some in unlike.items():
        if any(some):
            print(f"only {where}: {some}", file=sys.stderr, flush=True)


def prove(loops: Loops, kinds: Sequence[str], seed: int) -> bool:
    """Break the loop in each of these ways, print what is noticed, and say whether all were."""
    noticed = []
    for kind in kinds:
        found = loops.run(kind=kind).left.findings
        metric = f"sabotage of {kind}: {'noticed' if found else 'not noticed'}"
        line = {"bench": "faults", "metric": metric, "value": len(found), "unit": "findings", "seed": seed}
        print(json.dumps({**line, "what": str(next(iter(found), "nothing"))}), flush=True)
        noticed.append(bool(found))
    return all(noticed)


if __name__ == "__main__":
    main()
