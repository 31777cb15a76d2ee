"""Several images at a time: while the GPU computes one, processor threads decode, resize and clean up others.

An image of the automatic generator is a chain: decode and resize on the processor, encode and decode on the GPU, clean
small regions and pack runs on the processor again. In a thread of its own each chain stays as readable as it is, and
on a CUDA stream of its own it does not wait for the others' work. OpenCV, torch and the compiled kernels release
Python's lock, so the threads overlap. On a CPU the same call spreads images over cores.
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
    """Yield `work(item)` of every item, in the items' order, `threads` of them at a time.

    At most `threads` items are being worked on or wait to be taken, so that memory stays flat however slowly results
    are taken. An error of `work` is raised in its item's place; what was begun is finished first, nothing more begins.

    Raises:
        ValueError: there is less than one thread.
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
