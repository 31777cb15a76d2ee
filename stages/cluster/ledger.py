"""What is left of a plan, and what becomes of a shard whose worker died or raised. Pure bookkeeping, no Ray.

A shard that was in hand when its worker died goes back to the queue; the second time it is to be made alone, isolated.
A shard that raises is tried once more and then set aside, so that the others go on. Where nothing but deaths or
failures come, the run stops.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from storage.protocol.plans import PlannedShard

DEATHS_UNTIL_ISOLATED = 2
TRIES = 2  # of a shard that raises
PATIENCE = 20  # deaths, or failures, with no shard made in between
PATIENCE_PER_WORKER = 2  # more of them: a cloud takes many machines back at once, a store fails for all


class PlanStopped(RuntimeError):
    """The run was given up: shard after shard failed, or worker after worker died, with nothing done in between."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A shard to be made by a worker; `isolated`: photograph by photograph in a child process, alone on its worker."""

    shard: PlannedShard
    isolated: bool = False


class Ledger:
    """Of one run over a plan's missing shards."""

    def __init__(self, shards: Iterable[PlannedShard]) -> None:
        self.workers = 0  # how many there are now; set by who starts them
        self.deaths = 0
        self.made: list[str] = []
        self.failed: dict[str, str] = {}
        self._queue = deque(Job(shard=shard) for shard in shards)
        self._isolated: deque[Job] = deque()
        self._in_hand: set[str] = set()
        self._deaths_of: Counter[str] = Counter()
        self._raised: Counter[str] = Counter()
        self._deaths_in_a_row = self._failures_in_a_row = 0

    @property
    def left(self) -> int:
        """Jobs that are not over."""
        return self.waiting + len(self._in_hand)

    @property
    def waiting(self) -> int:
        """Jobs nobody has in hand."""
        return len(self._queue) + len(self._isolated)

    @property
    def is_over(self) -> bool:
        """Whether no shard is left to do."""
        return not self.left

    @property
    def _patience(self) -> int:
        return PATIENCE + PATIENCE_PER_WORKER * self.workers

    def take(self, *, alone: bool) -> Job | None:
        """The next job for a worker; isolated ones go only to a worker that has nothing else."""
        if alone and self._isolated:
            job = self._isolated.popleft()
        elif self._queue:
            job = self._queue.popleft()
        else:
            return None
        self._in_hand.add(job.shard.name)
        return job

    def done(self, job: Job) -> None:
        """The job's shard is committed."""
        self._in_hand.remove(job.shard.name)
        self.made.append(job.shard.name)
        self._deaths_in_a_row = self._failures_in_a_row = 0

    def died(self, jobs: Iterable[Job]) -> None:
        """A worker died with these in hand. Raises PlanStopped."""
        self.deaths += 1
        self._deaths_in_a_row += 1
        for job in jobs:
            name = job.shard.name
            self._in_hand.remove(name)
            self._deaths_of[name] += 1
            isolated = self._deaths_of[name] >= DEATHS_UNTIL_ISOLATED
            (self._isolated if isolated else self._queue).append(Job(shard=job.shard, isolated=isolated))
        if self._deaths_in_a_row > self._patience:
            raise PlanStopped(
                f"{self._deaths_in_a_row} workers died one after the other and no shard was made in between; most "
                "often the machine has too little memory for the model: take a smaller one or fewer workers"
            )

    def raised(self, job: Job, error: Exception) -> None:
        """The job's shard could not be made. Raises PlanStopped."""
        name = job.shard.name
        self._in_hand.remove(name)
        self._raised[name] += 1
        self._failures_in_a_row += 1
        if self._raised[name] < TRIES:
            (self._isolated if job.isolated else self._queue).append(job)
        else:
            self.failed[name] = f"{type(error).__name__}: {error}"
        if self._failures_in_a_row > self._patience:
            raise PlanStopped(f"{self._failures_in_a_row} shards failed one after the other: {error}") from error
