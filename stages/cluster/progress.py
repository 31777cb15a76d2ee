"""How far a plan of mask shards is: committed before this run, committed by it, in the hands of its workers."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stages.cluster.ledger import Ledger
from stages.fully_automatic.outcomes import MaskedImage, ShardResult
from stages.fully_automatic.plan import count_images
from storage.protocol.commits import Commit
from storage.protocol.plans import Plan
from storage.records import Reject


@dataclass(frozen=True, kw_only=True)
class WorkerProgress:
    """What one worker has done in this run."""

    place: str
    """Host and process id."""
    images: int
    masks: int
    seconds: float
    """Time since the worker first answered."""

    @property
    def images_per_s(self) -> float:
        """Images per second; 0 before the first answer."""
        return self.images / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class PlanProgress:
    """How far a plan is, shards of earlier runs included."""

    shards: int
    shards_total: int
    images: int
    """Images masked or rejected."""
    images_total: int
    masks: int
    rejects: int
    new_images: int
    """Images masked or rejected by this run."""
    new_masks: int
    """Masks of this run."""
    workers: int
    """Workers that have answered and are up."""
    waiting_workers: int
    """Workers that have not answered for a while: the cluster has no room for them, or they still start."""
    deaths: int
    """Deaths of workers in this run."""
    seconds: float
    """Duration of this run so far."""
    by_worker: tuple[WorkerProgress, ...] = ()
    """Progress of each worker that is up."""


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """What a plan holds at the end of a run."""

    plan_id: str
    commits: tuple[Commit, ...]
    failed: Mapping[str, str]
    """Shards that raised on every attempt, and their last error; they stay missing."""
    new_shards: int
    """Shards committed by this run."""
    new_images: int
    """Images masked or rejected by this run."""
    new_masks: int
    """Masks of this run."""
    workers: int
    """Workers started by this run."""
    deaths: int
    """Deaths of workers in this run."""
    seconds: float
    """Duration of this run."""

    @property
    def images(self) -> int:
        """Images with a row, with masks or without."""
        return sum(commit.images for commit in self.commits)

    @property
    def masks(self) -> int:
        """Masks of all shards."""
        return sum(commit.masks for commit in self.commits)

    @property
    def rejects(self) -> tuple[Reject, ...]:
        """Rejects of all shards."""
        return tuple(reject for commit in self.commits for reject in commit.rejects)


@dataclass
class ImageCounts:
    """Counts of images and of what became of them."""

    images: int = 0
    """Images masked or rejected."""
    masks: int = 0
    rejects: int = 0

    def __add__(self, other: "ImageCounts") -> "ImageCounts":
        return ImageCounts(self.images + other.images, self.masks + other.masks, self.rejects + other.rejects)

    def add_outcome(self, outcome: MaskedImage | Reject) -> None:
        """Count one image."""
        self.images += 1
        if isinstance(outcome, Reject):
            self.rejects += 1
        else:
            self.masks += len(outcome.masks)

    @classmethod
    def of_shard(cls, shard: ShardResult) -> "ImageCounts":
        """Counts of a committed shard."""
        return cls(images=shard.images + shard.rejects, masks=shard.masks, rejects=shard.rejects)

    @classmethod
    def total(cls, counts: Iterable["ImageCounts"]) -> "ImageCounts":
        """Sum the counts."""
        return sum(counts, cls())


@dataclass(frozen=True, kw_only=True)
class ActorStatus:
    """An actor's answer to how it is doing."""

    place: str
    """Host and process id."""
    counts: dict[str, ImageCounts]
    """Counts so far of each shard in its hands, by name."""


class PlanCounter:
    """Adds up what is committed and what is under way."""

    def __init__(self, plan: Plan, commits: Sequence[Commit], began: float) -> None:
        self._plan, self._began = plan, began
        self._images_total = sum(count_images(shard) for shard in plan.shards)
        self._shards_before = len(commits)
        self._before = ImageCounts.total(
            ImageCounts.of_shard(ShardResult.from_commit(commit, is_new=False)) for commit in commits
        )
        self._new = ImageCounts()

    def add(self, result: ShardResult) -> None:
        """Count a shard that was committed during this run."""
        self._new += ImageCounts.of_shard(result)

    def progress(
        self,
        ledger: Ledger,
        under_way: Iterable[ImageCounts],
        *,
        workers: int,
        waiting_workers: int = 0,
        by_worker: Sequence[WorkerProgress] = (),
    ) -> PlanProgress:
        """Sum up the progress; `under_way` holds the counts of the shards in hand, the rest is as in PlanProgress."""
        new = ImageCounts.total([self._new, *under_way])
        all_counts = self._before + new
        return PlanProgress(
            shards=self._shards_before + len(ledger.committed),
            shards_total=len(self._plan.shards),
            images=all_counts.images,
            images_total=self._images_total,
            masks=all_counts.masks,
            rejects=all_counts.rejects,
            new_images=new.images,
            new_masks=new.masks,
            workers=workers,
            waiting_workers=waiting_workers,
            deaths=ledger.deaths,
            seconds=time.perf_counter() - self._began,
            by_worker=tuple(by_worker),
        )

    def result(self, ledger: Ledger, commits: Iterable[Commit], *, workers: int) -> PlanResult:
        """Sum up the run at its end; `commits` are all records of the plan, `workers` all that were started."""
        return PlanResult(
            plan_id=self._plan.plan_id,
            commits=tuple(commits),
            failed=dict(ledger.failed),
            new_shards=len(ledger.committed),
            new_images=self._new.images,
            new_masks=self._new.masks,
            workers=workers,
            deaths=ledger.deaths,
            seconds=time.perf_counter() - self._began,
        )
