"""Plan of the images to mask: each mask shard is made from a range of images of one image shard.

The ranges follow from the image shard alone. So two calls that see different states of the dataset plan the same mask
shards for the image shards that both of them see.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from itertools import pairwise

from engine.automatic.config import GenerateConfig
from engine.model.identity import ModelIdentity
from storage.dataset import Dataset
from storage.protocol.commits import Commit
from storage.protocol.inputs import ImageRange, Images, ImageSet, PlanKind, ShardAddress, image_inputs, image_shard
from storage.protocol.plans import Plan, PlannedShard
from storage.records import Stage

SHARDS_PER_PLAN = 64
"""Number of shards that a plan aims at, which lets a dozen workers finish at about the same time."""
MAX_IMAGES = 256
"""Maximum number of images in one mask shard, and so the most work that is lost with a worker."""
BATCH_SETTINGS = ("points_per_batch", "crops_per_batch")
"""Names of the generator's settings that change its speed and memory but not its masks."""


def plan_masks(
    dataset: Dataset,
    model: ModelIdentity,
    config: GenerateConfig,
    *,
    images_per_shard: int | None = None,
    only_unmasked: bool = False,
) -> list[Plan]:
    """Return the plans that mask every image of the dataset with this model and config, oldest first.

    Existing plans are kept, so that a second call of the same command continues these plans. Images that no existing
    plan covers get a new plan. Unless `images_per_shard` is given, the number of photos that were planned together with
    an image shard decides the length of its ranges. For example, 20 photos make 20 mask shards, 1,000 photos make 63
    shards of 16 images, and 16,384 or more photos make shards of 256. Copies of images that another shard holds are
    left out, as are erased images, and with `only_unmasked` the images that another model or other settings masked.
    """
    dataset.fold()  # decides which images are copies
    settings = plan_settings(model, config)
    every = [plan for plan in dataset.plans() if plan.kind is PlanKind.MASKS]
    plans = [plan for plan in every if plan.settings == settings]
    masked = _finished_shards(dataset, [plan for plan in every if plan not in plans]) if only_unmasked else []
    fresh = _uncovered(dataset, [shard for plan in plans for shard in plan.shards] + masked, images_per_shard)
    if fresh:
        plans.append(dataset.new_plan(PlanKind.MASKS, [PlannedShard.from_inputs(images) for images in fresh], settings))
    return plans


def names_model(dataset: Dataset, model: ModelIdentity) -> bool:
    """Tell whether a plan with a committed mask shard names a model, whatever its other settings."""
    masks = [plan for plan in dataset.plans() if plan.kind is PlanKind.MASKS]
    named = [plan for plan in masks if plan.settings.get("model_id") == model.model_id]
    return any(len(dataset.missing(plan)) < len(plan.shards) for plan in named)


def count_unmasked_images(dataset: Dataset) -> int:
    """Count the images without finished masks of the fully automatic stage, whatever the model and the settings."""
    dataset.fold()
    plans = [plan for plan in dataset.plans() if plan.kind is PlanKind.MASKS]
    return sum(len(images.places) for images in _uncovered(dataset, _finished_shards(dataset, plans), None))


def _finished_shards(dataset: Dataset, plans: Sequence[Plan]) -> list[PlannedShard]:
    """List the shards of the fully automatic stage that are made."""
    automatic = [plan for plan in plans if plan.settings.get("stage") == Stage.FULLY_AUTOMATIC]
    finished: list[PlannedShard] = []
    for plan in automatic:
        missing = {(shard.name, shard.generation) for shard in dataset.missing(plan)}
        finished += [shard for shard in plan.shards if (shard.name, shard.generation) not in missing]
    return finished


def _uncovered(
    dataset: Dataset, shards: Sequence[PlannedShard], images_per_shard: int | None
) -> list[ImageRange | ImageSet]:
    """List the images that none of the shards masks, cut into the inputs of mask shards."""
    planned: dict[str, list[Images]] = {}
    for images in (images for shard in shards for images in image_inputs(shard.inputs)):
        planned.setdefault(image_shard(images).lineage, []).append(images)
    duplicates, erasures = dataset.duplicates(), dataset.erasures()
    uncovered: list[ImageRange | ImageSet] = []
    for commit in dataset.image_shards():
        generations = _inherited(dataset, commit)
        left_out = _covered(planned.get(commit.address.lineage, []), generations)
        copies = duplicates.get(commit.address.lineage, frozenset())
        erased = erasures.images.keys() if erasures.touch(commit.address) else frozenset[int]()
        left_out |= _places_of(dataset, commit, copies | erased)
        length = images_per_shard or _length(dataset, generations[0])
        start = 0
        for generation in generations:
            if generation.images > start:
                added = ImageRange(shard=generation.address, start=start, stop=generation.images)
                uncovered += [images for piece in _cut(added, length) for images in _without(piece, left_out)]
            start = generation.images
    return uncovered


def _inherited(dataset: Dataset, commit: Commit) -> list[Commit]:
    """List the generations of an image shard that the newest one keeps, oldest first.

    A redo keeps the images before it, with their places, and appends others. A redo of a lost shard keeps none.
    """
    generations = [commit]
    while (newest := generations[0]).generation:
        before = dataset.commit_of(newest.address.before)
        if newest.parts[: len(before.parts)] != before.parts:
            break
        generations.insert(0, before)
    return generations


def _covered(planned: Sequence[Images], generations: Sequence[Commit]) -> set[int]:
    """Collect the places of images that are planned."""
    total = {commit.address: commit.images for commit in generations}
    covered: set[int] = set()
    for images in planned:
        shard = image_shard(images)
        if shard in total:
            covered.update(range(total[shard]) if isinstance(images, ShardAddress) else images.places)
    return covered


def _places_of(dataset: Dataset, commit: Commit, image_ids: Collection[int]) -> set[int]:
    """Find the places of images in their shard."""
    if not image_ids:
        return set()
    return {place for place, image_id in enumerate(dataset.image_ids_in(commit)) if image_id in image_ids}


def _length(dataset: Dataset, first: Commit) -> int:
    """Return how many images of an image shard a mask shard is made from."""
    photos = sum(len(shard.inputs) for shard in dataset.plan(first.made_by).shards)
    return max(1, min(MAX_IMAGES, math.ceil(photos / SHARDS_PER_PLAN)))


def _without(images: ImageRange, places: Collection[int]) -> list[ImageRange | ImageSet]:
    """Leave some places out of a range; the result is one range, one set or nothing."""
    kept = [place for place in images.places if place not in places]
    if not kept:
        return []
    if kept[-1] - kept[0] + 1 == len(kept):
        return [replace(images, start=kept[0], stop=kept[-1] + 1)]
    return [ImageSet(shard=images.shard, places=tuple(kept))]


def plan_settings(model: ModelIdentity, config: GenerateConfig) -> dict[str, object]:
    """Collect the settings that decide the masks, which a plan records.

    These settings are the model and the generator's settings, thresholds included. The numbers of points and crops
    computed together are left out, because these numbers change speed and memory but not masks.
    """
    decided = replace(
        config,
        predicted_iou_threshold=_first(config.predicted_iou_threshold, model.predicted_iou_threshold),
        stability_threshold=_first(config.stability_threshold, model.stability_threshold),
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
