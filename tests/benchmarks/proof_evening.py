"""Proof of one evening: `gigamask engine` on photographs of one domain, with one simulated annotator at its page.

python tests/benchmarks/proof_evening.py DATA/bsds --photos 60 --pace 4 --work FOLDER

DATA/bsds holds photographs beside SA-1B-style JSON. The annotator masks photographs that are drawn at random, with
`--pace` simulated seconds in a real one. Meanwhile the engine retrains and opens further rounds; in the end it masks
all of them by itself. The model that began and the one that was promoted in the end are measured on the others, which
no training saw. Prints JSON lines. The seconds of the annotator come from a model of time.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.evaluation.clicked import evaluate
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.scores import paired_difference
from engine.interactive.zoom import make_segmenter
from engine.labelled import LabelledImage, load_folder
from engine.model.weights import load_model
from flows.local_server import find_free_port, stop_server
from flows.loop.split import PhotoSet, make_photo_set
from stages.simulated.annotator import SimulatedAnnotator
from stages.simulated.behaviour import Behaviour
from stages.simulated.client import Client, Log
from storage.protocol.promotions import Decision
from tests.benchmarks.json_lines import print_line
from tests.paths import ROOT

BENCH = "evening"
STOP_S = 30.0
LINK_WAIT_S = 300.0
FIGURES = ("miou_1_chosen", "miou_1_best3", "miou_3")


def main() -> None:
    """Let the evening pass, and measure both models."""
    parser = argparse.ArgumentParser(description="One evening of the engine with a simulated annotator.")
    parser.add_argument("domain", type=Path, help="folder of one domain")
    parser.add_argument("--photos", type=int, default=60, help="photographs of the evening; the others are measured")
    parser.add_argument("--hours", type=float, default=0.0, help="simulated hours of work; 0 for all photographs")
    parser.add_argument("--pace", type=float, default=4.0, help="simulated seconds in a real second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-measured", type=int, help="most photographs to measure the models on")
    parser.add_argument("--work", type=Path, required=True, help="folder of the dataset, the logs and the checkpoints")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of `gigamask engine`")
    arguments = parser.parse_args()

    # The photographs of the evening, and the others
    drawn = np.random.default_rng(arguments.seed).permutation(len(images := usable(arguments.domain)))
    evening = [images[number] for number in drawn[: arguments.photos]]
    others = [images[number] for number in drawn[arguments.photos :]][: arguments.max_measured]
    photos = make_photo_set(evening, arguments.work)

    began = time.monotonic()
    spend_evening(photos, arguments)
    report(photos, others, arguments, time.monotonic() - began)


def usable(domain: Path) -> list[LabelledImage]:
    """List the photographs that have masks."""
    return [image for image in load_folder(domain) if image.num_masks]


def spend_evening(photos: PhotoSet, arguments: argparse.Namespace) -> None:
    """Run the command until it ends, with an annotator at its page."""
    stop, failed = threading.Event(), list[str]()
    with running_engine(arguments) as (engine, link):
        address = urlsplit(link)
        log = Log(arguments.work / "annotator.jsonl")
        client = Client(
            f"{address.scheme}://{address.netloc}",
            "annotator",
            parse_qs(address.query)["token"][0],
            log,
            stop=stop,
            by_link=True,
        )
        behaviour = Behaviour(pace=arguments.pace, skip_fraction=0.0, hand_back_fraction=0.0, lost_reply_fraction=0.0)
        rng = np.random.default_rng([arguments.seed, 2])
        annotator = SimulatedAnnotator(client, photos.truth.__getitem__, behaviour, rng=rng, stop=stop)

        def work() -> None:
            try:
                annotator.work()
            except Exception as error:  # told by the main thread; an engine that ended has taken its server with it
                failed.append(repr(error))

        person = threading.Thread(target=work, daemon=True)
        person.start()
        while engine.poll() is None and person.is_alive():
            time.sleep(1)
        stop.set()
    if engine.returncode != 0:
        raise SystemExit(f"the engine ended with {engine.returncode}; {failed or 'see engine.log'}")


@contextmanager
def running_engine(arguments: argparse.Namespace) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Run `gigamask engine` during the block; give its process and the link of its page."""
    log = arguments.work / "engine.log"
    starts_at = log.stat().st_size if log.exists() else 0
    command = [sys.executable, "-m", "flows.cli", "engine", str(arguments.work / "photos")]
    command += ["--dataset", str(arguments.work / "dataset"), "--work", str(arguments.work / "work")]
    command += [
        f"--hours={arguments.hours:g}",
        f"--port={find_free_port()}",
        *(f"--set={each}" for each in arguments.set),
    ]
    with log.open("ab") as lines:
        engine = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=lines, stderr=lines)
    try:
        give_up_at = time.monotonic() + LINK_WAIT_S
        while time.monotonic() < give_up_at and engine.poll() is None:
            links = [each for each in log.read_text()[starts_at:].splitlines() if "/link?token=" in each]
            if links:
                yield engine, links[0].strip()
                return
            time.sleep(0.5)
        raise SystemExit(f"the engine gave no link; see {log}")
    finally:
        stop_server(engine, STOP_S)


def report(photos: PhotoSet, others: list[LabelledImage], arguments: argparse.Namespace, wall_s: float) -> None:
    """Print what the evening made, what the gate decided, and what both models do on the other photographs."""
    dataset = photos.dataset
    dataset.fold()
    print_line(BENCH, "wall", wall_s, "s", photos=arguments.photos, pace=arguments.pace)
    sql = "SELECT sum(active_s + search_s) / 3600 AS hours FROM annotations WHERE in_masks"
    print_line(BENCH, "simulated work", dataset.query(sql)["hours"][0].as_py(), "h")
    for row in dataset.query("SELECT stage, count(*) AS masks FROM masks GROUP BY stage ORDER BY stage").to_pylist():
        print_line(BENCH, f"masks, {row['stage']}", row["masks"], "masks")
    sql = (
        "SELECT round_id, stage, min(submitted_at) AS began, count(*) AS masks, avg(active_s) AS seconds, "
        "avg(clicks) AS clicks FROM annotations WHERE in_masks GROUP BY round_id, stage ORDER BY began"
    )
    for row in dataset.query(sql).to_pylist():
        facts = {name: row[name] for name in ("stage", "masks", "clicks")}
        print_line(BENCH, "simulated seconds a mask", row["seconds"], "s", round=row["round_id"], **facts)
    chain = dataset.promotions.history()
    for generation in chain:
        print_line(BENCH, generation.decision, generation.number, "generation", reason=generation.reason)

    # Both models on what no training saw
    config = EvaluationConfig(clicks=(1, 3), max_masks_per_image=16, seed=arguments.seed)
    begun_with = next(each.model_id for each in chain if each.decision is Decision.START)
    before, after = (
        evaluate(make_segmenter(load_model(dataset.models.fetch(each, arguments.work / "models"))), others, config)
        for each in (begun_with, chain[-1].promoted)
    )
    for name in FIGURES:
        gain = paired_difference(before.scores, after.scores, name, arguments.seed)
        was, now = before.overall.figures[name], after.overall.figures[name]
        print_line(BENCH, name, now.value, "IoU", before=was.value, gain=gain.value, interval=gain.interval)
    print_line(BENCH, "photographs measured", after.overall.images, "images", masks=after.overall.masks)


if __name__ == "__main__":
    main()
