"""Many simulated annotators and reviewers against one server, which is killed meanwhile; an outside checker compares.

    python -m tests.annotators.harness --annotators 50 --reviewers 5 --minutes 10 --database sqlite --kills 2

The last line on stdout is a JSON object. Exit status 1 if anything was lost, doubled or given twice.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.workspace.records import RoundSpec, TaskSpec
from storage.workspace.workspace import Workspace
from tests import postgresql_server
from tests.annotators.clients import PASSWORD, REVIEWER
from tests.annotators.photos import make_photos, write_truth
from tests.paths import ROOT

MUST_BE_ZERO = (
    *("lost", "doubled", "foreign", "changed", "unconfirmed", "gaps"),
    *("tasks_given_twice", "claims_not_stored", "submissions_lost"),
    *("verdicts_lost", "verdicts_doubled", "reviews_lost", "reviews_doubled"),
)
START_S = 120
REVIEW_WAIT_S = 3600
"""Longest time after the end of the work in which reviewers look at what was submitted last, in seconds."""


def main() -> None:
    """Run once, and print what came of it."""
    arguments = parse()
    folder = Path(tempfile.mkdtemp(prefix="annotators-"))
    try:
        with database(arguments.database, folder) as place:
            result = run(arguments, folder, place)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result), flush=True)
    sys.exit(1 if result["failed"] or any(result[name] for name in MUST_BE_ZERO) else 0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--reviewers", type=int, default=5, help="people who review what the annotators submit")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--images", type=int, default=30, help="distinct images; each is in every round")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2, help="processes of annotators")
    parser.add_argument("--pace", type=float, default=1.0, help="simulated seconds in a real second")
    parser.add_argument("--policy", default="human-like")
    parser.add_argument("--side", type=int, default=1024, help="longer side of the images, in pixels")
    parser.add_argument("--model", default="seed")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    return parser.parse_args()


def run(arguments: argparse.Namespace, folder: Path, place: str) -> dict[str, Any]:
    """Set up, let the annotators work, kill the server meanwhile, and check."""
    # Photos, dataset, accounts, rounds
    (folder / "logs").mkdir()
    write_truth(folder / "truth.json", make_photos(folder / "photos", arguments.images, side=arguments.side))
    dataset = Dataset.create(folder / "data")
    ingest_photos([folder / "photos"], dataset)
    dataset.fold()
    annotators = [f"a{number:03d}" for number in range(arguments.annotators)]
    reviewers = [f"{REVIEWER}{number:03d}" for number in range(arguments.reviewers)]
    names = [*annotators, *reviewers]
    with Workspace.open(place) as workspace:
        for name in names:
            workspace.users.add(name, "reviewer" if name in reviewers else "annotator", password=PASSWORD)
        open_rounds(dataset, workspace, arguments.rounds)

    # Annotators at work
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = start_server(folder, place, port, arguments.model)
    seconds = 60 * arguments.minutes
    clients = start_clients(arguments, names, url, folder, seconds)
    began = time.monotonic()
    for number in range(arguments.kills):
        time.sleep(max(0.0, began + seconds * (number + 1) / (arguments.kills + 1) - time.monotonic()))
        server.send_signal(signal.SIGKILL)
        server.wait()
        server = start_server(folder, place, port, arguments.model)
        print(f"server killed and started again after {time.monotonic() - began:.0f} s", file=sys.stderr)
    codes = [client.wait(timeout=seconds + REVIEW_WAIT_S) for client in clients]
    server.send_signal(signal.SIGTERM)
    server.wait(60)

    # What the database holds
    checker = [sys.executable, str(ROOT / "tests" / "annotators" / "checker.py"), str(folder / "logs"), place]
    found = json.loads(subprocess.run(checker, check=True, capture_output=True, text=True).stdout)
    found["failed"] += [
        f"process {number} of annotators ended with {code}" for number, code in enumerate(codes) if code
    ]
    facts = {
        name: getattr(arguments, name) for name in ("annotators", "reviewers", "minutes", "database", "kills", "pace")
    }
    return {**facts, **found, "masks_per_minute": round(found["masks"] / arguments.minutes, 1)}


def open_rounds(dataset: Dataset, workspace: Workspace, rounds: int) -> None:
    """Open rounds over all images; each image is one task of each round."""
    rows = dataset.query("SELECT image_id, height, width FROM images ORDER BY image_id").to_pylist()
    tasks = tuple(TaskSpec(**row) for row in rows)
    for number in range(rounds):
        workspace.rounds.open(RoundSpec(stage="assisted_manual", name=f"round {number}", tasks=tasks))


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """A place for a workspace: a file, or a database of a PostgreSQL server that is started for it."""
    if kind == "sqlite":
        yield str(folder / "workspace.sqlite")
        return
    if postgresql_server.programs() is None:
        sys.exit("--database postgresql: no PostgreSQL is installed (Debian: postgresql)")
    import psycopg

    with postgresql_server.serving() as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE workspace")
        yield server.url("workspace")


def start_server(folder: Path, place: str, port: int, model: str) -> "subprocess.Popen[bytes]":
    """Start `gigamask annotate`, and wait until it answers."""
    command = [sys.executable, "-m", "flows.cli", "annotate", "--dataset", str(folder / "data"), "--team"]
    command += ["--workspace", place, "--port", str(port), "--cache", str(folder / "cache"), "--model", model]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
                return server
        except OSError:
            if server.poll() is not None:
                sys.exit(f"the server ended with {server.returncode}")
            time.sleep(0.1)
    server.kill()
    sys.exit(f"the server did not answer within {START_S} s")


def start_clients(
    arguments: argparse.Namespace, names: list[str], url: str, folder: Path, seconds: float
) -> "list[subprocess.Popen[bytes]]":
    """Start the processes of annotators."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = ["--url", url, "--folder", str(folder), "--seconds", str(seconds)]
    options += ["--pace", str(arguments.pace), "--policy", arguments.policy]
    parts = [names[number :: arguments.processes] for number in range(arguments.processes)]
    command = [sys.executable, "-m", "tests.annotators.clients"]
    return [subprocess.Popen([*command, *part, *options], env=environment) for part in parts if part]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


if __name__ == "__main__":
    main()
