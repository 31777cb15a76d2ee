"""Commands under fire: each is run again until it ends well, as a supervisor does, while parts of it are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.local_server import find_free_port, wait_for_server
from tests.faults.processes import end_with_parent
from tests.paths import ROOT
from tests.postgresql_server import Server

PATIENCE_S = 1800.0
"""Longest time for one run of a command, in seconds; a longer one hangs."""
END_S = 120.0
"""Longest time that what a run started has to end after it, in seconds."""
LOOK_S = 0.1
MAX_ALARMS = 5
MARK = "GIGAMASK_FAULTS_RUN"
"""Environment variable by which the processes of a run are known, whoever is their parent by now."""
FLOW, PREFECT, ANNOTATE, DATABASE, RAY = "flow", "Prefect's server", "annotation server", "database", "Ray"
LOOKS_LIKE = {
    ANNOTATE: ("flows.cli annotate",),
    RAY: ("raylet/raylet", "gcs_server", "ray::"),
}
"""Parts of the command line of what a run starts, by victim."""


@dataclass
class Course:
    """What happened to the commands of loops."""

    kills: Counter[str] = field(default_factory=Counter)
    """Number of kills by victim."""
    runs: int = 0
    """Number of times that a command was started."""
    alarms: list[str] = field(default_factory=list)
    """Failures that nothing called for, and failures that were told by a traceback."""
    left_over: list[str] = field(default_factory=list)
    """Processes that outlived the run that started them."""


class PrefectServer:
    """A Prefect server with its history in a folder, which is started again after a crash."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, find_free_port()
        self.url = f"http://127.0.0.1:{self._port}/api"
        folder.mkdir()
        self._start()

    def crash(self) -> None:
        """Kill the server, and start it again."""
        self.close()
        self._start()

    def close(self) -> None:
        """Kill the server."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        command += ["--host", "127.0.0.1", "--port", str(self._port), "--log-level", "warning"]
        environment = os.environ | {"PREFECT_HOME": str(self._folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        log = self._folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, preexec_fn=end_with_parent
            )
        wait_for_server("Prefect's server", f"{self.url}/health", self._process, log)


class Fire:
    """Runs commands and kills.

    Args:
        home: Home of the commands, and the folder of what they print.
        database: Server of the rounds' databases.
        prefect: Server that records the flows.
        course: What happens is added to it.
        sabotage: Kind of sabotage; empty for sound code.
    """

    def __init__(
        self, home: Path, database: Server, prefect: PrefectServer, course: Course, sabotage: str = ""
    ) -> None:
        self._home, self._database, self._prefect, self._course = home, database, prefect, course
        self._command = [sys.executable, "-m", "tests.faults.loop.driver", sabotage]
        self._marks: list[str] = []

    def run(
        self, arguments: Sequence[str], kills: int, whom: Sequence[str], within_s: float, dice: random.Random
    ) -> Any:
        """Run a command until it ends well, and kill on the way; return what it printed as JSON.

        Args:
            arguments: The command.
            kills: Number of kills; there are fewer where the command ends earlier.
            whom: Victims to draw from.
            within_s: Longest time from the start of a run, or from the kill before, to a kill, in seconds.
            dice: Source of randomness.
        """
        while True:
            process, before = self._start(arguments), kills
            while kills and self._strike(process, dice.choice(whom), dice.uniform(0, within_s), dice):
                kills -= 1
            code = process.wait(PATIENCE_S)
            if code == 0:
                return json.loads(self._printed.read_text())
            told = self._errors.read_text()
            if kills == before:
                self._alarm(f"{arguments[0]} ended with {code} by itself", told)
            elif "Traceback" in told or "unexpected" in told:
                self._alarm(f"{arguments[0]} told no clear error", told)

    def finish(self) -> None:
        """Wait until all processes of all runs have ended; those that do not are counted, and ended."""
        until = time.monotonic() + END_S
        while (left := self._processes(*self._marks)) and time.monotonic() < until:
            time.sleep(LOOK_S)
        for pid, command in left.items():
            self._course.left_over.append(command)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _start(self, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
        self._course.runs += 1
        self._marks.append(uuid.uuid4().hex)
        self._printed, self._errors = (self._home / f"{name}-{self._course.runs}" for name in ("printed", "errors"))
        environment = os.environ | {"HOME": str(self._home), "PYTHONPATH": str(ROOT), MARK: self._marks[-1]}
        environment |= {"GIGAMASK_PREFECT_URL": self._prefect.url}
        with self._printed.open("wb") as printed, self._errors.open("wb") as errors:
            return subprocess.Popen(
                [*self._command, *arguments],
                cwd=self._home,
                env=environment,
                stdout=printed,
                stderr=errors,
                preexec_fn=end_with_parent,
            )

    def _strike(self, process: "subprocess.Popen[bytes]", victim: str, after_s: float, dice: random.Random) -> bool:
        """Kill a victim once it is there after so many seconds; False where the run ended before."""
        at = time.monotonic() + after_s
        until = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < until:
            time.sleep(LOOK_S)
            if time.monotonic() < at:
                continue
            if victim == DATABASE:
                self._crash_database()
            elif victim == PREFECT:
                self._prefect.crash()
            elif victim == FLOW:
                process.kill()
                process.wait()
            else:
                there = self._processes(self._marks[-1])
                found = [pid for pid, command in there.items() if any(each in command for each in LOOKS_LIKE[victim])]
                if not found:
                    continue
                with suppress(ProcessLookupError):
                    os.kill(dice.choice(found), signal.SIGKILL)
            self._course.kills[victim] += 1
            return True
        return False

    def _crash_database(self) -> None:
        """Kill the database's first process, and start it again once the others have seen that."""
        first = int((self._database.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(first, signal.SIGKILL)
        until = time.monotonic() + END_S
        while True:
            try:
                return self._database.start()
            except RuntimeError:  # the memory that they share is still in use
                if time.monotonic() > until:
                    raise
                time.sleep(LOOK_S)

    def _processes(self, *marks: str) -> dict[int, str]:
        """Command lines of the processes of these runs, by process id."""
        wanted = {f"{MARK}={mark}".encode() for mark in marks}
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if not wanted.isdisjoint((folder / "environ").read_bytes().split(b"\0")):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(folder.name)] = command
        return found

    def _alarm(self, what: str, told: str) -> None:
        self._course.alarms.append(f"{what}: {told[-3000:]}")
        assert len(self._course.alarms) < MAX_ALARMS, self._course.alarms
