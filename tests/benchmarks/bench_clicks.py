"""Click to mask over HTTP with the seed model: one annotator and twenty, images of 1024 px whose embeddings are ready.

Each annotator places a first click, then two that continue it, and thinks between clicks (an exponential pause with a
mean of 2.5 s among twenty, a short one alone). A line gives the p50 or p95 of wall time at the client. The load of the
machine stands beside it, and the server's CPU milliseconds per click, which other programs on the machine change less.
"""

import argparse
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from json_lines import print_line

from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.workspace.workspace import Workspace
from tests.annotators.clients import PASSWORD
from tests.annotators.harness import free_port, start_server
from tests.annotators.photos import make_photos

IMAGES = 6
THINK_S = {1: 0.2, 20: 2.5}
"""Mean pause between clicks, in seconds, by the number of annotators."""
GOAL_P95_MS = {1: 100, 20: 250}


def main() -> None:
    """Start a server, click, and print the quantiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clicks-") as name:
        folder = Path(name)
        make_photos(folder / "photos", IMAGES)
        dataset = Dataset.create(folder / "data")
        ingest_photos([folder / "photos"], dataset)
        dataset.fold()
        place = str(folder / "workspace.sqlite")
        with Workspace.open(place) as workspace:
            for number in range(max(THINK_S)):
                workspace.users.add(f"a{number:03d}", "annotator", password=PASSWORD)
        images = dataset.query("SELECT image_id, height, width FROM images").to_pylist()
        port = free_port()
        server = start_server(folder, place, port, "seed")
        try:
            url = f"http://127.0.0.1:{port}"
            prepare(url, images)
            click_for(url, images, 1, seconds=3)  # compiles and warms up
            for annotators in THINK_S:
                measure(url, images, annotators, arguments.seconds, server.pid)
        finally:
            server.kill()
            server.wait()


def measure(url: str, images: list[dict[str, Any]], annotators: int, seconds: float, pid: int) -> None:
    """Click for a while, and print what it took."""
    before_s = cpu_seconds(pid)
    taken_ms = sorted(click_for(url, images, annotators, seconds=seconds))
    facts = {
        "annotators": annotators,
        "clicks": len(taken_ms),
        "clicks_per_s": round(len(taken_ms) / seconds, 1),
        "server_cpu_ms_per_click": round(1000 * (cpu_seconds(pid) - before_s) / len(taken_ms), 1),
        "load": round(os.getloadavg()[0], 1),
        "goal_p95_ms": GOAL_P95_MS[annotators],
    }
    quantiles = statistics.quantiles(taken_ms, n=100, method="inclusive")
    for fraction in (50, 95):
        print_line("clicks", f"click to mask p{fraction}", quantiles[fraction - 1], "ms", **facts)


def click_for(url: str, images: list[dict[str, Any]], annotators: int, *, seconds: float) -> list[float]:
    """Have annotators click at the same time; return the milliseconds of each click."""
    taken_ms: list[float] = []
    until = time.monotonic() + seconds

    def work(number: int) -> None:
        rng = random.Random(number)
        with log_in(url, number) as client:
            time.sleep(rng.uniform(0, THINK_S[annotators]))
            while time.monotonic() < until:
                taken_ms.extend(click_object(client, rng.choice(images), rng, THINK_S[annotators]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(annotators)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken_ms


def click_object(client: httpx.Client, image: dict[str, Any], rng: random.Random, think_s: float) -> list[float]:
    """Place three clicks on one object; return the milliseconds of each."""
    taken_ms, clicks, continued = [], list[dict[str, Any]](), None
    for _ in range(3):
        place = {"x": rng.uniform(0, image["width"]), "y": rng.uniform(0, image["height"])}
        clicks.append({**place, "positive": rng.random() < 0.7 or not clicks})
        body = {"clicks": clicks, "continued": continued}
        began = time.perf_counter()
        answer = client.post(f"/api/images/{image['image_id']}/predict", json=body)
        found = answer.raise_for_status().json()
        taken_ms.append(1000 * (time.perf_counter() - began))
        continued = {"prediction_id": found["prediction_id"], "candidate": 0}
        time.sleep(rng.expovariate(1 / think_s))
    return taken_ms


def prepare(url: str, images: list[dict[str, Any]]) -> None:
    """Have every window of every image encoded."""
    with log_in(url, 0) as client:
        for image in images:
            windows = client.get(f"/api/images/{image['image_id']}/facts").json()["windows"]
            for window in range(len(windows)):
                client.get(f"/api/images/{image['image_id']}/embedding", params={"window": window}).raise_for_status()


@contextmanager
def log_in(url: str, number: int) -> Iterator[httpx.Client]:
    """A client of one annotator."""
    with httpx.Client(base_url=url, timeout=120) as client:
        answer = client.post("/api/login", json={"name": f"a{number:03d}", "password": PASSWORD})
        client.headers["X-CSRF-Token"] = answer.raise_for_status().json()["csrf_token"]
        yield client


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
