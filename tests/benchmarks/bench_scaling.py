"""Scaling on Ray: images per second of two one-thread workers beside one, while all of them are busy.

    python tests/benchmarks/bench_scaling.py [--model seed] [--images 24] [--rounds 3] [--points-per-side 16]

The target is 1.7 on two cores. Start-up is not measured: timing starts when every worker has finished its first image
and ends with the last report before one of them runs out of work. On a busy machine two workers get fewer than two
cores: `cpu_share` is the fraction of a core that each worker got, and `images per CPU second` compares the work alone.
Rounds alternate; figures are medians. Prints one JSON line per metric.
"""

import argparse
import io
import os
import statistics
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from json_lines import print_line
from PIL import Image

from engine.automatic.config import GenerateConfig
from engine.model.weights import load_model
from stages.cluster.pool import PoolConfig
from stages.cluster.progress import PlanProgress
from stages.cluster.run import run_plan
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset

BAR = 1.7


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Progress of a run: images done and CPU seconds of the workers so far."""

    seconds: float
    images: int
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measurement of a run, while all of its workers were busy."""

    images_per_s: float
    images_per_cpu_s: float
    cpu_share: float
    """CPU seconds of a worker per second, at most 1."""


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="gigamask-scaling-") as folder:
        photos = make_photos(Path(folder), arguments.images)
        rounds = [(measure(arguments, photos, 1), measure(arguments, photos, 2)) for _ in range(arguments.rounds)]
    one, two = ([pair[side] for pair in rounds] for side in (0, 1))
    facts = {
        "model": arguments.model,
        "bar": BAR,
        "rounds": arguments.rounds,
        "cpu_share": round(median(two, "cpu_share"), 3),
        "cpu_share_of_one": round(median(one, "cpu_share"), 3),
    }
    for metric, name in (("two workers", "images_per_s"), ("two workers, per CPU second", "images_per_cpu_s")):
        unit = "images/s" if name == "images_per_s" else "images/CPU s"
        ratio = round(median(two, name) / median(one, name), 3)
        value, peer = median(two, name), median(one, name)
        print_line("scaling", metric, value, unit, peer="one worker", peer_value=peer, **{**facts, "ratio": ratio})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="seed", help="a model's name or the path of its weights")
    parser.add_argument("--images", type=int, default=24, help="images per run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points-per-side", type=int, default=16)
    return parser.parse_args()


def make_photos(folder: Path, count: int) -> Path:
    """Cut so many different photos of 512 x 342 px from a sample photo."""
    from skimage import data

    photos = folder / "photos"
    photos.mkdir()
    astronaut = data.astronaut()
    for number in range(count):
        cut_HW3 = np.roll(astronaut[number : number + 342], 7 * number, axis=1)
        buffer = io.BytesIO()
        Image.fromarray(cut_HW3).save(buffer, "JPEG", quality=95)
        (photos / f"{number}.jpg").write_bytes(buffer.getvalue())
    return photos


def measure(arguments: argparse.Namespace, photos: Path, workers: int) -> Measured:
    """Run the stage over a new dataset of these images."""
    config = GenerateConfig(points_per_side=arguments.points_per_side)
    with tempfile.TemporaryDirectory(prefix="gigamask-scaling-") as folder:
        dataset = Dataset.create(Path(folder) / "dataset")
        ingest_photos([photos], dataset)
        (plan,) = plan_masks(dataset, load_model(arguments.model).identity, config, images_per_shard=2)
        moments: list[Moment] = []

        def watch(now: PlanProgress) -> None:
            started = len(now.by_worker) == workers and all(worker.images for worker in now.by_worker)
            if started and now.images_total - now.images >= 2 * workers:  # nobody lacks work yet
                pids = [int(worker.place.rpartition(":")[2]) for worker in now.by_worker]
                moments.append(Moment(seconds=now.seconds, images=now.images, cpu_s=sum(map(cpu_seconds, pids))))

        make_worker = partial(ShardWorker, arguments.model, config, dataset.uri)
        run_plan(dataset, plan, make_worker, PoolConfig(workers=workers, threads=1), watch)
    return between(moments, workers)


def between(moments: list[Moment], workers: int) -> Measured:
    """Select from the first image finished after the first report to the last: whole images only."""
    counted = [moment for moment, before in zip(moments[1:], moments, strict=False) if moment.images > before.images]
    assert len(counted) > 1, "too few images: give more with --images"
    first, last = counted[0], counted[-1]
    seconds, images, cpu_s = last.seconds - first.seconds, last.images - first.images, last.cpu_s - first.cpu_s
    return Measured(images_per_s=images / seconds, images_per_cpu_s=images / cpu_s, cpu_share=cpu_s / seconds / workers)


def cpu_seconds(pid: int) -> float:
    """Read the user and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def median(runs: list[Measured], name: str) -> float:
    return statistics.median(getattr(run, name) for run in runs)


if __name__ == "__main__":
    main()
