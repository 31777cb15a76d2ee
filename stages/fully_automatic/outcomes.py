"""What comes into a mask shard and what becomes of it: images read, outcomes, statistics, the commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.automatic.diagnostics import Diagnostics
from stages.fully_automatic.plan import STAGE
from stages.fully_automatic.stats import MaskStats
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.protocol.commits import Commit
from storage.protocol.inputs import image_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Reject


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What became of a shard. `made`: by this call; else it was there when the call began."""

    plan_id: str
    shard: str
    images: int
    masks: int
    rejects: int
    seconds: float
    made: bool
    seconds_by_part: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Where the time of a shard made here went: "read", "wait" (for the worker's other shard), "mask", "write"."""


@dataclass(frozen=True, kw_only=True)
class MaskedImage:
    """One photograph with its masks."""

    image: ImageRecord
    masks: list[MaskRecord]
    diagnostics: Diagnostics
    seconds: float


def committed(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit | None:
    """The shard's record, where it has one."""
    try:
        return dataset.commit_of(plan.address(shard))
    except NotFound:
        return None


def result_of(commit: Commit, *, made: bool) -> ShardResult:
    """What a record says, as a result."""
    return ShardResult(
        plan_id=commit.plan_id,
        shard=commit.shard,
        images=commit.images,
        masks=commit.masks,
        rejects=len(commit.rejects),
        seconds=commit.seconds,
        made=made,
    )


def read_photographs(dataset: Dataset, plan: Plan, shard: PlannedShard) -> list[tuple[ImageRecord, bytes]]:
    """The images that a mask shard is made from; in a redo, those that `kept_of` has not."""
    kept = kept_of(dataset, plan, shard)
    rejected = {reject.source_sha256 for reject in kept.rejects} if kept else set()
    return [
        (image, data)
        for images in image_inputs(shard.inputs)
        for image, data in dataset.read_images(images)
        if not kept or image.source_sha256 in rejected
    ]


def kept_of(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit | None:
    """The record whose masks a redo keeps: one with rejects, made with the same settings. Only those are tried again.

    A shard without rejects is redone as a whole.
    """
    if not plan.redoes:
        return None
    previous = dataset.previous(plan, shard)
    same = dataset.plan(previous.made_by).settings == plan.settings
    return previous if same and previous.rejects else None


def write_outcomes(
    dataset: Dataset, plan: Plan, shard: PlannedShard, outcomes: Sequence[MaskedImage | Reject], *, seconds: float
) -> ShardResult:
    """Commits a shard's masks, rejects and statistics; in a redo, beside the masks that are kept."""
    kept = kept_of(dataset, plan, shard)
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
    )
    return result_of(commit, made=True)


def _stats(masked: Sequence[MaskedImage], kept: Commit | None) -> MaskStats:
    """The shard's diagnostics, with those of the masks that a redo keeps."""
    new = MaskStats(
        diagnostics=sum((outcome.diagnostics for outcome in masked), Diagnostics()),
        without_masks={outcome.image.key: outcome.diagnostics for outcome in masked if not outcome.masks},
    )
    return MaskStats.total([MaskStats.from_json(kept.stats), new]) if kept else new


def reject(image: ImageRecord, reason: str, detail: str) -> Reject:
    """A photograph of the dataset that this stage could not mask."""
    return Reject(source=image.source, source_sha256=image.source_sha256, reason=reason, detail=detail, stage=STAGE)
