"""Writing and reading shards on this disk, beside plain writing and reading of the same bytes.

    python tests/benchmarks/bench_shards.py [--mib 256] [--folder FOLDER]

`write` commits image shards: tar, rows, SHA-256 read back, record, everything flushed to disk. Its peer writes the same
bytes to one file per shard and flushes each. `read` streams images and checks their SHA-256; its peer reads the files.
Sides alternate; figures are medians of wall seconds. The page cache is warm for both.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from json_lines import print_line

from storage.dataset import Dataset
from storage.protocol.plans import PlannedShard
from storage.records import ImageRecord, image_id_of, image_key
from tests.image_records import photo_key

IMAGE_BYTES = 512 * 1024
IMAGES_A_SHARD = 128
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256, help="MiB to write")
    parser.add_argument(
        "--folder", type=Path, help="folder on the disk to measure; default: the system's temporary folder"
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-shards-", dir=arguments.folder))
    try:
        measure(folder, max(1, arguments.mib * MIB // IMAGE_BYTES // IMAGES_A_SHARD))
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, shards: int) -> None:
    """Write and read `shards` shards on both sides, one after the other, and print the figures."""
    dataset = Dataset.create(folder / "dataset")
    planned = [PlannedShard(name=f"{number:06d}", inputs=(photo_key(f"photos-{number}"),)) for number in range(shards)]
    plan = dataset.new_plan("images", planned, {})
    seconds: dict[str, list[float]] = {"write": [], "plain write": [], "read": [], "plain read": []}
    for number, shard in enumerate(plan.shards):
        images = [make_image(number * IMAGES_A_SHARD + place) for place in range(IMAGES_A_SHARD)]
        file = folder / f"{number}.bin"
        seconds["plain write"].append(timed(write_plainly, file, [data for _, data in images]))
        seconds["write"].append(timed(dataset.write_images, plan, shard, images))
    for number, commit in enumerate(dataset.image_shards()):
        seconds["plain read"].append(timed((folder / f"{number}.bin").read_bytes))
        seconds["read"].append(timed(list, dataset.read_images(commit)))
    mib = IMAGES_A_SHARD * IMAGE_BYTES / MIB
    for metric, peer in (("write", "file and fsync"), ("read", "read_bytes")):
        ours, peers = (mib / statistics.median(seconds[side]) for side in (metric, f"plain {metric}"))
        print_line("shards", metric, ours, "MiB/s", peer=peer, peer_value=peers, shards=shards, mib_a_shard=mib)


def timed(work: Callable[..., object], *arguments: object) -> float:
    """Measure wall seconds of a call."""
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def write_plainly(file: Path, parts: list[bytes]) -> None:
    with file.open("wb") as stream:
        for data in parts:
            stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def make_image(number: int) -> tuple[ImageRecord, bytes]:
    """Make an image record of random bytes, which a shard never decodes."""
    data = np.random.default_rng(number).bytes(IMAGE_BYTES)
    sha256 = hashlib.sha256(data).hexdigest()
    image_id = image_id_of(sha256)
    image = ImageRecord(
        image_id=image_id,
        key=image_key(image_id),
        height=1500,
        width=2250,
        format="jpg",
        nbytes=len(data),
        source=f"photos/{number}.jpg",
        source_sha256=sha256,
        stored_sha256=sha256,
        license="",
        country="",
    )
    return image, data


if __name__ == "__main__":
    main()
