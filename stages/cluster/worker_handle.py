"""An actor as the driver sees it."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayActorError, RuntimeEnvSetupError

from stages.cluster.ledger import Job, PlanStopped
from stages.cluster.progress import ShardCount, WorkerProgress
from stages.fully_automatic.outcomes import ShardResult
from storage.protocol.plans import Plan

RESTART_PATIENCE_S = 60.0  # an actor that is not back by then is replaced
WAITING_PATIENCE_S = 30.0  # a worker that has not answered by then waits for room
WORKER_DIED = (RayActorError, OutOfMemoryError)  # the latter, from Ray's memory monitor, is no RayActorError
CANNOT_START = (RuntimeEnvSetupError, ActorUnschedulableError)  # nor are these, and no restart helps


class WorkerHandle:
    """An actor as the driver sees it.

    Never assign a shard to an actor that has not answered, or not again since it died: if Ray cannot place it, the
    shard would hang.
    """

    def __init__(self, make_actor: Callable[[], Any]) -> None:
        self._make_actor = make_actor
        self.actor = make_actor()
        self.jobs: dict[ray.ObjectRef[Any], Job] = {}
        self.counts: dict[str, ShardCount] = {}
        self.has_answered = False
        self._place = ""
        self._made = ShardCount()
        self._asked: ray.ObjectRef[Any] | None = None
        self._down_since: float | None = None
        self._silent_since = self._began = time.perf_counter()

    @property
    def is_up(self) -> bool:
        """Whether the actor has answered and has not died since."""
        return self.has_answered and self._down_since is None

    @property
    def is_waiting(self) -> bool:
        """Whether the cluster has had no room for it for a while."""
        return not self.is_up and time.perf_counter() - self._silent_since > WAITING_PATIENCE_S

    @property
    def is_isolating(self) -> bool:
        """Whether it has a shard in hand that it masks in a child process."""
        return any(job.isolated for job in self.jobs.values())

    def start(self, plan: Plan, job: Job) -> None:
        """Hand the actor a shard."""
        method = self.actor.run_isolated if job.isolated else self.actor.run
        self.jobs[method.remote(plan.plan_id, job.shard.name)] = job

    def end(self, ref: ray.ObjectRef[Any], result: ShardResult) -> Job:
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
        """What the worker has done and has in hand."""
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

    def _hear(self, ref: ray.ObjectRef[Any]) -> None:
        self._asked = None
        try:
            answer = ray.get(ref)
        except CANNOT_START as error:
            raise cannot_start(error) from error
        except WORKER_DIED as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise cannot_start(error) from error
            if not self.has_answered and self._down_since is None:
                self._down_since = time.perf_counter()
            return  # still down, or the loss will show in its jobs
        in_hand = {job.shard.name for job in self.jobs.values()}
        self.counts = {shard: count for shard, count in answer.counts.items() if shard in in_hand}
        self._place = answer.place
        if not self.has_answered:
            self._began = time.perf_counter()
        self.has_answered, self._down_since = True, None


def cannot_start(error: Exception) -> PlanStopped:
    """Make the error of a worker that no restart can help."""
    why = str(error).strip().splitlines()[-1]
    return PlanStopped(f"a worker cannot start: {why}; every node needs gigamask as it is here")
