"""How far a plan of mask shards is: committed before, committed by this run, in the hands of its workers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.cluster.ledger import Ledger
from stages.fully_automatic.outcomes import MaskedImage, ShardResult
from stages.fully_automatic.plan import count_images
from storage.protocol.commits import Commit
from storage.protocol.plans import Plan
from storage.records import Reject


@dataclass(frozen=True, kw_only=True)
class WorkerProgress:
    """What one worker of this run has done."""

    place: str
    """Host and process id."""
    images: int
    masks: int
    seconds: float
    """Since it first answered."""

    @property
    def images_per_s(self) -> float:
        """Images done per second so far; 0 at the start."""
        return self.images / self.seconds if self.seconds else 0.0


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
    waiting_workers: int  # that the cluster has had no room for, for a while
    deaths: int
    seconds: float  # of this run
    by_worker: tuple[WorkerProgress, ...] = ()  # those at work


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """What a plan holds at the end of a run. `failed`: shards that could not be made, and why; they stay missing."""

    plan_id: str
    commits: tuple[Commit, ...]
    failed: Mapping[str, str]
    new_shards: int  # of this run, as the next two
    new_images: int
    new_masks: int
    workers: int
    deaths: int
    seconds: float

    @property
    def images(self) -> int:
        """Number of images of all committed shards."""
        return sum(commit.images for commit in self.commits)

    @property
    def masks(self) -> int:
        """Number of masks of all committed shards."""
        return sum(commit.masks for commit in self.commits)

    @property
    def rejects(self) -> tuple[Reject, ...]:
        """Rejects of all committed shards."""
        return tuple(reject for commit in self.commits for reject in commit.rejects)


@dataclass
class ShardCount:
    """Photographs of a shard that is being made."""

    images: int = 0
    masks: int = 0
    rejects: int = 0

    def add(self, outcome: MaskedImage | Reject) -> None:
        """A photograph is done."""
        self.images += 1
        if isinstance(outcome, Reject):
            self.rejects += 1
        else:
            self.masks += len(outcome.masks)


class Tally:
    """Adds up what is committed and what is under way."""

    def __init__(self, plan: Plan, commits: list[Commit], began: float) -> None:
        self._plan, self._began = plan, began
        self._images_total = sum(count_images(shard) for shard in plan.shards)
        self._before = ShardCount(
            images=sum(commit.images + len(commit.rejects) for commit in commits),
            masks=sum(commit.masks for commit in commits),
            rejects=sum(len(commit.rejects) for commit in commits),
        )
        self._shards_before = len(commits)
        self.new = ShardCount()

    def add(self, result: ShardResult) -> None:
        """A shard of this run is committed."""
        self.new.images += result.images + result.rejects
        self.new.masks += result.masks
        self.new.rejects += result.rejects

    def progress(
        self,
        ledger: Ledger,
        under_way: Sequence[ShardCount],
        *,
        workers: int,
        waiting_workers: int = 0,
        by_worker: Sequence[WorkerProgress] = (),
    ) -> PlanProgress:
        """`under_way`: counts of the shards in hand; `workers`: how many have answered, and how many could not yet."""
        new_images = self.new.images + sum(count.images for count in under_way)
        new_masks = self.new.masks + sum(count.masks for count in under_way)
        rejects = self.new.rejects + sum(count.rejects for count in under_way)
        return PlanProgress(
            shards=self._shards_before + len(ledger.made),
            shards_total=len(self._plan.shards),
            images=self._before.images + new_images,
            images_total=self._images_total,
            masks=self._before.masks + new_masks,
            rejects=self._before.rejects + rejects,
            new_images=new_images,
            new_masks=new_masks,
            workers=workers,
            waiting_workers=waiting_workers,
            deaths=ledger.deaths,
            seconds=time.perf_counter() - self._began,
            by_worker=tuple(by_worker),
        )
