"""A crew of simulated annotators that does the tasks of one round over HTTP, and then is done.

accounts -> threads -> claim, click, submit -> accounts closed
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import numpy as np

from stages.simulated.accounts import PREFIX, open_accounts
from stages.simulated.annotator import SimulatedAnnotator
from stages.simulated.behaviour import Behaviour
from stages.simulated.client import Client, Log, Refused
from stages.simulated.truth import Views, as_seen_by
from storage.workspace.records import RoundState
from storage.workspace.workspace import Workspace

_HEALTH_S = 10.0


@dataclass(frozen=True, kw_only=True)
class CrewConfig:
    """Settings of a crew."""

    annotators: int = 2
    """Number of simulated annotators."""
    seed: int = 0
    """Seed of all that is random about them."""
    behaviour: Behaviour = field(default_factory=lambda: Behaviour(pace=1000))
    """How each of them works."""

    def __post_init__(self) -> None:
        if self.annotators < 1:
            raise ValueError(f"annotators {self.annotators}: expected at least 1")


@dataclass(frozen=True, kw_only=True)
class SimulatedWork:
    """What a crew did in a round."""

    round_id: str
    simulated_annotators: int
    """Number of simulated annotators."""
    simulated_answers: int
    """Number of answers in the round that simulated annotators submitted, now or earlier."""
    skips: int
    """Number of times that a task of the round was skipped, by whomever."""
    free: int
    """Number of answers that the round still wants and that nobody works on."""
    without_truth: int
    """Number of the round's images that have no ground truth; simulated annotators skip them."""


def simulate_round(
    workspace: Workspace, round_id: str, truth: Mapping[int, Views], url: str, config: CrewConfig | None = None
) -> SimulatedWork:
    """Let simulated annotators do the tasks of a round until none is left for them.

    Args:
        workspace: The workspace of the round, in which the crew's accounts are opened and closed.
        round_id: The round.
        truth: Ground truth by image id.
        url: Address of the annotation server, which has accounts and serves the same workspace.
        config: Settings of the crew; None for the usual ones.

    Raises:
        NotFound: There is no such round.
        ValueError: The round is not open, none of its images has ground truth, or the server does not answer, has no
            accounts or refuses what an annotator does.
    """
    config = config or CrewConfig()
    without_truth = _check_round(workspace, round_id, truth)
    _check_server(url)
    with open_accounts(workspace, config.annotators) as passwords:
        _work(url, round_id, passwords, truth, config)
    progress = workspace.rounds.progress(round_id)
    answers = workspace.submissions.read(round_id=round_id)
    return SimulatedWork(
        round_id=round_id,
        simulated_annotators=config.annotators,
        simulated_answers=sum(each.annotator.startswith(PREFIX) for each in answers),
        skips=progress.skips,
        free=progress.free,
        without_truth=without_truth,
    )


def _check_round(workspace: Workspace, round_id: str, truth: Mapping[int, Views]) -> int:
    found = workspace.rounds.get(round_id)
    if found.state is not RoundState.OPEN:
        raise ValueError(f"round {round_id} is {found.state}; expected an open round")
    images = {task.image_id for task in workspace.rounds.tasks(round_id)}
    if images.isdisjoint(truth):
        raise ValueError(
            f"round {round_id}: none of its {len(images)} images has ground truth; give its photos' folder"
        )
    return len(images - truth.keys())


def _check_server(url: str) -> None:
    start = "start it with `gigamask annotate --team`, or give the address that it printed as --url"
    try:
        answer = httpx.get(f"{url}/api/health", timeout=_HEALTH_S)
        answer.raise_for_status()
        answer.json()["models"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{url}: no annotation server answers there ({error or type(error).__name__}); {start}"
        ) from error


def _work(
    url: str, round_id: str, passwords: Mapping[str, str], truth: Mapping[int, Views], config: CrewConfig
) -> None:
    """Let each annotator work in a thread of its own; one that fails stops the others.

    Raises:
        ValueError: The server refuses what an annotator does.
    """
    stop = threading.Event()

    def work(number: int, name: str) -> int:
        log = Log(Path(os.devnull))
        client = Client(url, name, passwords[name], log, stop=stop)
        try:
            return SimulatedAnnotator(
                client,
                partial(as_seen_by, number, truth),
                config.behaviour,
                rng=np.random.default_rng([config.seed, number]),
                stop=stop,
                round_id=round_id,
            ).work(waits=False)
        finally:
            client.close()
            log.close()

    with ThreadPoolExecutor(max_workers=len(passwords)) as pool:
        try:
            for done in as_completed([pool.submit(work, *each) for each in enumerate(passwords)]):
                done.result()
        except Refused as refused:
            raise ValueError(
                f"{url} refused a simulated annotator: {refused}; expected a server with accounts (`gigamask annotate "
                "--team`) on the workspace of this round"
            ) from refused
        finally:
            stop.set()
