"""What is left of a plan, and what happens to a shard whose worker died or raised. Pure bookkeeping, no Ray.

A shard in the hands of a worker that died goes back to the queue. The second time it is masked isolated, alone on its
worker. A shard that raises is tried once more and then set aside, so that the others go on. When only deaths or
failures follow each other, the run stops.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from storage.protocol.plans import PlannedShard

DEATHS_UNTIL_ISOLATED = 2
"""Deaths of workers with a shard in hand after which the shard is masked isolated."""
MAX_TRIES = 2
"""Attempts at a shard that raises."""
PATIENCE = 20
"""Most deaths, or failures, with no shard committed in between."""
PATIENCE_PER_WORKER = 2
"""More deaths or failures allowed for each worker: a cloud takes many machines back at once, a store fails for all."""


class PlanStopped(RuntimeError):
    """The run was given up: shard after shard failed, or worker after worker died, and nothing was committed."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A shard for a worker to mask."""

    shard: PlannedShard
    isolated: bool = False
    """Whether to mask image by image in a child process, with nothing else on the worker."""


class Ledger:
    """Where each missing shard of a plan is during one run: waiting, in hand, committed or failed."""

    def __init__(self, shards: Iterable[PlannedShard]) -> None:
        self.workers = 0
        """Number of workers there are now; set by whoever starts them."""
        self.deaths = 0
        self.committed: list[str] = []
        self.failed: dict[str, str] = {}
        """Error of each shard that was set aside, by name."""
        self._queue = deque(Job(shard=shard) for shard in shards)
        self._isolated: deque[Job] = deque()
        self._in_hand: set[str] = set()
        self._deaths_by_shard: Counter[str] = Counter()
        self._failures_by_shard: Counter[str] = Counter()
        self._deaths_in_a_row = self._failures_in_a_row = 0

    @property
    def left(self) -> int:
        """Jobs that are waiting or in hand."""
        return self.waiting + len(self._in_hand)

    @property
    def waiting(self) -> int:
        """Jobs that no worker has in hand."""
        return len(self._queue) + len(self._isolated)

    @property
    def is_over(self) -> bool:
        """Whether every shard is committed or failed."""
        return not self.left

    @property
    def _patience(self) -> int:
        return PATIENCE + PATIENCE_PER_WORKER * self.workers

    def take(self, *, is_idle: bool) -> Job | None:
        """Hand out the next job; isolated ones only to a worker that is idle. None where no job fits."""
        if is_idle and self._isolated:
            job = self._isolated.popleft()
        elif self._queue:
            job = self._queue.popleft()
        else:
            return None
        self._in_hand.add(job.shard.name)
        return job

    def record_done(self, job: Job) -> None:
        """Book that the job's shard is committed."""
        self._in_hand.remove(job.shard.name)
        self.committed.append(job.shard.name)
        self._deaths_in_a_row = self._failures_in_a_row = 0

    def record_death(self, jobs: Iterable[Job]) -> None:
        """Book that a worker died with these jobs in hand, and queue them again.

        Raises:
            PlanStopped: Too many workers died in a row.
        """
        self.deaths += 1
        self._deaths_in_a_row += 1
        for job in jobs:
            name = job.shard.name
            self._in_hand.remove(name)
            self._deaths_by_shard[name] += 1
            isolated = self._deaths_by_shard[name] >= DEATHS_UNTIL_ISOLATED
            (self._isolated if isolated else self._queue).append(Job(shard=job.shard, isolated=isolated))
        if self._deaths_in_a_row > self._patience:
            raise PlanStopped(
                f"{self._deaths_in_a_row} workers died one after the other and no shard was committed in between; most "
                "often the machine has too little memory for the model: take a smaller one or fewer workers"
            )

    def record_failure(self, job: Job, error: Exception) -> None:
        """Book that the job raised; queue it again, or set it aside after its last attempt.

        Raises:
            PlanStopped: Too many jobs failed in a row.
        """
        name = job.shard.name
        self._in_hand.remove(name)
        self._failures_by_shard[name] += 1
        self._failures_in_a_row += 1
        if self._failures_by_shard[name] < MAX_TRIES:
            (self._isolated if job.isolated else self._queue).append(job)
        else:
            self.failed[name] = f"{type(error).__name__}: {error}"
        if self._failures_in_a_row > self._patience:
            raise PlanStopped(f"{self._failures_in_a_row} shards failed one after the other: {error}") from error
