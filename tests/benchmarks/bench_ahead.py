"""Embeddings ahead of the queue: images per second of the server's own thread, and of a Ray pool.

    python -m tests.benchmarks.bench_ahead --images 16 --side 1024 --workers 1 2

Each line tells images per second from the first result on (the start of Ray and of its workers apart), and the seconds
to the first result. The load of the machine stands beside them.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from engine.model.weights import load_model
from stages.annotator.ahead import PictureEncoder, ToEncode
from stages.cluster.calls import call_on_pool
from stages.cluster.pool import PoolConfig
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from tests.annotators.photos import make_photos


def main() -> None:
    """Measure each way once, on the same images."""
    arguments = parse()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="ahead-"))
    try:
        make_photos(folder / "photos", arguments.images, side=arguments.side)
        dataset = Dataset.create(folder / "data")
        ingest_photos([folder / "photos"], dataset)
        dataset.fold()
        encoder = PictureEncoder(dataset.uri, [arguments.model])
        model_id = load_model(arguments.model).model_id
        ids = dataset.query("SELECT image_id FROM images ORDER BY image_id")["image_id"].to_pylist()
        wanted = [ToEncode(image_id=each, model_id=model_id) for each in ids]

        def in_process() -> Iterator[object]:
            return map(encoder, wanted)

        measure("in the server's process", in_process, len(ids))
        for workers in arguments.workers:
            pool = PoolConfig(workers=workers, threads=1)
            make_worker = partial(PictureEncoder, dataset.uri, [arguments.model])
            measure(f"Ray, {workers} workers", partial(call_on_pool, make_worker, wanted, pool), len(ids))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--side", type=int, default=1024, help="longer side of the images, in pixels")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--model", default="seed")
    return parser.parse_args()


def measure(way: str, encode: Callable[[], Iterator[object]], images: int) -> None:
    """Encode all images, and print what it took as a JSON line."""
    began = time.perf_counter()
    results = encode()
    next(results)
    first_s = time.perf_counter() - began
    rest = sum(1 for _ in results)
    rest_s = time.perf_counter() - began - first_s
    line = {
        "way": way,
        "images": images,
        "images_per_s": round(rest / rest_s, 2),
        "first_result_s": round(first_s, 2),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
