"""Run of a plan of mask shards on Ray: each worker is one actor, and each call masks one shard.

Ray restarts an actor that died but does not repeat its calls. The loop in this module hands the shards out again, so
that it can count deaths. Work that was done twice or only in part does no harm: the shard's commit record decides.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayTaskError

from stages.cluster.actor import ShardActor
from stages.cluster.ledger import Job, Ledger
from stages.cluster.meters import RayMeters
from stages.cluster.pool import PoolConfig, PoolSize, pool_size
from stages.cluster.progress import PlanCounter, PlanProgress, PlanResult
from stages.cluster.session import machines, ray_session
from stages.cluster.worker_handle import CANNOT_START, WORKER_DIED, WorkerHandle, cannot_start
from stages.fully_automatic.worker import CannotWork, ShardFailed, ShardWorker
from storage.dataset import Dataset
from storage.protocol.plans import Plan

logger = logging.getLogger(__name__)

CALLS_IN_FLIGHT = 2
"""Maximum number of shards in the hands of one worker: one computes while the other reads or writes."""
POLL_S = 1.0
"""Time in seconds between reports, and the maximum wait for a call to end."""
GROWTH_EVERY_S = 10.0
"""Time in seconds between checks whether the cluster has room for more workers."""


def run_plan(
    dataset: Dataset,
    plan: Plan,
    make_worker: Callable[[], ShardWorker],
    config: PoolConfig | None = None,
    on_progress: Callable[[PlanProgress], None] | None = None,
) -> PlanResult:
    """Mask and commit the plan's missing shards; call `on_progress` about once a second.

    `make_worker` is called in the process of each Ray actor and returns the actor's worker. For example, pass
    `make_worker=partial(ShardWorker, "seed", generate_config, dataset.uri)`.

    Raises:
        ValueError: The plan is for another model or config, or this machine has no room for the workers.
        PlanStopped: Workers kept dying or shards kept failing with no shard committed in between, or a worker can never
            start.
        ConnectionError: No Ray cluster answers at `config.address`.
    """
    began = time.perf_counter()
    config = config or PoolConfig()
    report = on_progress or (lambda _: None)

    # Count what is committed
    missing = dataset.missing(plan)
    waiting = {shard.name for shard in missing}  # in a redo they have records of the generation before
    counter = PlanCounter(plan, [commit for commit in dataset.commits(plan) if commit.shard not in waiting], began)
    ledger = Ledger(missing)
    workers: list[WorkerHandle] = []
    report(_progress(counter, ledger, workers))

    # Mask what is missing
    if missing:
        with ray_session(config):
            pool = _Pool(make_worker, dataset.uri, config)
            workers = pool.workers
            try:
                _drive(plan, ledger, pool, counter, report)
            finally:
                for worker in workers:
                    ray.kill(worker.actor)

    return counter.result(ledger, dataset.commits(plan), workers=len(workers))


class _Pool:
    """Pool of the workers of a run: as many as are configured, or as many as the cluster has room for."""

    def __init__(self, make_worker: Callable[[], ShardWorker], dataset_uri: str, config: PoolConfig) -> None:
        self.workers: list[WorkerHandle] = []
        self._make_worker, self._dataset_uri, self._config = cloudpickle.dumps(make_worker), dataset_uri, config
        self._grown_at: float | None = None

    def grow(self, shards: int) -> None:
        """Start the workers that `shards` shards can use and that have room.

        The first call starts workers at once. On a cluster at an address, later calls start more every now and then.

        Raises:
            ValueError: This machine has no room for the workers.
        """
        now = time.perf_counter()
        if self._grown_at is not None and (self._config.address is None or now - self._grown_at < GROWTH_EVERY_S):
            return
        self._grown_at = now
        size = pool_size(self._config, machines(), shards)
        self._config = replace(self._config, threads=size.threads)  # later workers get as many threads as the first
        make_actor = partial(_actor_class(size).remote, self._make_worker, self._dataset_uri, size.threads, RayMeters)
        self.workers += [WorkerHandle(make_actor) for _ in range(size.workers - len(self.workers))]


def _actor_class(size: PoolSize) -> Any:
    """Make the Ray actor class of a worker with its resources. Ray restarts its actors without limit."""
    return ray.remote(
        num_cpus=size.threads,  # Ray sets OMP_NUM_THREADS to it
        num_gpus=size.gpus_per_worker,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=CALLS_IN_FLIGHT,
        concurrency_groups={"watch": 1},
    )(ShardActor)  # type: ignore[call-overload]


def _drive(
    plan: Plan,
    ledger: Ledger,
    pool: _Pool,
    counter: PlanCounter,
    on_progress: Callable[[PlanProgress], None],
) -> None:
    """Hand out shards, collect results and report progress until no shard is left."""
    workers = pool.workers
    reported_at = 0.0
    while not ledger.is_over:
        # Start workers, and hear from those that have not answered yet
        pool.grow(ledger.left)
        ledger.workers = len(workers)
        for worker in workers:
            if not worker.has_answered:
                worker.poll()

        # Keep those that are up busy
        _hand_out(plan, ledger, workers)
        _collect(ledger, workers, counter)

        # Report about once a second
        if time.perf_counter() - reported_at >= POLL_S:
            for worker in workers:
                worker.poll()
            on_progress(_progress(counter, ledger, workers))
            reported_at = time.perf_counter()
    on_progress(_progress(counter, ledger, workers))


def _hand_out(plan: Plan, ledger: Ledger, workers: list[WorkerHandle]) -> None:
    """Give every idle worker a job, then give second jobs while enough jobs wait that no worker will lack work."""
    up = [worker for worker in workers if worker.is_up]
    for in_hand in range(CALLS_IN_FLIGHT):
        for worker in up:
            if worker.is_isolating or len(worker.jobs) != in_hand:
                continue
            if in_hand and ledger.waiting <= len(up):
                return
            job = ledger.take(is_idle=in_hand == 0)
            if job:
                worker.start(plan, job)


def _collect(ledger: Ledger, workers: list[WorkerHandle], counter: PlanCounter) -> None:
    """Wait for a call to end, POLL_S at most, and record its result.

    Raises:
        ValueError: The plan is for another model or config.
        PlanStopped: Workers kept dying or shards kept failing with no shard committed, or a worker can never start.
    """
    under_way = {call: worker for worker in workers for call in worker.jobs}
    if not under_way:  # no worker is up
        time.sleep(POLL_S / 10)
        return
    ended, _ = ray.wait(list(under_way), num_returns=1, timeout=POLL_S)
    for call in ended:
        worker = under_way[call]
        try:
            result = ray.get(call)
        except CANNOT_START as error:
            raise cannot_start(error) from error
        except WORKER_DIED:
            ledger.record_death(worker.mark_dead())
        except RayTaskError as error:
            _book_failure(ledger, worker, worker.jobs.pop(call), error)
        else:
            counter.add(result)
            ledger.record_done(worker.finish(call, result))


def _book_failure(ledger: Ledger, worker: WorkerHandle, job: Job, error: RayTaskError) -> None:
    """Record a call that raised an error; restart a worker that can mask nothing any more, and count it as dead.

    Raises:
        CannotWork: There is no such model, or the plan is for another one, so that every shard would fail.
        PlanStopped: Too many deaths or failures occurred with no shard committed in between.
    """
    cause = error.cause if isinstance(error.cause, Exception) else error
    if isinstance(cause, ShardFailed) and not job.isolated:  # as after a fault of the GPU: a new process may work
        ray.kill(worker.actor, no_restart=False)
        ledger.record_death([job, *worker.mark_dead()])
    elif isinstance(cause, CannotWork):
        raise cause from None
    else:
        logger.error("masks: shard %s failed:\n%s", job.shard.name, error)  # Ray puts the traceback into its text
        ledger.record_failure(job, cause)


def _progress(counter: PlanCounter, ledger: Ledger, workers: list[WorkerHandle]) -> PlanProgress:
    """Sum up the progress of the plan."""
    return counter.progress(
        ledger,
        [counts for worker in workers for counts in worker.counts.values()],
        workers=sum(worker.is_up for worker in workers),
        waiting_workers=sum(worker.is_waiting for worker in workers),
        by_worker=[worker.progress() for worker in workers if worker.is_up],
    )
