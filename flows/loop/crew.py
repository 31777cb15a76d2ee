"""A crew of simulated annotators at a real annotation server, which is started for them and stopped after."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from flows.local_server import find_free_port, stop_server, wait_for_server
from flows.loop.config import LoopSettings
from flows.loop.split import PhotoSet
from stages.simulated.annotator import SimulatedAnnotator
from stages.simulated.behaviour import Behaviour
from stages.simulated.client import Client, Log
from storage.workspace.workspace import Workspace

PASSWORD = "simulated annotators have no secrets"
STOP_S = 60.0
"""Longest time that a server has to end, in seconds."""
PACE = 1e6
"""Simulated seconds in a real second: nobody waits for them."""


def enrol_crew(workspace: Workspace, count: int) -> list[str]:
    """Give each annotator an account, and return their names."""
    names = [f"simulated-{number}" for number in range(count)]
    known = {user.name for user in workspace.users.read_all()}
    for name in names:
        if name not in known:
            workspace.users.add(name, "annotator", password=PASSWORD)
    return names


@contextmanager
def serving(photos: PhotoSet, workspace: str, models: Sequence[str], folder: Path) -> Iterator[str]:
    """Run `gigamask annotate` during the block, and give its address.

    Raises:
        RuntimeError: The server does not start; the message names its log.
    """
    port = find_free_port()
    command = [sys.executable, "-m", "flows.cli", "annotate", "--dataset", photos.dataset.uri, "--team"]
    command += ["--workspace", workspace, "--port", str(port), "--cache", str(folder / "embeddings")]
    command += [part for model in models for part in ("--model", model)]
    log = folder / "server.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("ab") as errors:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=dict(os.environ))
        try:
            wait_for_server("the annotation server", f"{url}/api/health", server, log)
            yield url
        finally:
            stop_server(server, STOP_S)


def let_work(url: str, names: Sequence[str], photos: PhotoSet, settings: LoopSettings, seed: int, folder: Path) -> None:
    """Let annotators work until no task is left.

    Raises:
        RuntimeError: An annotator failed; the message says how.
    """
    behaviour = Behaviour(
        pace=PACE,
        max_masks=settings.max_masks_per_image,
        skip_fraction=0.0,
        hand_back_fraction=0.0,
        lost_reply_fraction=0.0,
    )
    stop, failed = threading.Event(), list[str]()

    def work(number: int, name: str) -> None:
        log = Log(folder / f"{name}.jsonl")
        client = Client(url, name, PASSWORD, log, stop=stop)
        rng = np.random.default_rng([seed, 2, number])
        try:
            SimulatedAnnotator(client, photos.truth.__getitem__, behaviour, rng=rng, stop=stop).work(
                max_tasks=len(photos.truth)
            )
        except Exception as error:  # reported by the caller's thread
            failed.append(f"{name}: {error!r}")
            stop.set()
        finally:
            client.close()
            log.close()

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError("; ".join(failed))
