"""`gigamask serve` as a process, on a dataset with a closed round and a tiny promoted model."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from storage.dataset import Dataset
from storage.workspace.firings import Firing
from storage.workspace.workspace import Workspace
from tests.paths import ROOT
from tests.stages.training.rounds_to_train import dataset_with_a_round

QUIET = ("retraining.cron=''", "retraining.after_masks=0", "masks.every_s=0", "verify.cron=''", "audit.cron=''")
"""Settings without any schedule."""
TINY_TRAINING = (
    "retraining.steps=2",
    "retrain.train.batch_size=1",
    "retrain.retrain.held_out_every=3",
    "retrain.retrain.calibration.images_per_source=2",
    "retrain.retrain.calibration.prompts=2",
    "retrain.gate.gate.known_scenes=2",
    "retrain.gate.gate.min_images=1",
    "retrain.gate.gate.max_latency_ratio=100",
)
READY_S = 120.0


class Engine:
    """A dataset and a workspace in a folder, and the schedulers that serve them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace.open(folder / "workspace.sqlite", max_held=100)
        self.workspace.users.add("ann", "annotator")
        self.dataset: Dataset = dataset_with_a_round(folder, self.workspace)
        self.running: list[subprocess.Popen[str]] = []

    def environment(self, **more: str) -> dict[str, str]:
        """Environment of every process; nothing of it is in the home folder of who runs the tests."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return plain | {"HOME": str(self.folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | more

    def arguments(self, *assignments: str) -> list[str]:
        """Arguments of `gigamask serve`, after `QUIET` the given settings."""
        places = ["--dataset", self.dataset.uri, "--workspace", str(self.folder / "workspace.sqlite")]
        places += ["--work", str(self.folder / "work")]
        return ["serve", *places, *(part for each in (*QUIET, *assignments) for part in ("--set", each))]

    def serve(self, *assignments: str, **environment: str) -> tuple[subprocess.Popen[str], list[str]]:
        """Start a scheduler, wait until it is ready, and return it with the growing list of its lines."""
        command = [sys.executable, "-m", "flows.cli", *self.arguments(*assignments)]
        process = subprocess.Popen(
            command, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=self.environment(**environment)
        )
        self.running.append(process)
        lines = list[str]()

        threading.Thread(target=self._read, args=(process, lines), daemon=True).start()
        wait_until(lambda: any("ready after" in line for line in lines) or process.poll() is not None, READY_S)
        assert process.poll() is None, lines
        return process, lines

    def stop(self, process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> None:
        """Stop a scheduler, and wait for its end."""
        process.send_signal(how)
        process.wait(60)
        self.running.remove(process)

    def fired(self, job: str) -> list[Firing]:
        """Read what was fired."""
        return self.workspace.firings.read_all(job)

    def close(self) -> None:
        """Stop everything."""
        for process in list(self.running):
            self.stop(process)
        self.workspace.close()

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: list[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)


def wait_until(holds: Callable[[], object], within_s: float) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: It did not in time.
    """
    until = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"still not after {within_s:.0f} s")
        time.sleep(0.2)
