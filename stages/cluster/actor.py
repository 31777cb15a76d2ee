"""What a Ray actor runs: a shell over a ShardWorker that counts as it goes. Plain Python, no Ray."""

import gc
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from stages.cluster.progress import ShardCount
from stages.fully_automatic.isolated import run_isolated
from stages.fully_automatic.outcomes import MaskedImage, ShardResult
from stages.fully_automatic.worker import ShardWorker
from storage.dataset import Dataset
from storage.records import Reject


class Meters(Protocol):
    """Running totals of one worker, for whoever watches the cluster."""

    def image(self, plan_id: str, outcome: MaskedImage | Reject) -> None:
        """A photograph is done."""

    def shard(self, result: ShardResult) -> None:
        """A shard is committed by this worker."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an actor says of itself: where it lives, and the counts of the shards it has in hand."""

    place: str
    counts: dict[str, ShardCount]


class ShardActor:
    """The first call makes the ShardWorker; so does the first one after the actor was restarted."""

    def __init__(self, make_worker: bytes, dataset_uri: str, threads: int, make_meters: Callable[[], Meters]) -> None:
        torch.set_num_threads(threads)
        self._make_worker, self._dataset_uri = make_worker, dataset_uri
        self._meters = make_meters()
        self._worker: ShardWorker | None = None
        self._making = threading.Lock()
        self._under_way: dict[str, ShardCount] = {}

    def run(self, plan_id: str, shard: str) -> ShardResult:
        """`ShardWorker.run`; a second call at the same time reads and writes beside the first."""
        with self._making:
            self._worker = self._worker or pickle.loads(self._make_worker)()
        with self._counting(plan_id, shard) as count:
            return self._metered(self._worker.run(plan_id, shard, count))

    def run_isolated(self, plan_id: str, shard: str) -> ShardResult:
        """`run_isolated`, with this process's model gone meanwhile: the child needs the memory."""
        self._worker = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        with self._counting(plan_id, shard) as count:
            dataset = Dataset.open(self._dataset_uri)
            return self._metered(run_isolated(self._make_worker, dataset, plan_id, shard, count))

    def under_way(self) -> Answer:
        """Answers while shards are being made."""
        counts = {shard: replace(count) for shard, count in list(self._under_way.items())}
        return Answer(place=f"{socket.gethostname()}:{os.getpid()}", counts=counts)

    @contextmanager
    def _counting(self, plan_id: str, shard: str) -> Iterator[Callable[[MaskedImage | Reject], None]]:
        """What hears of each photograph of the shard."""
        total = self._under_way[shard] = ShardCount()

        def count(outcome: MaskedImage | Reject) -> None:
            total.add(outcome)
            self._meters.image(plan_id, outcome)

        try:
            yield count
        finally:
            del self._under_way[shard]

    def _metered(self, result: ShardResult) -> ShardResult:
        if result.made:
            self._meters.shard(result)
        return result
