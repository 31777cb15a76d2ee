"""Handle that the driver has on a worker's actor: whether it is up, its jobs and its progress."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayActorError, RuntimeEnvSetupError

from stages.cluster.ledger import Job, PlanStopped
from stages.cluster.progress import ImageCounts, WorkerProgress
from stages.fully_automatic.outcomes import ShardResult
from storage.protocol.plans import Plan

RESTART_PATIENCE_S = 60.0
"""Time in seconds that Ray has to restart an actor that died; after it a new actor replaces the old one."""
WAITING_PATIENCE_S = 30.0
"""Time in seconds without an answer after which a worker is reported as waiting for room."""
WORKER_DIED = (RayActorError, OutOfMemoryError)
"""Errors of a call whose worker died. OutOfMemoryError, from Ray's memory monitor, is no RayActorError."""
CANNOT_START = (RuntimeEnvSetupError, ActorUnschedulableError)
"""Errors of an actor that cannot start, however often it is restarted."""


class WorkerHandle:
    """Handle of a worker's actor in the process that hands out the shards.

    Never assign a shard to an actor that has not answered since it started or last died. If Ray cannot place the actor,
    the shard would hang.
    """

    def __init__(self, make_actor: Callable[[], Any]) -> None:
        self._make_actor = make_actor
        self.actor = make_actor()
        self.jobs: dict[ray.ObjectRef[Any], Job] = {}
        """Jobs in hand, by the call that masks the job's shard."""
        self.counts: dict[str, ImageCounts] = {}
        """Counts so far of each shard in hand, by the shard's name, as the actor last reported."""
        self.has_answered = False
        self._place = ""
        self._committed = ImageCounts()
        self._status_call: ray.ObjectRef[Any] | None = None
        self._down_since: float | None = None
        self._silent_since = self._began = time.perf_counter()

    @property
    def is_up(self) -> bool:
        """Whether the actor has answered since it started or last died."""
        return self.has_answered and self._down_since is None

    @property
    def is_waiting(self) -> bool:
        """Whether the actor has been silent for a while, most often because the cluster has no room for the actor."""
        return not self.is_up and time.perf_counter() - self._silent_since > WAITING_PATIENCE_S

    @property
    def is_isolating(self) -> bool:
        """Whether the actor masks a shard in child processes and must get no other shard."""
        return any(job.isolated for job in self.jobs.values())

    def start(self, plan: Plan, job: Job) -> None:
        """Start a job on the actor."""
        method = self.actor.mask_shard_isolated if job.isolated else self.actor.mask_shard
        self.jobs[method.remote(plan.plan_id, job.shard.name)] = job

    def finish(self, call: "ray.ObjectRef[Any]", result: ShardResult) -> Job:
        """Count the committed shard of a finished call, and return the call's job."""
        job = self.jobs.pop(call)
        self.counts.pop(job.shard.name, None)
        self._committed += ImageCounts.of_shard(result)
        return job

    def mark_dead(self) -> list[Job]:
        """Record that the actor died, and return the jobs that it had in hand."""
        lost = list(self.jobs.values())
        self.jobs.clear()
        self.counts.clear()
        self._down_since, self._status_call = time.perf_counter(), None
        self._silent_since = self._down_since
        return lost

    def progress(self) -> WorkerProgress:
        """Return the worker's images, masks and time in this run, including those of shards that are being masked."""
        counts = ImageCounts.total([self._committed, *self.counts.values()])
        return WorkerProgress(
            place=self._place, images=counts.images, masks=counts.masks, seconds=time.perf_counter() - self._began
        )

    def poll(self) -> None:
        """Take the actor's status if the status has arrived, and request a new one; do not wait for an answer.

        Raises:
            PlanStopped: The actor can never start.
        """
        # Take the answer
        if self._status_call is not None:
            ready, _ = ray.wait([self._status_call], timeout=0)
            if ready:
                self._take_status(self._status_call)

        # Replace an actor that Ray did not restart in time
        if self._down_since is not None and time.perf_counter() - self._down_since > RESTART_PATIENCE_S:
            ray.kill(self.actor)
            self.actor, self._status_call, self._down_since = self._make_actor(), None, time.perf_counter()

        # Ask again
        if self._status_call is None:
            self._status_call = self.actor.status.options(concurrency_group="watch").remote()

    def _take_status(self, call: "ray.ObjectRef[Any]") -> None:
        self._status_call = None
        try:
            status = ray.get(call)
        except CANNOT_START as error:
            raise cannot_start(error) from error
        except WORKER_DIED as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise cannot_start(error) from error
            if not self.has_answered and self._down_since is None:
                self._down_since = time.perf_counter()
            return  # still down, or its jobs will fail with the same error
        in_hand = {job.shard.name for job in self.jobs.values()}
        self.counts = {shard: count for shard, count in status.counts.items() if shard in in_hand}
        self._place = status.place
        if not self.has_answered:
            self._began = time.perf_counter()
        self.has_answered, self._down_since = True, None


def cannot_start(error: Exception) -> PlanStopped:
    """Make the error that stops a run because its actors can never start; the message gives Ray's reason."""
    why = str(error).strip().splitlines()[-1]
    return PlanStopped(f"a worker cannot start: {why}; install the same gigamask on every node")
