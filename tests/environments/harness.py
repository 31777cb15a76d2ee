"""Four commands in every environment of cases.py: does it work, or say why in one line, and how soon.

    python -m tests.environments.harness [--only WORD] [--commands run,doctor]
    python -m tests.environments.harness --markdown FILE...

One line of JSON for each, and a table at the end; the exit status is 1 where one neither works nor says why. With
--markdown nothing is run: the table of docs/environments.md is made of the lines that earlier runs printed into files.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from storage.dataset import Dataset
from tests.environments.cases import COMMANDS, ENVIRONMENTS, Environment, variables_of
from tests.paths import ROOT
from tests.small_dataset import small_dataset
from tests.stages.conftest import encoded, picture
from tests.tiny_network import save_tiny_model

MAX_REFUSAL_CPU_S = 5.0
"""Longest time that a refusal takes, in seconds of CPU; a busy machine does not lengthen it."""
PATIENCE_S = 240
"""Longest time that a command may take, in seconds."""
TRAIN = ["--set=train.batch_size=1", "--set=data.scene_share=0.0", "--set=data.held_out_every=3"]
TRAIN += ["--set=data.calibration.images_per_source=2", "--set=data.calibration.prompts=2"]
CLOCK = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <time.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <unistd.h>
static long shift(void) { const char *text = getenv("CLOCK_SHIFT_S"); return text ? atol(text) : 0; }
int clock_gettime(clockid_t id, struct timespec *at) {
    int failed = syscall(SYS_clock_gettime, id, at);
    if (!failed && id == CLOCK_REALTIME) at->tv_sec += shift();
    return failed;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one command in one environment."""

    environment: str
    command: str
    good: bool
    """Whether the command worked where it should, or said the expected words, in one line, in time."""
    status: int
    seconds: float
    cpu_s: float
    """Time of the processor, that of Ray's processes not included, in seconds."""
    said: str
    """Last line on stderr if the command did not work."""


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What the commands work on; every environment gets a copy."""

    folder: Path
    snapshot: str
    clock: Path
    """Library for LD_PRELOAD that shifts the clock."""

    @classmethod
    def make(cls, folder: Path) -> "Materials":
        """Make two photos, a network of random weights, and a dataset with a snapshot."""
        (folder / "photos").mkdir(parents=True)
        for seed in range(2):
            (folder / "photos" / f"{seed}.png").write_bytes(encoded(picture(seed), "PNG"))
        save_tiny_model(folder)
        dataset = small_dataset(folder / "data")
        dataset.fold()
        snapshot = dataset.snapshot().snapshot_id
        (folder / "clock.c").write_text(CLOCK)
        clock = folder / "clock.so"
        if shutil.which("cc"):
            subprocess.run(["cc", "-shared", "-fPIC", "-o", clock, folder / "clock.c"], check=True)
        return cls(folder=folder, snapshot=snapshot, clock=clock)

    def arguments(self, command: str) -> list[str]:
        """Return the command line of a command, relative to the copy."""
        model = "tiny.safetensors"
        if command == "run":
            settings = ["--set", "pool.workers=1", "--set", "generate.points_per_side=4"]
            return ["run", "photos", "--dataset", "out", "--model", model, *settings]
        if command == "query":
            return ["query", "--dataset", "data", "SELECT count(*) AS masks, 'é' AS letter FROM masks"]
        if command == "train":
            chosen = ["--snapshot", self.snapshot, "--from", model, "--steps", "1", "--work", "work"]
            return ["train", "--dataset", "data", *chosen, "--device", "cpu", *TRAIN]
        return ["doctor", "--dataset", "data"]


def try_command(environment: Environment, command: str, materials: Materials, folder: Path) -> Outcome:
    """Run a command in an environment, in a folder that does not exist yet."""
    # The folder, which a user without a name can write into
    shutil.copytree(materials.folder, folder)
    environment.prepare(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)

    # The command
    line = [*environment.prefix, sys.executable, "-P", "-m", "gigamask", *materials.arguments(command)]
    variables = variables_of(environment, folder, ROOT, materials.clock)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = _run(line, folder, variables)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # What became of it
    errors = done.stderr.decode(errors="replace")
    words = environment.words(command)
    return Outcome(
        environment=environment.name,
        command=command,
        good=_works(done.returncode, errors, command, folder)
        if words is None
        else _says_why(done.returncode, errors, words, cpu_s),
        status=done.returncode,
        seconds=round(time.monotonic() - began, 1),
        cpu_s=round(cpu_s, 1),
        said=""
        if done.returncode == 0
        else "\n".join((errors + done.stdout.decode(errors="replace")).splitlines()[-3:]),
    )


def _run(line: Sequence[str], folder: Path, variables: dict[str, str]) -> "subprocess.CompletedProcess[bytes]":
    """Run a command; one that does not end is killed with what it started, and has status -9."""
    with (folder / "stdout").open("w+b") as out, (folder / "stderr").open("w+b") as errors:
        process = subprocess.Popen(
            line, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True
        )
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(line, process.returncode, out.read(), errors.read())


def _works(status: int, errors: str, command: str, folder: Path) -> bool:
    if status != 0 or "Traceback" in errors or "of the user was imported" in errors:
        return False
    if command != "run":
        return True
    return Dataset.open(folder / "out").query("SELECT count(*) AS n FROM images").to_pylist() == [{"n": 2}]


def _says_why(status: int, errors: str, words: str, cpu_s: float) -> bool:
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    return (
        status == 1
        and "Traceback" not in errors
        and len(lines) == 1
        and words in lines[0]
        and cpu_s < MAX_REFUSAL_CPU_S
    )


def skipped(environment: Environment) -> str:
    """Say why an environment cannot be made here; empty where it can."""
    if environment.needs_root and os.geteuid() != 0:
        return "needs root"
    if "LD_PRELOAD" in environment.variables and not shutil.which("cc"):
        return "needs a C compiler"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every command in every environment, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="words in the environments' names, with | between them")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--markdown", type=Path, nargs="+", metavar="FILE", help="output of earlier runs; only a table")
    given = parser.parse_args(arguments)
    if given.markdown:
        earlier = read_outcomes(given.markdown)
        print_table(earlier)
        return int(not all(each.good for each in earlier))
    outcomes: list[Outcome] = []
    chosen = [each for each in ENVIRONMENTS if any(word in each.name for word in given.only.split("|"))]
    base = "/var" if os.geteuid() == 0 else None  # one environment has no /tmp
    with tempfile.TemporaryDirectory(prefix="gigamask-", dir=base) as temporary:
        Path(temporary).chmod(0o777)
        materials = Materials.make(Path(temporary) / "materials")
        for number, environment in enumerate(chosen):
            if why := skipped(environment):
                print(json.dumps({"environment": environment.name, "skipped": why}), flush=True)
                continue
            for command in given.commands.split(","):
                folder = Path(temporary) / f"{number}-{command}"
                outcomes.append(try_command(environment, command, materials, folder))
                print(json.dumps(asdict(outcomes[-1]), ensure_ascii=False), flush=True)
                shutil.rmtree(folder)
    print_table(outcomes)
    return int(not all(each.good for each in outcomes))


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each environment: whether each command works, with its seconds of CPU, and what refusals say."""
    commands = [command for command in COMMANDS if any(each.command == command for each in outcomes)]
    print("| environment | " + " | ".join(f"`{command}`" for command in commands) + " | words of the refusal |")
    print("|---|" + "---|" * (len(commands) + 1))
    for name in dict.fromkeys(each.environment for each in outcomes):
        row = {each.command: each for each in outcomes if each.environment == name}
        cells = [_verdict(row[command]) if command in row else "" for command in commands]
        words = dict.fromkeys(_refusal(each) for each in row.values() if each.good and each.status)
        print(f"| {_escape(name)} | " + " | ".join(cells) + f" | {_escape(' '.join(words))} |")


def read_outcomes(files: Sequence[Path]) -> list[Outcome]:
    """Read what earlier runs printed; of two outcomes of the same command in the same environment, the later counts."""
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    found = [Outcome(**each) for each in map(json.loads, lines) if "skipped" not in each]
    return list({(each.environment, each.command): each for each in found}.values())


def _verdict(outcome: Outcome) -> str:
    if not outcome.good:
        return "FAILS"
    return f"{'works' if outcome.status == 0 else 'refused'}, {outcome.cpu_s} s"


def _refusal(outcome: Outcome) -> str:
    return next(line for line in outcome.said.splitlines() if line.startswith("error: "))


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    sys.exit(main())
