"""Shell around a ShardWorker that a Ray actor runs, with counts of its images. This module itself imports no Ray."""

import gc
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import torch

from stages.cluster.progress import ActorStatus, ImageCounts
from stages.fully_automatic.isolated import mask_shard_isolated
from stages.fully_automatic.outcomes import MaskedImage, ShardResult
from stages.fully_automatic.worker import CannotWork, ShardWorker
from storage.dataset import Dataset
from storage.records import Reject


class Meters(Protocol):
    """Receiver of the counts of what one worker has done, for monitoring the cluster."""

    def count_image(self, plan_id: str, outcome: MaskedImage | Reject) -> None:
        """Count an image that was masked or rejected."""

    def count_shard(self, result: ShardResult) -> None:
        """Count a shard that this worker committed."""


class ShardActor:
    """Ray actor that masks shards; the first call after each start of its process makes the `ShardWorker`."""

    def __init__(self, make_worker: bytes, dataset_uri: str, threads: int, make_meters: Callable[[], Meters]) -> None:
        torch.set_num_threads(threads)
        self._make_worker, self._dataset_uri = make_worker, dataset_uri
        self._meters = make_meters()
        self._worker: ShardWorker | None = None
        self._making_worker = threading.Lock()
        self._under_way: dict[str, ImageCounts] = {}

    def mask_shard(self, plan_id: str, shard: str) -> ShardResult:
        """Mask and commit a shard. Two calls may run at a time: while one computes, the other reads or writes."""
        with self._making_worker:
            self._worker = self._worker or self._make()
        with self._counting(plan_id, shard) as on_image:
            return self._metered(self._worker.mask_shard(plan_id, shard, on_image))

    def _make(self) -> ShardWorker:
        """Make the worker.

        Raises:
            CannotWork: There is no such model.
        """
        try:
            worker: ShardWorker = pickle.loads(self._make_worker)()
        except ValueError as error:
            raise CannotWork(str(error)) from error
        return worker

    def mask_shard_isolated(self, plan_id: str, shard: str) -> ShardResult:
        """Mask and commit a shard in child processes.

        This process first drops its model, because a child process needs the memory.
        """
        self._worker = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        with self._counting(plan_id, shard) as on_image:
            dataset = Dataset.open(self._dataset_uri)
            return self._metered(mask_shard_isolated(self._make_worker, dataset, plan_id, shard, on_image))

    def status(self) -> ActorStatus:
        """Report the actor's place and the counts of the shards being masked, without waiting for the shards."""
        counts = {shard: replace(count) for shard, count in list(self._under_way.items())}
        return ActorStatus(place=f"{socket.gethostname()}:{os.getpid()}", counts=counts)

    @contextmanager
    def _counting(self, plan_id: str, shard: str) -> Iterator[Callable[[MaskedImage | Reject], None]]:
        """Count a shard's images while the shard is masked; yield the function to call with each image's outcome."""
        counts = self._under_way[shard] = ImageCounts()

        def on_image(outcome: MaskedImage | Reject) -> None:
            counts.add_outcome(outcome)
            self._meters.count_image(plan_id, outcome)

        try:
            yield on_image
        finally:
            del self._under_way[shard]

    def _metered(self, result: ShardResult) -> ShardResult:
        if result.is_new:
            self._meters.count_shard(result)
        return result
