"""One process of simulated annotators, each a thread with a log of its own."""

import argparse
import sys
import threading
import traceback
from pathlib import Path

import numpy as np
import torch

from stages.simulated.annotator import SimulatedAnnotator
from stages.simulated.behaviour import Behaviour
from stages.simulated.client import Client, Log, Stopped
from tests.annotators.photos import read_truth

PASSWORD = "a password of simulated annotators"


def main() -> None:
    """Run the annotators whose names are given, for some seconds; exit 1 if one of them failed."""
    arguments = parse()
    torch.set_num_threads(1)
    truth, stop = read_truth(arguments.folder / "truth.json"), threading.Event()
    behaviour = Behaviour(pace=arguments.pace, policy=arguments.policy)
    failed: list[str] = []

    def work(name: str) -> None:
        log = Log(arguments.folder / "logs" / f"{name}.jsonl")
        client = Client(arguments.url, name, PASSWORD, log, stop=stop)
        rng = np.random.default_rng(int(name[1:]))
        stop.wait(float(rng.uniform(0, 3)))  # people do not all arrive at once
        try:
            SimulatedAnnotator(client, truth.__getitem__, behaviour, rng=rng, stop=stop).work()
        except Stopped as error:
            log.write("stopped", why=str(error))
        except Exception as error:
            log.write("failed", why=repr(error))
            failed.append(f"{name}: {traceback.format_exc()}")
        finally:
            client.close()
            log.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in arguments.names]
    for thread in threads:
        thread.start()
    stop.wait(arguments.seconds)
    stop.set()
    for thread in threads:
        thread.join()
    if failed:
        sys.exit("\n".join(failed[:3]))


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
