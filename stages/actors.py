"""A plan of mask shards on Ray: one actor a worker, a shard a call; the only file that imports Ray.

Ray restarts an actor that died, but repeats no call: the loop here hands shards out again, so that it can count. What a
worker did twice or by half does no harm: the shard's commit record decides.
"""

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError

from stages.fully_automatic import MaskedImage, ShardResult, ShardWorker, images_of
from stages.isolated import run_isolated
from stages.ledger import Job, Ledger
from storage.commits import Commit, Plan
from storage.dataset import Dataset
from storage.records import Reject

CALLS_IN_FLIGHT = 2  # one computes while the other reads or writes
POLL_S = 1.0
MAX_GPU_WORKER_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Where the workers run and how many there are."""

    address: str | None = None
    """Of a Ray cluster ("auto", "ray://host:10001"); None: this machine, for the time of the run."""
    workers: int | None = None
    """None: one per GPU; without GPUs as many as cores, memory and shards allow."""
    threads: int | None = None
    """Cores of a worker; None: 1, and more where there are fewer shards than cores."""
    worker_memory_bytes: int = 2 * 2**30
    """What a worker is expected to need; no more workers start than fit."""
    object_store_bytes: int = 128 * 2**20
    """Of Ray's shared memory on this machine; shards do not pass through it."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "worker_memory_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class PlanProgress:
    """How far a plan is, shards of earlier runs included."""

    shards: int
    shards_total: int
    images: int  # masked or rejected
    images_total: int
    masks: int
    rejects: int
    new_images: int  # of this run
    new_masks: int
    workers: int  # that have answered
    deaths: int
    seconds: float  # of this run


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """What a plan holds at the end of a run. `failed`: shards that could not be made, and why; they stay missing."""

    plan_id: str
    commits: tuple[Commit, ...]
    failed: Mapping[str, str]
    new_shards: int
    workers: int
    deaths: int
    seconds: float

    @property
    def images(self) -> int:
        return sum(commit.images for commit in self.commits)

    @property
    def masks(self) -> int:
        return sum(commit.masks for commit in self.commits)

    @property
    def rejects(self) -> tuple[Reject, ...]:
        return tuple(reject for commit in self.commits for reject in commit.rejects)


def run_plan(
    dataset: Dataset,
    plan: Plan,
    make_worker: Callable[[], ShardWorker],
    config: PoolConfig | None = None,
    on_progress: Callable[[PlanProgress], None] | None = None,
) -> PlanResult:
    """Makes the plan's missing shards; `on_progress` is called about once a second.

    `make_worker` makes the worker in its actor's process: `partial(ShardWorker, "seed", config, dataset.uri)`.
    Raises ValueError for a model or a plan that does not fit, PlanStopped, ConnectionError where no cluster answers.
    """
    began = time.perf_counter()
    config = config or PoolConfig()
    missing = dataset.missing(plan)
    tally = _Tally(plan, dataset.commits(plan), began)
    report = on_progress or (lambda _: None)
    ledger = Ledger(missing)
    workers: list[_Worker] = []
    report(tally.progress(ledger, workers))
    if missing:
        with _connected(config):
            workers = _start_workers(make_worker, dataset.uri, config, len(missing))
            try:
                _drive(plan, ledger, workers, tally, report)
            finally:
                for worker in workers:
                    ray.kill(worker.actor)
    return PlanResult(
        plan_id=plan.plan_id,
        commits=tuple(dataset.commits(plan)),
        failed=dict(ledger.failed),
        new_shards=len(ledger.made),
        workers=len(workers),
        deaths=ledger.deaths,
        seconds=time.perf_counter() - began,
    )


@contextmanager
def _connected(config: PoolConfig) -> Iterator[None]:
    """Ray as this process has it already, or the cluster of the address, or one of this machine for the time being."""
    if ray.is_initialized():
        yield
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    local: dict[str, Any] = {"object_store_memory": config.object_store_bytes, "include_dashboard": False}
    ray.init(
        address=config.address or "local",
        log_to_driver=False,
        logging_level=logging.ERROR,
        **({} if config.address else local),
    )
    try:
        yield
    finally:
        ray.shutdown()


@dataclass
class _Count:
    """Photographs of a shard that is being made."""

    images: int = 0
    masks: int = 0
    rejects: int = 0

    def add(self, outcome: MaskedImage | Reject) -> None:
        self.images += 1
        if isinstance(outcome, Reject):
            self.rejects += 1
        else:
            self.masks += len(outcome.masks)


class ShardActor:
    """A shell over a ShardWorker, which the first call makes: so does the first one after Ray restarted the actor."""

    def __init__(self, make_worker: bytes, dataset_uri: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._make_worker, self._dataset_uri = make_worker, dataset_uri
        self._worker: ShardWorker | None = None
        self._making = threading.Lock()
        self._under_way: dict[str, _Count] = {}

    def run(self, plan_id: str, shard: str) -> ShardResult:
        """`ShardWorker.run`."""
        with self._making:
            self._worker = self._worker or cloudpickle.loads(self._make_worker)()
        with self._counting(shard) as count:
            return self._worker.run(plan_id, shard, count.add)

    def run_isolated(self, plan_id: str, shard: str) -> ShardResult:
        """`run_isolated`, with this process's model gone meanwhile: the child needs the memory."""
        self._worker = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        with self._counting(shard) as count:
            return run_isolated(self._make_worker, Dataset.open(self._dataset_uri), plan_id, shard, count.add)

    @ray.method(concurrency_group="watch")
    def under_way(self) -> dict[str, _Count]:
        """Counts of the shards in hand; answers while they are being made."""
        return dict(self._under_way)

    @contextmanager
    def _counting(self, shard: str) -> Iterator[_Count]:
        self._under_way[shard] = _Count()
        try:
            yield self._under_way[shard]
        finally:
            del self._under_way[shard]


@dataclass(kw_only=True)
class _Worker:
    """An actor as the driver sees it."""

    actor: Any
    jobs: dict[ray.ObjectRef, Job] = field(default_factory=dict)
    asked: ray.ObjectRef | None = None  # for its counts
    counts: dict[str, _Count] = field(default_factory=dict)
    has_answered: bool = False

    def start(self, plan: Plan, job: Job) -> None:
        method = self.actor.run_isolated if job.isolated else self.actor.run
        self.jobs[method.remote(plan.plan_id, job.shard.name)] = job

    @property
    def is_isolating(self) -> bool:
        return any(job.isolated for job in self.jobs.values())


def _start_workers(
    make_worker: Callable[[], ShardWorker], dataset_uri: str, config: PoolConfig, shards: int
) -> list[_Worker]:
    cluster = ray.cluster_resources()
    cores, gpus = int(cluster.get("CPU", 1)), int(cluster.get("GPU", 0))
    if gpus:
        most, threads = gpus, min(MAX_GPU_WORKER_THREADS, max(1, cores // gpus))
    else:
        threads = max(1, cores // shards)
        most = min(cores // threads, int(cluster.get("memory", 0)) // config.worker_memory_bytes)
    threads = config.threads or threads
    count = config.workers or max(1, min(most, shards, cores // threads))
    pickled = cloudpickle.dumps(make_worker)
    actor_class: Any = ray.remote(
        num_cpus=threads,  # Ray sets OMP_NUM_THREADS to it
        num_gpus=1 if gpus else 0,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=CALLS_IN_FLIGHT,
        concurrency_groups={"watch": 1},
    )(ShardActor)  # type: ignore[call-overload]
    return [_Worker(actor=actor_class.remote(pickled, dataset_uri, threads)) for _ in range(count)]


def _drive(
    plan: Plan,
    ledger: Ledger,
    workers: list[_Worker],
    tally: "_Tally",
    on_progress: Callable[[PlanProgress], None],
) -> None:
    """Hands out, collects and reports until nothing is left."""
    reported = 0.0
    while not ledger.is_over:
        _hand_out(plan, ledger, workers)
        _collect(ledger, workers, tally)
        if time.perf_counter() - reported >= POLL_S:
            _look(workers)
            on_progress(tally.progress(ledger, workers))
            reported = time.perf_counter()
    on_progress(tally.progress(ledger, workers))


def _hand_out(plan: Plan, ledger: Ledger, workers: list[_Worker]) -> None:
    """A job for every idle worker; then a second each, while there are so many that none will lack one at the end."""
    for in_hand in range(CALLS_IN_FLIGHT):
        for worker in workers:
            if len(worker.jobs) != in_hand or worker.is_isolating or (in_hand and ledger.waiting <= len(workers)):
                continue
            job = ledger.take(alone=in_hand == 0)
            if job:
                worker.start(plan, job)


def _collect(ledger: Ledger, workers: list[_Worker], tally: "_Tally") -> None:
    """Waits for a call to end, POLL_S at most, and books all that ended."""
    ended, _ = ray.wait([ref for worker in workers for ref in worker.jobs], timeout=POLL_S)
    for worker in workers:
        for ref in [ref for ref in ended if ref in worker.jobs]:
            job = worker.jobs.pop(ref)
            worker.counts.pop(job.shard.name, None)
            try:
                tally.add(ray.get(ref))
                ledger.done(job)
            except RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                if isinstance(cause, ValueError):  # the model or the plan: no shard would fare better
                    raise cause from None
                ledger.raised(job, cause)
            except RayActorError:
                lost = [job, *worker.jobs.values()]
                worker.jobs.clear()
                worker.counts.clear()
                ledger.died(lost)


def _look(workers: list[_Worker]) -> None:
    """Takes the counts that have come and asks for the next; waits for nobody."""
    for worker in workers:
        if worker.asked is not None:
            ready, _ = ray.wait([worker.asked], timeout=0)
            if not ready:
                continue
            try:
                counts = ray.get(worker.asked)
                worker.has_answered = True
            except RayActorError:
                counts = {}
            in_hand = {job.shard.name for job in worker.jobs.values()}
            worker.counts = {shard: count for shard, count in counts.items() if shard in in_hand}
        worker.asked = worker.actor.under_way.remote()


class _Tally:
    """Adds up what is committed and what is under way."""

    def __init__(self, plan: Plan, commits: list[Commit], began: float) -> None:
        self._plan, self._began = plan, began
        self._images_total = sum(images_of(shard) for shard in plan.shards)
        self._before = _Count(
            images=sum(commit.images + len(commit.rejects) for commit in commits),
            masks=sum(commit.masks for commit in commits),
            rejects=sum(len(commit.rejects) for commit in commits),
        )
        self._shards_before = len(commits)
        self._new = _Count()

    def add(self, result: ShardResult) -> None:
        self._new.images += result.images + result.rejects
        self._new.masks += result.masks
        self._new.rejects += result.rejects

    def progress(self, ledger: Ledger, workers: list[_Worker]) -> PlanProgress:
        under_way = [count for worker in workers for count in worker.counts.values()]
        new_images = self._new.images + sum(count.images for count in under_way)
        new_masks = self._new.masks + sum(count.masks for count in under_way)
        rejects = self._new.rejects + sum(count.rejects for count in under_way)
        return PlanProgress(
            shards=self._shards_before + len(ledger.made),
            shards_total=len(self._plan.shards),
            images=self._before.images + new_images,
            images_total=self._images_total,
            masks=self._before.masks + new_masks,
            rejects=self._before.rejects + rejects,
            new_images=new_images,
            new_masks=new_masks,
            workers=sum(worker.has_answered for worker in workers),
            deaths=ledger.deaths,
            seconds=time.perf_counter() - self._began,
        )
