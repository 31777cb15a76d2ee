"""One process of simulated annotators and reviewers, each a thread with a log of its own."""

import argparse
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stages.simulated.annotator import SimulatedAnnotator, Truth
from stages.simulated.behaviour import Behaviour
from stages.simulated.client import Client, Log, Stopped
from stages.simulated.reviewer import ReviewPolicy, SimulatedReviewer
from tests.annotators.photos import read_truth

PASSWORD = "a password of simulated annotators"
REVIEWER = "r"
"""First letter of the names of reviewers."""
LOOK_AGAIN_S = 2.0
"""Pause of a reviewer for whom nothing waits, in seconds."""


def main() -> None:
    """Run the annotators and reviewers whose names are given, for some seconds; exit 1 if one of them failed."""
    arguments = parse()
    torch.set_num_threads(1)
    truth = read_truth(arguments.folder / "truth.json")
    stop, over = threading.Event(), threading.Event()  # end of the annotators' work, and of what is to be reviewed
    behaviour = Behaviour(pace=arguments.pace, policy=arguments.policy)
    failed: list[str] = []

    def work(name: str, stop: threading.Event) -> None:
        log = Log(arguments.folder / "logs" / f"{name}.jsonl")
        client = Client(arguments.url, name, PASSWORD, log, stop=stop)
        rng = np.random.default_rng(list(name.encode()))
        stop.wait(float(rng.uniform(0, 3)))  # people do not all arrive at once
        try:
            do_work(name, client, truth.__getitem__, behaviour, rng, stop)
        except Stopped as error:
            log.write("stopped", why=str(error))
        except Exception as error:
            log.write("failed", why=repr(error))
            failed.append(f"{name}: {traceback.format_exc()}")
        finally:
            client.close()
            log.close()

    reviewers = [name for name in arguments.names if name.startswith(REVIEWER)]
    annotating = [threading.Thread(target=work, args=(name, stop)) for name in {*arguments.names} - {*reviewers}]
    reviewing = [threading.Thread(target=work, args=(name, over)) for name in reviewers]
    for thread in (*annotating, *reviewing):
        thread.start()
    stop.wait(arguments.seconds)
    for end, threads in ((stop, annotating), (over, reviewing)):
        end.set()
        for thread in threads:
            thread.join()
    if failed:
        sys.exit("\n".join(failed[:3]))


def do_work(
    name: str, client: Client, truth: Truth, behaviour: Behaviour, rng: np.random.Generator, stop: threading.Event
) -> None:
    """Annotate until the end of the run; or review, at the end all that the annotators submitted last."""
    if not name.startswith(REVIEWER):
        SimulatedAnnotator(client, truth, behaviour, rng=rng, stop=stop).work()
        return
    reviewer = SimulatedReviewer(client, truth, ReviewPolicy(), behaviour, rng=rng, stop=stop)
    while not stop.is_set():
        reviewer.work()
        stop.wait(LOOK_AGAIN_S)
    in_no_time = replace(behaviour, pace=1e9)
    SimulatedReviewer(client, truth, ReviewPolicy(), in_no_time, rng=rng, stop=threading.Event()).work()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--pace", type=float, required=True)
    parser.add_argument("--policy", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
