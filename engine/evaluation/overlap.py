"""Measurement of several images at a time: one image a thread, as many threads as torch may use.

A network of a small input and a segmentation keep one core busy, whatever number of threads torch is given. Scores do
not depend on the number of images measured at a time, except for the last bits of logits: torch sums in another order
where it computes one image in several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import torch

from engine.automatic.overlap import overlapped
from engine.labelled import LabelledImage
from storage.rle import Rle

Chosen: TypeAlias = tuple[LabelledImage, list[tuple[int, Rle]]]
"""Image to measure and its (annotator, mask) pairs."""
T = TypeVar("T")

MAX_IMAGES_AT_ONCE = 16
"""Largest number of images measured at a time; with more, the threads mostly wait for Python's lock."""
MAX_PIXELS_AT_ONCE = 24_000_000
"""Largest number of pixels of the images measured at a time; each takes up to 150 bytes while it is segmented."""


def measure_each(
    measure: Callable[[Chosen], T], chosen: Sequence[Chosen], on_progress: Callable[[int, int], None]
) -> Iterator[T]:
    """Yield the measurement of each image, in the order of the images; several are measured at a time.

    Args:
        measure: Function of one image; it is called from several threads.
        on_progress: called with the number of images done and the number of images in all, from this thread.
    """
    threads, largest_px = torch.get_num_threads(), max(image.height * image.width for image, _ in chosen)
    at_once = max(1, min(threads, len(chosen), MAX_IMAGES_AT_ONCE, MAX_PIXELS_AT_ONCE // largest_px))
    on_progress(0, len(chosen))
    torch.set_num_threads(max(1, threads // at_once))  # of each image; the threads that begin now take it over
    try:
        for done, measured in enumerate(overlapped(measure, chosen, threads=at_once), start=1):
            on_progress(done, len(chosen))
            yield measured
    finally:
        torch.set_num_threads(threads)
