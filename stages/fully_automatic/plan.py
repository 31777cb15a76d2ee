"""Plan of the images to mask: each mask shard is made from a range of images of one image shard."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise

from engine.automatic.config import GenerateConfig
from engine.model.weights import Model
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange, Images, PlanKind, ShardAddress, image_inputs, image_shard
from storage.protocol.plans import Plan, PlannedShard
from storage.records import Stage

SHARDS_PER_PLAN = 64
"""Number of shards that a plan aims at, which lets a dozen workers finish at about the same time."""
MAX_IMAGES = 256
"""Maximum number of images in one mask shard, and so the most work that is lost with a worker."""
BATCH_SETTINGS = ("points_per_batch", "crops_per_batch")
"""Names of the generator's settings that change its speed and memory but not its masks."""


def plan_masks(
    dataset: Dataset, model: Model, config: GenerateConfig, *, images_per_shard: int | None = None
) -> list[Plan]:
    """Return the plans that mask every image of the dataset with this model and config, oldest first.

    Existing plans are kept, so that a second call of the same command continues these plans. Images that no existing
    plan covers get a new plan. Unless `images_per_shard` is given, the number of images alone decides the length of a
    mask shard, so that another machine can continue a plan. For example, 20 images make 20 shards, 1,000 images make 63
    shards of 16, and 16,384 or more images make shards of 256.
    """
    settings = plan_settings(model, config)
    plans = [plan for plan in dataset.plans() if plan.kind is PlanKind.MASKS and plan.settings == settings]
    fresh = _uncovered(dataset, plans)
    if fresh:
        total = sum(len(images.places) for images in fresh)
        length = images_per_shard or min(MAX_IMAGES, math.ceil(total / SHARDS_PER_PLAN))
        ranges = [piece for images in fresh for piece in _cut(images, length)]
        shards = [PlannedShard(name=f"{number:06d}", inputs=(images,)) for number, images in enumerate(ranges)]
        plans.append(dataset.new_plan(PlanKind.MASKS, shards, settings))
    return plans


def _uncovered(dataset: Dataset, plans: Sequence[Plan]) -> list[ImageRange]:
    """List the ranges of images that none of the plans masks.

    A redone image shard keeps its images and their places and appends new images; only the appended ones are listed.
    """
    planned: dict[str, list[Images]] = {}
    for images in (images for plan in plans for shard in plan.shards for images in image_inputs(shard.inputs)):
        planned.setdefault(image_shard(images).lineage, []).append(images)
    uncovered: list[ImageRange] = []
    for commit in dataset.image_shards():
        covered = _covered(dataset, planned.get(commit.address.lineage, []), commit.images)
        gaps = _gaps(covered, commit.images)
        uncovered += [ImageRange(shard=commit.address, start=start, stop=stop) for start, stop in gaps]
    return uncovered


def _covered(dataset: Dataset, planned: Sequence[Images], total: int) -> set[int]:
    """Collect the places below `total` of images that are planned."""
    covered: set[int] = set()
    for images in planned:
        places = range(dataset.commit_of(images).images) if isinstance(images, ShardAddress) else images.places
        last = bisect_left(places, total)
        covered.update(places[:last])
    return covered


def _gaps(covered: set[int], total: int) -> Iterator[tuple[int, int]]:
    """Find the longest ranges of places from 0 to `total` - 1 that hold no covered place, in ascending order."""
    bounds = [-1, *sorted(covered), total]
    return ((before + 1, after) for before, after in pairwise(bounds) if after - before > 1)


def plan_settings(model: Model, config: GenerateConfig) -> dict[str, object]:
    """Collect the settings that decide the masks, which a plan records.

    These settings are the model and the generator's settings, thresholds included. The numbers of points and crops
    computed together are left out, because these numbers change speed and memory but not masks.
    """
    card = model.card
    decided = replace(
        config,
        predicted_iou_threshold=_first(config.predicted_iou_threshold, card.predicted_iou_threshold),
        stability_threshold=_first(config.stability_threshold, card.stability_threshold),
    )
    generate = {name: value for name, value in asdict(decided).items() if name not in BATCH_SETTINGS}
    return {"stage": Stage.FULLY_AUTOMATIC, "model_id": model.model_id, "generate": generate}


def _first(given: float | None, default: float) -> float:
    return default if given is None else given


def _cut(images: ImageRange, length: int) -> list[ImageRange]:
    """Cut a range of images into ranges of nearly equal length, at most `length` each."""
    total = len(images.places)
    count = math.ceil(total / length)
    bounds = [images.start + total * i // count for i in range(count + 1)]
    return [ImageRange(shard=images.shard, start=start, stop=stop) for start, stop in pairwise(bounds)]


def count_images(shard: PlannedShard) -> int:
    """Count the images that are inputs of a planned mask shard; an input that is a whole image shard counts as 0."""
    return sum(len(images.places) for images in image_inputs(shard.inputs) if not isinstance(images, ShardAddress))
