"""Input and output of a mask shard: read its images; commit masks, rejects and statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.automatic.diagnostics import Diagnostics
from stages.fully_automatic.stats import MaskStats
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.protocol.commits import Commit, new_attempt_id
from storage.protocol.inputs import image_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Reject, Stage

PROGRAM_ERRORS = (AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError)
"""Errors that are faults of this program, and not of an image. The shard fails, and can be tried again."""


class ShardsFailed(RuntimeError):
    """Error of a call that could not make some shards; it has made all others.

    `failed` has the error of each, by `<plan>/<shard>`.
    """

    def __init__(self, failed: Mapping[str, str]) -> None:
        name, why = next(iter(failed.items()))
        super().__init__(f"{len(failed)} shards failed ({name}: {why}); call again to retry")
        self.failed = failed


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """Result of masking one shard, as the shard's commit record has it."""

    plan_id: str
    shard: str
    images: int
    masks: int
    rejects: int
    seconds: float
    """Duration in seconds of reading and masking, from the commit record."""
    is_new: bool
    """Whether the call that returned this result committed the shard; False if the shard was committed before."""
    seconds_by_part: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Duration in seconds of each part of a new shard: "read", "wait" (for the worker's other shard), "mask", "write".
    """

    @classmethod
    def from_commit(cls, commit: Commit, *, is_new: bool) -> "ShardResult":
        """Read the result of a shard from its commit record."""
        return cls(
            plan_id=commit.plan_id,
            shard=commit.shard,
            images=commit.images,
            masks=commit.masks,
            rejects=len(commit.rejects),
            seconds=commit.seconds,
            is_new=is_new,
        )


@dataclass(frozen=True, kw_only=True)
class MaskedImage:
    """One image with its masks."""

    image: ImageRecord
    masks: list[MaskRecord]
    diagnostics: Diagnostics
    seconds: float


def find_commit(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit | None:
    """Read the shard's commit record; return None if the shard is not committed."""
    try:
        return dataset.commit_of(plan.address(shard))
    except NotFound:
        return None


def read_images(dataset: Dataset, plan: Plan, shard: PlannedShard) -> list[tuple[ImageRecord, bytes]]:
    """Read the images of a shard; in a redo that keeps earlier masks, read only the images that were rejected."""
    kept = _kept_commit(dataset, plan, shard)
    rejected = {reject.source_sha256 for reject in kept.rejects} if kept else set()
    return [
        (image, data)
        for images in image_inputs(shard.inputs)
        for image, data in dataset.read_images(images)
        if not kept or image.source_sha256 in rejected
    ]


def _kept_commit(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit | None:
    """Find the commit record whose masks a redo keeps, so that only the images it rejected are masked again.

    Such a record has rejects and the same settings. Return None if the plan is no redo, or if the whole shard is redone
    because no such record exists.
    """
    if not plan.redoes:
        return None
    previous = dataset.previous(plan, shard)
    same_settings = dataset.plan(previous.made_by).settings == plan.settings
    return previous if same_settings and previous.rejects else None


def write_outcomes(
    dataset: Dataset, plan: Plan, shard: PlannedShard, outcomes: Sequence[MaskedImage | Reject], *, seconds: float
) -> ShardResult:
    """Commit a shard's masks, rejects and statistics; in a redo, commit the kept masks of the shard as well.

    The result is that of another worker, and not new, where that worker committed the shard first.
    """
    attempt_id = new_attempt_id(shard)
    kept = _kept_commit(dataset, plan, shard)
    masked = [outcome for outcome in outcomes if isinstance(outcome, MaskedImage)]
    rejects = [outcome for outcome in outcomes if isinstance(outcome, Reject)]
    commit = dataset.write_masks(
        plan,
        shard,
        [(outcome.image, outcome.masks) for outcome in masked],
        rejects,
        _stats(masked, kept).to_json(),
        model_id=str(plan.settings["model_id"]),
        seconds=seconds,
        inherited=kept,
        attempt_id=attempt_id,
    )
    return ShardResult.from_commit(commit, is_new=commit.attempt_id == attempt_id)


def _stats(masked: Sequence[MaskedImage], kept: Commit | None) -> MaskStats:
    """Sum the diagnostics of the shard's images and, in a redo, those of the masks it keeps."""
    new = MaskStats(
        diagnostics=sum((outcome.diagnostics for outcome in masked), Diagnostics()),
        without_masks={outcome.image.key: outcome.diagnostics for outcome in masked if not outcome.masks},
    )
    return MaskStats.total([MaskStats.from_json(kept.stats), new]) if kept else new


def reject_image(image: ImageRecord, reason: str, detail: str) -> Reject:
    """Make the reject of an image that the fully automatic stage could not mask."""
    return Reject(
        source=image.source,
        source_sha256=image.source_sha256,
        reason=reason,
        detail=detail,
        stage=Stage.FULLY_AUTOMATIC,
    )
