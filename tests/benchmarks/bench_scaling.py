"""Two workers of one thread each next to one, on Ray: photographs per second while all of them are at work.

    python tests/benchmarks/bench_scaling.py [--model seed] [--images 24] [--rounds 3] [--points-per-side 16]

Bar: 1.7 on two cores. Start-up is not measured: a run is timed from the moment when every worker has finished its first
photograph until the last report before one of them lacks work. On a machine with other work two workers get fewer than
two cores: `cpu_share` says how much of its core each worker got, and `photographs per CPU second` compares the work
alone. Rounds alternate; medians. One JSON line a metric.
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
    """A report of a run: photographs done and CPU seconds of the workers so far."""

    seconds: float
    images: int
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A run while all of its workers were at work."""

    images_per_s: float
    images_per_cpu_s: float
    cpu_share: float
    """CPU seconds of a worker per second, of 1 core."""


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="seed", help="a model's name or the path of its weights")
    parser.add_argument("--images", type=int, default=24, help="photographs a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points-per-side", type=int, default=16)
    return parser.parse_args()


def make_photos(folder: Path, count: int) -> Path:
    """So many different cuts of a sample photograph, 512 x 342 px."""
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
    """One run over a new dataset of these photographs."""
    config = GenerateConfig(points_per_side=arguments.points_per_side)
    with tempfile.TemporaryDirectory(prefix="gigamask-scaling-") as folder:
        dataset = Dataset.create(Path(folder) / "dataset")
        ingest_photos([photos], dataset)
        (plan,) = plan_masks(dataset, load_model(arguments.model), config, images_per_shard=2)
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
    """From the first photograph that was finished after the first report to the last: whole photographs alone."""
    counted = [moment for moment, before in zip(moments[1:], moments, strict=False) if moment.images > before.images]
    assert len(counted) > 1, "too few photographs: give more with --images"
    first, last = counted[0], counted[-1]
    seconds, images, cpu_s = last.seconds - first.seconds, last.images - first.images, last.cpu_s - first.cpu_s
    return Measured(images_per_s=images / seconds, images_per_cpu_s=images / cpu_s, cpu_share=cpu_s / seconds / workers)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def median(runs: list[Measured], name: str) -> float:
    return statistics.median(getattr(run, name) for run in runs)


if __name__ == "__main__":
    main()
