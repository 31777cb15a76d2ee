"""Ledger of a plan's run: the shards that are left, and what happens to a shard whose worker died or raised an error.

A shard in the hands of a worker that died goes back to the queue. After a second death it is masked isolated, alone on
its worker. A shard that raises an error is tried once more and then set aside, so that the others go on. The run stops
when deaths or failures follow each other with no shard committed in between. This is pure bookkeeping without Ray.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from storage.protocol.plans import PlannedShard

DEATHS_UNTIL_ISOLATED = 2
"""Number of worker deaths with a shard in hand after which the shard is masked isolated."""
MAX_TRIES = 2
"""Maximum number of attempts at a shard that raises an error."""
PATIENCE = 20
"""Maximum number of deaths, or of failures, with no shard committed in between."""
PATIENCE_PER_WORKER = 2
"""Number of further deaths or failures allowed for each worker, since a cloud takes back many machines at once and a
broken store fails for every worker.
"""


class PlanStopped(RuntimeError):
    """Error of a run that was given up: shards kept failing or workers kept dying, and no shard was committed."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Job of a worker: one shard to mask, in the worker's process or in child processes."""

    shard: PlannedShard
    isolated: bool = False
    """Whether to mask image by image in a child process, with nothing else on the worker."""


class Ledger:
    """State of each shard that a run has to mask: waiting, in hand of a worker, committed or failed."""

    def __init__(self, shards: Iterable[PlannedShard]) -> None:
        self.workers = 0
        """Number of workers at present, which the code that starts workers sets."""
        self.deaths = 0
        self.committed: list[str] = []
        self.failed: dict[str, str] = {}
        """Error of each shard that was set aside, by the shard's name."""
        self._queue = deque(Job(shard=shard) for shard in shards)
        self._isolated: deque[Job] = deque()
        self._in_hand: set[str] = set()
        self._deaths_by_shard: Counter[str] = Counter()
        self._failures_by_shard: Counter[str] = Counter()
        self._deaths_in_a_row = self._failures_in_a_row = 0

    @property
    def left(self) -> int:
        """Number of jobs that are waiting or in hand."""
        return self.waiting + len(self._in_hand)

    @property
    def waiting(self) -> int:
        """Number of jobs that no worker has in hand."""
        return len(self._queue) + len(self._isolated)

    @property
    def is_over(self) -> bool:
        """Whether every shard is committed or failed."""
        return not self.left

    @property
    def _patience(self) -> int:
        return PATIENCE + PATIENCE_PER_WORKER * self.workers

    def take(self, *, is_idle: bool) -> Job | None:
        """Hand out a waiting job, or return None if no job fits; only an idle worker gets an isolated job."""
        if is_idle and self._isolated:
            job = self._isolated.popleft()
        elif self._queue:
            job = self._queue.popleft()
        else:
            return None
        self._in_hand.add(job.shard.name)
        return job

    def record_done(self, job: Job) -> None:
        """Record that the job's shard is committed."""
        self._in_hand.remove(job.shard.name)
        self.committed.append(job.shard.name)
        self._deaths_in_a_row = self._failures_in_a_row = 0

    def record_death(self, jobs: Iterable[Job]) -> None:
        """Record that a worker died while it masked these jobs' shards, and queue the jobs again.

        Raises:
            PlanStopped: Too many workers died with no shard committed in between.
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
        """Record that a job raised an error; queue the job again, or set it aside after its last attempt.

        Raises:
            PlanStopped: Too many jobs failed with no shard committed in between.
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
