"""Clean-up of a mask's small regions on one CPU core: the numba backend beside OpenCV, at 2250 x 1500.

    python tests/benchmarks/bench_regions.py [--photo FILE] [--points-per-side 32]

Masks are those that the seed model makes of a test photo, before clean-up. Both backends clean each mask in turn, and
their results must be equal. OpenCV runs on one thread, so that waiting threads do not count as its CPU time. Prints
one JSON line per figure.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from json_lines import print_line

from engine.automatic.config import PRESETS
from engine.automatic.generate import generate_masks
from engine.images import decode, resize
from engine.kernels.regions import Backend, clean_small_regions
from engine.model.weights import load_model
from tests.paths import PHOTOS

SIZE_HW = (1500, 2250)
TIMES = 5
PEER = "OpenCV on decoded masks"
BACKENDS: tuple[Backend, Backend] = ("numba", "reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photo", type=Path, default=PHOTOS / "coco" / "coco_000000458756.jpg")
    parser.add_argument("--points-per-side", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    # Make masks, not cleaned
    photo = resize(decode(arguments.photo.read_bytes()), SIZE_HW)
    model = load_model("seed")
    config = replace(PRESETS["grid"], points_per_side=arguments.points_per_side)
    masks = [mask.rle for mask in generate_masks(model, photo, replace(config, min_region_px=0)).masks]

    # Clean each mask with both backends in turn
    milliseconds: dict[Backend, list[float]] = {backend: [] for backend in BACKENDS}
    same = 0
    for runs in masks:
        cleaned = []
        for backend in BACKENDS:
            clean = partial(clean_small_regions, runs, config.min_region_px, backend=backend)
            cleaned.append(clean())
            milliseconds[backend].append(statistics.median(cpu_ms(clean) for _ in range(TIMES)))
        same += cleaned[0] == cleaned[1]
    ours_ms, peer_ms = (statistics.median(milliseconds[backend]) for backend in BACKENDS)
    facts: dict[str, Any] = {"photo": f"{SIZE_HW[1]}x{SIZE_HW[0]}", "masks": len(masks), "threads": 1}
    print_line(
        "regions", "clean-up of a mask, median", ours_ms, "ms CPU", peer=PEER, peer_value=peer_ms,
        agreement=same / len(masks), **facts,
    )  # fmt: skip
    ours_ms, peer_ms = (sum(milliseconds[backend]) for backend in BACKENDS)
    print_line("regions", "clean-up of all masks", ours_ms, "ms CPU", peer=PEER, peer_value=peer_ms, **facts)


def cpu_ms(work: Callable[[], object]) -> float:
    """Measure the CPU milliseconds of a call."""
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


if __name__ == "__main__":
    main()
