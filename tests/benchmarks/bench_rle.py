"""Run-length encoding and decoding beside pycocotools, in masks per CPU second, in one process.

    python tests/benchmarks/bench_rle.py

Both sides start from the same mask in memory and end with the COCO string, or the reverse. `C order` is the layout of
NumPy and PyTorch, which pycocotools must transpose first; `Fortran order` is the layout it expects. The results of both
are compared. Figures are medians of rounds that alternate between the two.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from json_lines import print_line
from pycocotools import mask as coco

from storage import rle

SIZES_HW = ((480, 640), (1500, 2250))
KINDS = ("small", "medium", "large", "ragged", "scattered")
MASKS = 12
ROUNDS = 5


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    for height, width in SIZES_HW:
        for kind in KINDS:
            rng = np.random.default_rng(0)
            compare(kind, [random_mask(kind, height, width, rng) for _ in range(MASKS)])


def compare(kind: str, masks: list[np.ndarray]) -> None:
    """Encode and decode the masks (bool [H, W], C order) on both sides, and print the figures."""
    height, width = masks[0].shape
    facts = {"mask": kind, "size": f"{width}x{height}", "area": round(float(np.mean(masks)), 5)}
    turned = [np.asfortranarray(mask, dtype=np.uint8) for mask in masks]
    strings = [ours_encoded(mask) for mask in masks]
    assert strings == [peer_encoded(mask) for mask in turned]
    assert all(
        np.array_equal(ours_decoded(string, height, width), mask) for string, mask in zip(strings, masks, strict=True)
    )
    pairs = {
        "encode, C order": (lambda: [ours_encoded(mask) for mask in masks], lambda: [from_c(mask) for mask in masks]),
        "encode, Fortran order": (
            lambda: [ours_encoded(mask) for mask in turned],
            lambda: [peer_encoded(mask) for mask in turned],
        ),
        "decode": (
            lambda: [ours_decoded(string, height, width) for string in strings],
            lambda: [coco.decode({"size": [height, width], "counts": string}) for string in strings],
        ),
    }
    for metric, (ours, peers) in pairs.items():
        ours_s, peer_s = medians(ours, peers)
        print_line("rle", metric, MASKS / ours_s, "masks/s", peer="pycocotools", peer_value=MASKS / peer_s, **facts)


def medians(ours: Callable[[], object], peers: Callable[[], object]) -> tuple[float, float]:
    """Measure CPU seconds of either side."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for side, work in zip(seconds, (ours, peers), strict=True):
            began = time.process_time()
            work()
            side.append(time.process_time() - began)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def ours_encoded(mask_HW: np.ndarray) -> str:
    return rle.to_coco(rle.encode(mask_HW))


def ours_decoded(string: str, height: int, width: int) -> np.ndarray:
    return rle.decode(rle.from_coco(string, height=height, width=width))


def peer_encoded(mask_HW: np.ndarray) -> str:
    return coco.encode(mask_HW)["counts"].decode()


def from_c(mask_HW: np.ndarray) -> str:
    return peer_encoded(np.asfortranarray(mask_HW, dtype=np.uint8))


def random_mask(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a disc of 0.1 %, 2 % or 30 % of the image, one with a rough edge, or 300 small pieces; bool [H, W]."""
    if kind == "scattered":
        mask_HW = np.zeros((height, width), np.bool_)
        for y, x in zip(rng.integers(height - 12, size=300), rng.integers(width - 12, size=300), strict=True):
            mask_HW[y : y + rng.integers(3, 12), x : x + rng.integers(3, 12)] = True
        return mask_HW
    share = {"small": 0.001, "medium": 0.02, "large": 0.3, "ragged": 0.05}[kind]
    y_HW, x_HW = np.mgrid[0:height, 0:width].astype(np.float32)
    dy_HW, dx_HW = y_HW - height * rng.uniform(0.3, 0.7), x_HW - width * rng.uniform(0.3, 0.7)
    angle_HW = np.arctan2(dy_HW, dx_HW)
    wobble_HW = 1 + sum(0.1 * np.cos(k * angle_HW + rng.uniform(0, 6.3)) for k in range(2, 6))
    radius_HW = np.sqrt(share * height * width / np.pi) * wobble_HW
    if kind == "ragged":
        radius_HW = radius_HW + rng.normal(0, 6, (height, width))
    return np.hypot(dx_HW, dy_HW) < radius_HW


if __name__ == "__main__":
    main()
