"""Prefetching of batches: a thread or several processes make batches ahead of the training."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import cv2
import torch

from engine.training.batches import CELL_PX, Batch, BatchConfig, Samples, make_batch, make_samples, to_batch
from engine.training.sources import Source, WindowConfig

BATCHES_PER_WORKER = 2
"""Number of batches that each worker process makes ahead; a batch of 128 windows of 256 px with 12 masks has 50 MB."""


def prefetch_batches(
    source: Source,
    config: BatchConfig,
    windows: Iterator[WindowConfig],
    *,
    first_step: int,
    positions: range,
    cell_px: int = CELL_PX,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield one batch on `device` for each entry of `windows`; the first batch is that of `first_step`.

    With `workers` 0, a thread makes batches one step ahead. Otherwise `workers` processes, to which the source is
    pickled, make batches further ahead.
    """
    ahead = 1 + BATCHES_PER_WORKER * workers
    waiting: deque[Callable[[], Batch]] = deque()
    with _makers(source, workers) as pool:
        for step, window in enumerate(windows, first_step):
            if workers:
                source.prepare(step)
                made = pool.submit(_make_in_worker, config, window, step, positions, cell_px)
                waiting.append(partial(_receive, made, config, device))
            else:
                make = partial(make_batch, step=step, positions=positions, cell_px=cell_px, device=device)
                waiting.append(pool.submit(make, source, config, window).result)
            if len(waiting) > ahead:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()


@contextmanager
def _makers(source: Source, workers: int) -> Iterator[Executor]:
    if workers:  # spawned: a fork would copy the locks of whatever threads the training process runs
        context = multiprocessing.get_context("spawn")
        pool: Executor = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(source,))
    else:
        pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _receive(made: Future[Samples], config: BatchConfig, device: torch.device | str) -> Batch:
    return to_batch(made.result(), config, torch.device(device))


_worker_source: Source


def _start_worker(source: Source) -> None:
    global _worker_source
    _worker_source = source
    cv2.setNumThreads(1)


def _make_in_worker(config: BatchConfig, window: WindowConfig, step: int, positions: range, cell_px: int) -> Samples:
    return make_samples(_worker_source, config, window, step=step, positions=positions, cell_px=cell_px)
