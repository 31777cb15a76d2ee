"""A plan of mask shards on Ray: one actor a worker, a shard a call; the only file that imports Ray.

Ray restarts an actor that died, but repeats no call: the loop here hands shards out again, so that it can count. What a
worker did twice or by half does no harm: the shard's commit record decides.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import (
    ActorUnschedulableError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
)
from ray.util.metrics import Counter

from stages.cluster.actor import ShardActor
from stages.cluster.ledger import Job, Ledger, PlanStopped
from stages.cluster.pool import Machine, PoolConfig, PoolSize, pool_size
from stages.cluster.progress import PlanProgress, PlanResult, ShardCount, Tally, WorkerProgress
from stages.fully_automatic.worker import MaskedImage, ShardFailed, ShardResult, ShardWorker
from storage.dataset import Dataset
from storage.protocol.plans import Plan
from storage.records import Reject

CALLS_IN_FLIGHT = 2  # one computes while the other reads or writes
POLL_S = 1.0
RESTART_PATIENCE_S = 60.0  # an actor that is not back by then is replaced
WAITING_PATIENCE_S = 30.0  # a worker that has not answered by then waits for room
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
    workers: list[_Worker] = []
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


@contextmanager
def cluster(config: PoolConfig, **local_options: Any) -> Iterator[None]:
    """Ray as this process has it already, or the cluster of the address, or one of this machine for the time being.

    `local_options`: of ray.init, for the cluster of this machine.
    """
    if ray.is_initialized():
        yield
        return
    # Threads that wait should sleep: on a machine with other work, spinning made two threads 9 times slower than one.
    environment = {"OMP_WAIT_POLICY": "PASSIVE"}
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", **environment}  # workers on this machine inherit it
    local: dict[str, Any] = {
        "object_store_memory": config.object_store_bytes,
        "include_dashboard": False,
        **local_options,
    }
    remote: dict[str, Any] = {"runtime_env": {"env_vars": environment}}
    ray.init(
        address=config.address or "local",
        log_to_driver=False,
        logging_level=logging.ERROR,
        **(remote if config.address else local),
    )
    # Even so Ray prints the death of a worker, to standard output, where a command's JSON goes. This is the switch that
    # Ray's own debugger uses; deaths are counted and reported here.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True


WORKER_DIED = (RayActorError, OutOfMemoryError)  # the latter, from Ray's memory monitor, is no RayActorError
CANNOT_START = (RuntimeEnvSetupError, ActorUnschedulableError)  # nor are these, and no restart helps


class RayMeters:
    """A worker's totals as Ray metrics: `ray_gigamask_images_total` and so on, by plan, node and process.

    The agent of each node exports them to Prometheus where `ray[default]` is installed; elsewhere they go nowhere.
    """

    def __init__(self) -> None:
        self._images = Counter("gigamask_images", "photographs done, masked or rejected", ("plan",))
        self._masks = Counter("gigamask_masks", "masks made", ("plan",))
        self._rejects = Counter("gigamask_rejects", "photographs that could not be masked", ("plan",))
        self._shards = Counter("gigamask_shards", "shards committed", ("plan",))
        self._seconds = Counter("gigamask_seconds", "seconds of work: read, wait, mask, write", ("plan", "part"))

    def image(self, plan_id: str, outcome: MaskedImage | Reject) -> None:
        plan = {"plan": plan_id}
        self._images.inc(1, plan)
        if isinstance(outcome, Reject):
            self._rejects.inc(1, plan)
        elif outcome.masks:
            self._masks.inc(len(outcome.masks), plan)

    def shard(self, result: ShardResult) -> None:
        self._shards.inc(1, {"plan": result.plan_id})
        for part, seconds in result.seconds_by_part.items():
            if seconds > 0:  # Ray refuses to count nothing
                self._seconds.inc(seconds, {"plan": result.plan_id, "part": part})


class _Worker:
    """An actor as the driver sees it. It is handed nothing before it answers, or, if it died, until it answers again:
    what one waits for that the cluster has no room for would never be made.
    """

    def __init__(self, make_actor: Callable[[], Any]) -> None:
        self._make_actor = make_actor
        self.actor = make_actor()
        self.jobs: dict[ray.ObjectRef, Job] = {}
        self.counts: dict[str, ShardCount] = {}
        self.has_answered = False
        self._place = ""
        self._made = ShardCount()
        self._asked: ray.ObjectRef | None = None
        self._down_since: float | None = None
        self._silent_since = self._began = time.perf_counter()

    @property
    def is_up(self) -> bool:
        return self.has_answered and self._down_since is None

    @property
    def is_waiting(self) -> bool:
        """Whether the cluster has had no room for it for a while."""
        return not self.is_up and time.perf_counter() - self._silent_since > WAITING_PATIENCE_S

    @property
    def is_isolating(self) -> bool:
        return any(job.isolated for job in self.jobs.values())

    def start(self, plan: Plan, job: Job) -> None:
        method = self.actor.run_isolated if job.isolated else self.actor.run
        self.jobs[method.remote(plan.plan_id, job.shard.name)] = job

    def end(self, ref: ray.ObjectRef, result: ShardResult) -> Job:
        """The call's shard is committed; returns its job."""
        job = self.jobs.pop(ref)
        self.counts.pop(job.shard.name, None)
        self._made.images += result.images + result.rejects
        self._made.masks += result.masks
        return job

    def lose(self) -> list[Job]:
        """The actor died; returns what it had in hand."""
        lost = list(self.jobs.values())
        self.jobs.clear()
        self.counts.clear()
        self._down_since, self._asked = time.perf_counter(), None
        self._silent_since = self._down_since
        return lost

    def progress(self) -> WorkerProgress:
        under_way = self.counts.values()
        return WorkerProgress(
            place=self._place,
            images=self._made.images + sum(count.images for count in under_way),
            masks=self._made.masks + sum(count.masks for count in under_way),
            seconds=time.perf_counter() - self._began,
        )

    def look(self) -> None:
        """Takes the counts if they have come and asks for the next; waits for nothing. Raises PlanStopped."""
        if self._asked is not None:
            ready, _ = ray.wait([self._asked], timeout=0)
            if ready:
                self._hear(self._asked)
        if self._down_since is not None and time.perf_counter() - self._down_since > RESTART_PATIENCE_S:
            ray.kill(self.actor)
            self.actor, self._asked, self._down_since = self._make_actor(), None, time.perf_counter()
        if self._asked is None:
            self._asked = self.actor.under_way.options(concurrency_group="watch").remote()

    def _hear(self, ref: ray.ObjectRef) -> None:
        self._asked = None
        try:
            answer = ray.get(ref)
        except CANNOT_START as error:
            raise _cannot_start(error) from error
        except WORKER_DIED as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise _cannot_start(error) from error
            if not self.has_answered and self._down_since is None:
                self._down_since = time.perf_counter()
            return  # still down, or the loss will show in its jobs
        in_hand = {job.shard.name for job in self.jobs.values()}
        self.counts = {shard: count for shard, count in answer.counts.items() if shard in in_hand}
        self._place = answer.place
        if not self.has_answered:
            self._began = time.perf_counter()
        self.has_answered, self._down_since = True, None


def _cannot_start(error: Exception) -> PlanStopped:
    why = str(error).strip().splitlines()[-1]
    return PlanStopped(f"a worker cannot start: {why}; every node needs gigamask as it is here")


class _Pool:
    """The workers of a run: as many as the machines of now have room for, unless their number is given."""

    def __init__(self, make_worker: Callable[[], ShardWorker], dataset_uri: str, config: PoolConfig) -> None:
        self.workers: list[_Worker] = []
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
        self.workers += [_Worker(make_actor) for _ in range(size.workers - len(self.workers))]


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


def _hand_out(plan: Plan, ledger: Ledger, workers: list[_Worker]) -> None:
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


def _collect(ledger: Ledger, workers: list[_Worker], tally: Tally) -> None:
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
            raise _cannot_start(error) from error
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


def _progress(tally: Tally, ledger: Ledger, workers: list[_Worker]) -> PlanProgress:
    under_way = [count for worker in workers for count in worker.counts.values()]
    return tally.progress(
        ledger,
        under_way,
        workers=sum(worker.is_up for worker in workers),
        waiting_workers=sum(worker.is_waiting for worker in workers),
        by_worker=[worker.progress() for worker in workers if worker.is_up],
    )
