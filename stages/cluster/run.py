"""A plan of mask shards on Ray: one actor a worker, a shard a call.

Ray restarts an actor that died, but repeats no call: the loop here hands shards out again, so that it can count. What a
worker did twice or by half does no harm: the shard's commit record decides.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayTaskError

from stages.cluster.actor import ShardActor
from stages.cluster.ledger import Ledger
from stages.cluster.meters import RayMeters
from stages.cluster.pool import Machine, PoolConfig, PoolSize, pool_size
from stages.cluster.progress import PlanProgress, PlanResult, Tally
from stages.cluster.session import cluster
from stages.cluster.worker_handle import CANNOT_START, WORKER_DIED, WorkerHandle, cannot_start
from stages.fully_automatic.worker import ShardFailed, ShardWorker
from storage.dataset import Dataset
from storage.protocol.plans import Plan

CALLS_IN_FLIGHT = 2  # one computes while the other reads or writes
POLL_S = 1.0
GROWTH_EVERY_S = 10.0  # a look at whether the cluster has room for more workers


def run_plan(
    dataset: Dataset,
    plan: Plan,
    make_worker: Callable[[], ShardWorker],
    config: PoolConfig | None = None,
    on_progress: Callable[[PlanProgress], None] | None = None,
) -> PlanResult:
    """Makes the plan's missing shards; `on_progress` is called about once a second.

    `make_worker` makes the worker in its actor's process: `partial(ShardWorker, "seed", config, dataset.uri)`.
    Raises ValueError for a model or a plan that does not fit and for workers that have no room on this machine,
    PlanStopped, ConnectionError where no cluster answers.
    """
    began = time.perf_counter()
    config = config or PoolConfig()
    missing = dataset.missing(plan)
    waiting = {shard.name for shard in missing}  # in a redo they have records, of the generation before
    tally = Tally(plan, [commit for commit in dataset.commits(plan) if commit.shard not in waiting], began)
    report = on_progress or (lambda _: None)
    ledger = Ledger(missing)
    workers: list[WorkerHandle] = []
    report(_progress(tally, ledger, workers))
    if missing:
        with cluster(config):
            pool = _Pool(make_worker, dataset.uri, config)
            workers = pool.workers
            try:
                _drive(plan, ledger, pool, tally, report)
            finally:
                for worker in workers:
                    ray.kill(worker.actor)
    return PlanResult(
        plan_id=plan.plan_id,
        commits=tuple(dataset.commits(plan)),
        failed=dict(ledger.failed),
        new_shards=len(ledger.made),
        new_images=tally.new.images,
        new_masks=tally.new.masks,
        workers=len(workers),
        deaths=ledger.deaths,
        seconds=time.perf_counter() - began,
    )


class _Pool:
    """The workers of a run: as many as the machines of now have room for, unless their number is given."""

    def __init__(self, make_worker: Callable[[], ShardWorker], dataset_uri: str, config: PoolConfig) -> None:
        self.workers: list[WorkerHandle] = []
        self._make_worker, self._dataset_uri, self._config = cloudpickle.dumps(make_worker), dataset_uri, config
        self._looked: float | None = None

    def grow(self, shards: int) -> None:
        """Starts the workers that `shards` can use and that are not there yet; a cluster is looked at now and then."""
        now = time.perf_counter()
        if self._looked is not None and (self._config.address is None or now - self._looked < GROWTH_EVERY_S):
            return
        self._looked = now
        size = pool_size(self._config, _machines(), shards)
        self._config = replace(self._config, threads=size.threads)  # later ones are as wide as the first
        make_actor = partial(_actor_class(size).remote, self._make_worker, self._dataset_uri, size.threads, RayMeters)
        self.workers += [WorkerHandle(make_actor) for _ in range(size.workers - len(self.workers))]


def _actor_class(size: PoolSize) -> Any:
    return ray.remote(
        num_cpus=size.threads,  # Ray sets OMP_NUM_THREADS to it
        num_gpus=size.gpus_per_worker,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=CALLS_IN_FLIGHT,
        concurrency_groups={"watch": 1},
    )(ShardActor)  # type: ignore[call-overload]


def _machines() -> list[Machine]:
    """The machines of the cluster as it is now."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [
        Machine(cores=int(has.get("CPU", 0)), gpus=int(has.get("GPU", 0)), memory_bytes=int(has.get("memory", 0)))
        for has in found
    ]


def _drive(
    plan: Plan,
    ledger: Ledger,
    pool: _Pool,
    tally: Tally,
    on_progress: Callable[[PlanProgress], None],
) -> None:
    """Hands out, collects and reports until nothing is left."""
    workers = pool.workers
    reported = 0.0
    while not ledger.is_over:
        pool.grow(ledger.left)
        ledger.workers = len(workers)
        for worker in workers:
            if not worker.has_answered:
                worker.look()
        _hand_out(plan, ledger, workers)
        _collect(ledger, workers, tally)
        if time.perf_counter() - reported >= POLL_S:
            for worker in workers:
                worker.look()
            on_progress(_progress(tally, ledger, workers))
            reported = time.perf_counter()
    on_progress(_progress(tally, ledger, workers))


def _hand_out(plan: Plan, ledger: Ledger, workers: list[WorkerHandle]) -> None:
    """A job for every idle worker; then a second each, while there are so many that none will lack one at the end."""
    up = [worker for worker in workers if worker.is_up]
    for in_hand in range(CALLS_IN_FLIGHT):
        for worker in up:
            if worker.is_isolating or len(worker.jobs) != in_hand:
                continue
            if in_hand and ledger.waiting <= len(up):
                return
            job = ledger.take(alone=in_hand == 0)
            if job:
                worker.start(plan, job)


def _collect(ledger: Ledger, workers: list[WorkerHandle], tally: Tally) -> None:
    """Waits for a call to end, POLL_S at most, and books what ended."""
    running = {ref: worker for worker in workers for ref in worker.jobs}
    if not running:  # no worker is up
        time.sleep(POLL_S / 10)
        return
    ended, _ = ray.wait(list(running), num_returns=1, timeout=POLL_S)
    for ref in ended:
        worker = running[ref]
        job = worker.jobs[ref]
        try:
            result = ray.get(ref)
        except CANNOT_START as error:
            raise cannot_start(error) from error
        except WORKER_DIED:
            ledger.died(worker.lose())
            continue
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, ShardFailed) and not job.isolated:  # as after a fault of the GPU: a new process may do
                ray.kill(worker.actor, no_restart=False)
                ledger.died(worker.lose())
                continue
            del worker.jobs[ref]
            if isinstance(cause, ValueError):  # the model or the plan: no shard would fare better
                raise cause from None
            ledger.raised(job, cause)
            continue
        tally.add(result)
        ledger.done(worker.end(ref, result))


def _progress(tally: Tally, ledger: Ledger, workers: list[WorkerHandle]) -> PlanProgress:
    under_way = [count for worker in workers for count in worker.counts.values()]
    return tally.progress(
        ledger,
        under_way,
        workers=sum(worker.is_up for worker in workers),
        waiting_workers=sum(worker.is_waiting for worker in workers),
        by_worker=[worker.progress() for worker in workers if worker.is_up],
    )
