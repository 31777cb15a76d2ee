"""A mask shard's input and output: its images are read; masks, rejects and statistics are committed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.automatic.diagnostics import Diagnostics
from stages.fully_automatic.stats import MaskStats
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.protocol.commits import Commit
from storage.protocol.inputs import image_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Reject, Stage


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What became of a shard."""

    plan_id: str
    shard: str
    images: int
    masks: int
    rejects: int
    seconds: float
    """Duration of reading and masking, by the record."""
    is_new: bool
    """Whether the call that returned this committed the shard; False where it was committed before."""
    seconds_by_part: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Seconds of a new shard by part: "read", "wait" (for the worker's other shard), "mask", "write"."""

    @classmethod
    def from_commit(cls, commit: Commit, *, is_new: bool) -> "ShardResult":
        """Read the result from the shard's record."""
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
    """Read the shard's record; None where it is not committed."""
    try:
        return dataset.commit_of(plan.address(shard))
    except NotFound:
        return None


def read_images(dataset: Dataset, plan: Plan, shard: PlannedShard) -> list[tuple[ImageRecord, bytes]]:
    """Read the images to mask for a shard; in a redo that keeps masks, only the images rejected before."""
    kept = _kept_commit(dataset, plan, shard)
    rejected = {reject.source_sha256 for reject in kept.rejects} if kept else set()
    return [
        (image, data)
        for images in image_inputs(shard.inputs)
        for image, data in dataset.read_images(images)
        if not kept or image.source_sha256 in rejected
    ]


def _kept_commit(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit | None:
    """Find the record whose masks a redo keeps: one with rejects and of the same settings. Only its rejects are redone.

    None where the plan is no redo or the whole shard is redone, as one without rejects is.
    """
    if not plan.redoes:
        return None
    previous = dataset.previous(plan, shard)
    same_settings = dataset.plan(previous.made_by).settings == plan.settings
    return previous if same_settings and previous.rejects else None


def write_outcomes(
    dataset: Dataset, plan: Plan, shard: PlannedShard, outcomes: Sequence[MaskedImage | Reject], *, seconds: float
) -> ShardResult:
    """Commit a shard's masks, rejects and statistics; in a redo, together with the masks that are kept."""
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
    )
    return ShardResult.from_commit(commit, is_new=True)


def _stats(masked: Sequence[MaskedImage], kept: Commit | None) -> MaskStats:
    """Sum the diagnostics of the shard's images, with those of the masks that a redo keeps."""
    new = MaskStats(
        diagnostics=sum((outcome.diagnostics for outcome in masked), Diagnostics()),
        without_masks={outcome.image.key: outcome.diagnostics for outcome in masked if not outcome.masks},
    )
    return MaskStats.total([MaskStats.from_json(kept.stats), new]) if kept else new


def reject_image(image: ImageRecord, reason: str, detail: str) -> Reject:
    """The reject of an image that this stage could not mask."""
    return Reject(
        source=image.source,
        source_sha256=image.source_sha256,
        reason=reason,
        detail=detail,
        stage=Stage.FULLY_AUTOMATIC,
    )
