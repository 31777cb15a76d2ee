"""Progress of a plan of mask shards: committed before the run, committed by the run, in the hands of its workers."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stages.cluster.ledger import Ledger
from stages.fully_automatic.outcomes import MaskedImage, ShardResult
from stages.fully_automatic.plan import count_images
from storage.dataset import Dataset
from storage.protocol.commits import Commit
from storage.protocol.plans import Plan
from storage.records import Reject


@dataclass(frozen=True, kw_only=True)
class WorkerProgress:
    """Progress of one worker since the run started."""

    place: str
    """Place of the worker: its host and process id."""
    images: int
    masks: int
    seconds: float
    """Time in seconds since the worker first answered."""

    @property
    def images_per_s(self) -> float:
        """Speed in images per second; 0 until the worker has answered."""
        return self.images / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class PlanProgress:
    """Progress of a plan; the counts include shards that earlier runs committed."""

    shards: int
    shards_total: int
    images: int
    """Number of images masked or rejected, earlier runs included."""
    images_total: int
    masks: int
    rejects: int
    new_images: int
    """Number of images masked or rejected by this run."""
    new_masks: int
    """Number of masks made by this run."""
    workers: int
    """Number of workers that have answered and are up."""
    waiting_workers: int
    """Number of workers that have not answered for a while: they are starting, or the cluster has no room for them."""
    deaths: int
    """Number of deaths of workers in this run."""
    seconds: float
    """Duration of this run so far, in seconds."""
    by_worker: tuple[WorkerProgress, ...] = ()
    """Progress of each worker that is up."""


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """State of a plan at the end of a run."""

    plan_id: str
    commits: tuple[Commit, ...]
    failed: Mapping[str, str]
    """Last error of each shard that raised on every attempt, by the shard's name; these shards stay missing."""
    new_shards: int
    """Number of shards committed by this run."""
    new_images: int
    """Number of images masked or rejected by this run."""
    new_masks: int
    """Number of masks made by this run."""
    workers: int
    """Number of workers started by this run."""
    deaths: int
    """Number of deaths of workers in this run."""
    seconds: float
    """Duration of this run in seconds."""

    @property
    def images(self) -> int:
        """Number of images in the plan's committed shards, with masks or without."""
        return sum(commit.images for commit in self.commits)

    @property
    def masks(self) -> int:
        """Number of masks in all committed shards."""
        return sum(commit.masks for commit in self.commits)

    @property
    def rejects(self) -> tuple[Reject, ...]:
        """Number of rejects in all committed shards."""
        return tuple(reject for commit in self.commits for reject in commit.rejects)


@dataclass
class ImageCounts:
    """Counts of images done, and of the masks and rejects made from these images."""

    images: int = 0
    """Number of images masked or rejected."""
    masks: int = 0
    rejects: int = 0

    def __add__(self, other: "ImageCounts") -> "ImageCounts":
        return ImageCounts(self.images + other.images, self.masks + other.masks, self.rejects + other.rejects)

    def add_outcome(self, outcome: MaskedImage | Reject) -> None:
        """Count one image, with its masks or as a reject."""
        self.images += 1
        if isinstance(outcome, Reject):
            self.rejects += 1
        else:
            self.masks += len(outcome.masks)

    @classmethod
    def of_shard(cls, shard: ShardResult) -> "ImageCounts":
        """Return the counts of a committed shard."""
        return cls(images=shard.images + shard.rejects, masks=shard.masks, rejects=shard.rejects)

    @classmethod
    def total(cls, counts: Iterable["ImageCounts"]) -> "ImageCounts":
        """Sum the counts."""
        return sum(counts, cls())


@dataclass(frozen=True, kw_only=True)
class ActorStatus:
    """Status that an actor reports: its place in the cluster and the counts of the shards it masks."""

    place: str
    """Place of the actor: its host and process id."""
    counts: dict[str, ImageCounts]
    """Counts so far of each shard in the actor's hands, by the shard's name."""


class PlanCounter:
    """Counter of the committed shards of a plan and of the shards that are being masked."""

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
        """Return the progress of the plan.

        `under_way` holds the counts of each shard that a worker is masking. The other arguments but `ledger` become the
        fields of the same names.
        """
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
        """Return the result of the run, at its end.

        `commits` are all commit records of the plan; `workers` counts all workers that were started.
        """
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


def count_finished(dataset: Dataset, plan: Plan, on_progress: Callable[[PlanProgress], None]) -> PlanResult:
    """Count a plan without missing shards, as `run_plan` would, without Ray."""
    commits = dataset.commits(plan)
    counter, ledger = PlanCounter(plan, commits, time.perf_counter()), Ledger(())
    on_progress(counter.progress(ledger, (), workers=0))
    return counter.result(ledger, commits, workers=0)
