"""The failing network of a whole run, in a process of its own; its dice are seeded, its faults counted."""

import os
import random
import signal
from collections import Counter
from pathlib import Path

from tests.failing_proxy import BREAKS_OFF, LOSES, REFUSES, Request, proxy_to, serving
from tests.faults.workers import end_with_parent

FAULT_RATE = 0.001  # of all requests, and
COMMIT_FAULT_RATE = 0.08  # of those that create what must not be there: records, folds, versions of tables


class Network:
    """Until it is left, `address` leads to `upstream` through faults."""

    def __init__(self, upstream: str, seed: float, log: Path) -> None:
        self.log = log
        log.touch()
        reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(reading)
                end_with_parent()
                _serve(upstream, random.Random(seed), log, writing)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            self.address = pipe.readline().strip()

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

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with serving(proxy_to(upstream, fault_of)) as address:
        os.write(announce, f"{address}\n".encode())
        signal.pause()
