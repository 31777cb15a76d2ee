"""Prefetching of batches: a thread or several processes make batches ahead of the training."""

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from engine.training.batches import CELL_PX, Batch, BatchConfig, Samples, make_batch, make_samples, to_batch
from engine.training.sources import Source, WindowConfig

BATCHES_PER_WORKER = 2
"""Number of batches that each worker process makes ahead; a batch of 128 windows of 256 px with 12 masks has 50 MB of
shared memory.
"""
_LOADED_FOR_WORKERS = ["engine.training.photos", "engine.training.scene_bank"]
"""Modules that are loaded once for all worker processes: fifteen that each load torch take 20 s to begin."""

_Step = tuple[int, WindowConfig]


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
    pickled, make batches further ahead and hand them over in shared memory.
    """
    steps = enumerate(windows, first_step)
    if not workers:
        yield from _from_thread(source, config, steps, positions, cell_px, device)
        return
    for samples in _from_workers(source, config, steps, positions, cell_px, device, workers):
        yield to_batch(samples, config, torch.device(device))


def _from_thread(
    source: Source,
    config: BatchConfig,
    steps: Iterator[_Step],
    positions: range,
    cell_px: int,
    device: torch.device | str,
) -> Iterator[Batch]:
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        try:
            for step, window in steps:
                waiting.append(
                    pool.submit(
                        make_batch,
                        source,
                        config,
                        window,
                        step=step,
                        positions=positions,
                        cell_px=cell_px,
                        device=device,
                    )
                )
                if len(waiting) > 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _from_workers(
    source: Source,
    config: BatchConfig,
    steps: Iterator[_Step],
    positions: range,
    cell_px: int,
    device: torch.device | str,
    workers: int,
) -> Iterator[Samples]:
    context = multiprocessing.get_context("forkserver")  # the training process runs threads, whose locks a fork copies
    context.set_forkserver_preload(_LOADED_FOR_WORKERS)
    yield from DataLoader(
        _SamplesOfSteps(source, config, positions, cell_px),
        batch_size=None,
        sampler=_PreparedSteps(source, steps),
        num_workers=workers,
        prefetch_factor=BATCHES_PER_WORKER,
        multiprocessing_context=context,
        worker_init_fn=_start_worker,
        pin_memory=torch.device(device).type == "cuda",
    )


class _PreparedSteps:
    """Sampler of the steps in order, each with what its cuts need prepared in this process, which has the device."""

    def __init__(self, source: Source, steps: Iterator[_Step]) -> None:
        self._source = source
        self._steps = steps

    def __iter__(self) -> Iterator[_Step]:
        for step, window in self._steps:
            self._source.prepare(step)
            yield step, window


class _SamplesOfSteps(Dataset[Samples]):
    """Data set whose item for a step and its window are the samples of that step."""

    def __init__(self, source: Source, config: BatchConfig, positions: range, cell_px: int) -> None:
        self._source = source
        self._config = config
        self._positions = positions
        self._cell_px = cell_px

    def __getitem__(self, index: _Step) -> Samples:
        step, window = index
        return make_samples(
            self._source, self._config, window, step=step, positions=self._positions, cell_px=self._cell_px
        )


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(1)
