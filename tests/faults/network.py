"""Networks that fail, each in a process of its own: one at random, with seeded dice, and one where it is told."""

import json
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from tests.failing_proxy import BREAKS_OFF, LOSES, REFUSES, FaultOf, Request, proxy_to, serving
from tests.faults.processes import end_with_parent

FAULT_RATE = 0.001  # of all requests, and
COMMIT_FAULT_RATE = 0.08  # of those that create what must not be there: records, folds, versions of tables


class Network:
    """Until it is left, `address` leads to `upstream` through faults."""

    def __init__(self, upstream: str, seed: float, log: Path) -> None:
        self.log = log
        log.touch()
        self.pid, self.address = _forked(lambda announce: _serve(upstream, random.Random(seed), log, announce))

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def counts(self) -> Counter[str]:
        return Counter(f"network {line}" for line in self.log.read_text().splitlines())


def _serve(upstream: str, dice: random.Random, log: Path, announce: int) -> None:
    def fault_of(request: Request) -> str:
        creates = "If-None-Match" in request.headers
        if dice.random() > (COMMIT_FAULT_RATE if creates else FAULT_RATE):
            return ""
        fault = dice.choice([*REFUSES, *LOSES, *([BREAKS_OFF] if request.command == "GET" else [])])
        with log.open("a") as lines:
            lines.write(f"{fault}{' (a commit)' if creates else ''}\n")
        return fault

    _serve_until_killed(upstream, fault_of, announce)


def _serve_until_killed(upstream: str, fault_of: FaultOf, announce: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with serving(proxy_to(upstream, fault_of)) as address:
        os.write(announce, f"{address}\n".encode())
        signal.pause()


def _forked(serve: Callable[[int], None]) -> tuple[int, str]:
    """Process id and address of a server; `serve` writes its address to the descriptor that it is given."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            end_with_parent()
            serve(writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return pid, pipe.readline().strip()


class LosingNetwork:
    """Until it is left, `address` leads to `upstream`, and the reply to one put, once armed, is lost."""

    def __init__(self, upstream: str, folder: Path) -> None:
        self._armed, self._log = folder / "armed.json", folder / "puts.log"
        self._times = 0
        self.arm(-1, "")
        self._pid, self.address = _forked(lambda announce: _serve_losing(upstream, self._armed, self._log, announce))

    def __enter__(self) -> "LosingNetwork":
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def arm(self, at: int, fault: str) -> None:
        """From now on puts are counted anew, and the reply to that one is lost."""
        self._times += 1
        self._log.write_text("")
        unfinished = self._armed.with_suffix(".new")
        unfinished.write_text(json.dumps({"times": self._times, "at": at, "fault": fault}))
        unfinished.replace(self._armed)

    def puts(self) -> list[str]:
        """Paths of the puts since then; where a client asks again, again."""
        return self._log.read_text().splitlines()


def _serve_losing(upstream: str, armed: Path, log: Path, announce: int) -> None:
    lock, counted = threading.Lock(), Counter[int]()

    def fault_of(request: Request) -> str:
        if request.command != "PUT":
            return ""
        with lock:
            order = json.loads(armed.read_text())
            with log.open("a") as lines:
                lines.write(f"{unquote(request.path.partition('?')[0])}\n")
            counted[order["times"]] += 1
            return order["fault"] if counted[order["times"]] - 1 == order["at"] else ""

    _serve_until_killed(upstream, fault_of, announce)
