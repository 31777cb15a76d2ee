"""Work on several images at a time: while the GPU computes one image, CPU threads decode, resize and clean up others.

The automatic generator works on an image in steps: the CPU decodes and resizes the image, the GPU computes masks, and
the CPU cleans small regions and packs run lengths. Each image has a thread of its own, so that these steps stay
readable as one function. Each thread has a CUDA stream of its own, so that it does not wait for the GPU work of the
other threads. OpenCV, torch and the compiled kernels release Python's lock, so the threads overlap. Without a GPU the
same call spreads images over CPU cores.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def overlapped(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, device: torch.device | str = "cpu"
) -> Iterator[Result]:
    """Apply `work` to every item in up to `threads` threads, and yield the results in the order of the items.

    At most `threads` items are in progress, or finished but not yet taken by the caller. Memory therefore stays flat
    even if the caller takes the results slowly. If `work` raises an error for an item, the error is raised in place of
    that item's result. Before the error is raised, items in progress are finished; no further items begin.

    Args:
        device: device that `work` uses. On a CUDA device, each thread has a CUDA stream of its own.

    Raises:
        ValueError: The number of threads is less than 1.
    """
    if threads < 1:
        raise ValueError(f"got {threads} threads, expected at least 1")
    own = threading.local()

    def on_own_stream(item: Item) -> Result:
        if torch.device(device).type != "cuda":
            return work(item)
        if not hasattr(own, "stream"):
            own.stream = torch.cuda.Stream(device)
        with torch.cuda.stream(own.stream):
            result = work(item)
        own.stream.synchronize()  # a result that still holds tensors can be read on any stream
        return result

    return _in_order(on_own_stream, items, threads)


def _in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    with ThreadPoolExecutor(threads, thread_name_prefix="image") as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for item in items:
                if len(begun) == threads:
                    yield begun.popleft().result()
                begun.append(pool.submit(work, item))
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
