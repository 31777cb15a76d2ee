"""A crew of simulated annotators at a real annotation server, which is started for them and stopped after."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.local_server import end_with_parent, find_free_port, stop_server, wait_for_server
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
LOOK_EVERY_S = 0.2
"""Interval at which the loop looks whether the server still runs, in seconds."""
PATIENCE_S = 2.0
"""Longest time for which an annotator goes on asking a server that has ended, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """An annotation server that runs."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path


def enrol_crew(workspace: Workspace, count: int) -> list[str]:
    """Give each annotator an account, and return their names."""
    names = [f"simulated-{number}" for number in range(count)]
    known = {user.name for user in workspace.users.read_all()}
    for name in names:
        if name not in known:
            workspace.users.add(name, "annotator", password=PASSWORD)
    return names


@contextmanager
def serving(photos: PhotoSet, workspace: str, models: Sequence[str], folder: Path) -> Iterator[Served]:
    """Run `gigamask annotate` during the block; it ends with this process, however that ends.

    Raises:
        ChildProcessError: The server ends at its start; the message names its log.
        TimeoutError: The server does not answer after its start.
    """
    port = find_free_port()
    command = [sys.executable, "-m", "gigamask", "annotate", "--dataset", photos.dataset.uri, "--team"]
    command += ["--workspace", workspace, "--port", str(port), "--cache", str(folder / "embeddings")]
    command += [part for model in models for part in ("--model", model)]
    log = folder / "server.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("ab") as errors:
        server = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=dict(os.environ),
            preexec_fn=end_with_parent,
        )
        try:
            wait_for_server("the annotation server", f"{url}/api/health", server, log)
            yield Served(url=url, process=server, log=log)
        finally:
            stop_server(server, STOP_S)


def let_work(
    served: Served,
    names: Sequence[str],
    photos: PhotoSet,
    settings: LoopSettings,
    seed: Sequence[int],
    folder: Path,
) -> None:
    """Let annotators work until no task is left; what they do depends on the seed and on each image alone.

    Raises:
        ChildProcessError: The server ended meanwhile; the message says what to do.
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

    def work(name: str) -> None:
        log = Log(folder / f"{name}.jsonl")
        client = Client(served.url, name, PASSWORD, log, stop=stop, patience_s=PATIENCE_S)
        annotator = SimulatedAnnotator(
            client,
            photos.truth.__getitem__,
            behaviour,
            rng=np.random.default_rng(seed),
            stop=stop,
            task_seed=seed,
        )
        try:
            annotator.work(max_tasks=len(photos.truth))
        except Exception as error:  # reported by the caller's thread
            failed.append(f"{name}: {error!r}")
            stop.set()
        finally:
            client.close()
            log.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    _join(threads, served, stop)
    if failed:
        raise RuntimeError("; ".join(failed))


def _join(threads: Sequence[threading.Thread], served: Served, stop: threading.Event) -> None:
    """Wait for the annotators, who would ask a server that has ended for ever.

    Raises:
        ChildProcessError: The server ended.
    """
    code = None
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(LOOK_EVERY_S)
        code = served.process.poll() if code is None else code
        if code is not None:
            stop.set()
    if code is not None:
        raise ChildProcessError(
            f"the annotation server ended with {code} while annotators worked; {served.log} may say why, and the same "
            "command continues"
        )
