"""Felzenszwalb's segments of a photo at three scales on one CPU core: `graph_segments` beside scikit-image.

    python tests/benchmarks/bench_segments.py [PHOTO ...]

Both segment each photo in turn, and their segments must be equal. Prints one JSON line for each photo.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from json_lines import print_line
from skimage.segmentation import felzenszwalb

from engine.evaluation.classical import MIN_SEGMENT_PX, SCALES, SIGMA, FelzenszwalbSegmenter
from engine.images import decode
from tests.paths import PHOTOS

TIMES = 3
PHOTO_NAMES = ("coco/coco_000000458756.jpg", "nuts/nuts_0.jpg", "facade/facade_20230417_200949_967_R_scaled_1.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", nargs="*", type=Path, default=[PHOTOS / name for name in PHOTO_NAMES])
    FelzenszwalbSegmenter().open(np.zeros((8, 8, 3), dtype=np.uint8))  # compiles
    for photo in parser.parse_args().photos:
        image_HW3 = decode(photo.read_bytes())
        assert (ours(image_HW3) == theirs(image_HW3)).all(), f"{photo}: the segments differ"
        print_line(
            "segments",
            "segments at three scales",
            statistics.median(cpu_ms(partial(ours, image_HW3)) for _ in range(TIMES)),
            "ms CPU",
            peer="scikit-image, scale by scale",
            peer_value=statistics.median(cpu_ms(partial(theirs, image_HW3)) for _ in range(TIMES)),
            photo=f"{image_HW3.shape[1]}x{image_HW3.shape[0]}",
        )


def ours(image_HW3: np.ndarray) -> np.ndarray:
    """Segment with numba, at all scales at once."""
    return FelzenszwalbSegmenter().open(image_HW3).labels_SHW


def theirs(image_HW3: np.ndarray) -> np.ndarray:
    """Segment with scikit-image."""
    return np.stack([felzenszwalb(image_HW3, scale=k, sigma=SIGMA, min_size=MIN_SEGMENT_PX) for k in SCALES])


def cpu_ms(work: Callable[[], object]) -> float:
    """Measure the CPU milliseconds of a call."""
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


if __name__ == "__main__":
    main()
