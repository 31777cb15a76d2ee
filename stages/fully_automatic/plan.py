"""What there is to mask: image shards -> a plan of mask shards, each a run of images of one image shard."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise

from engine.automatic.config import GenerateConfig
from engine.model.weights import Model
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange, Images, PlanKind, ShardAddress, image_inputs, image_shard
from storage.protocol.plans import Plan, PlannedShard

STAGE = "fully_automatic"
SHARDS_OF_A_RUN = 64
"""A plan aims at so many shards: enough for a dozen workers to end together."""
MAX_IMAGES = 256
"""Of a mask shard; a lost worker loses no more."""
BATCHES = ("points_per_batch", "crops_per_batch")
"""Settings of the generator that change its speed and memory, not its masks."""


def plan_masks(
    dataset: Dataset, model: Model, config: GenerateConfig, *, images_per_shard: int | None = None
) -> list[Plan]:
    """The plans that mask every image shard of the dataset with this model and config, oldest first.

    Plans that are there are kept, so that the same command goes on with them; image shards that none of them covers
    get a new one. A mask shard is a run of images of one image shard. Its length depends on the number of images alone,
    never on the machine, so that a run can be continued elsewhere: 20 photographs make 20 shards, 1,000 make 63 of 16,
    16,384 and more make shards of 256.
    """
    settings = plan_settings(model, config)
    plans = [plan for plan in dataset.plans() if plan.kind is PlanKind.MASKS and plan.settings == settings]
    fresh = _uncovered(dataset, plans)
    if fresh:
        total = sum(len(images.places) for images in fresh)
        length = images_per_shard or min(MAX_IMAGES, math.ceil(total / SHARDS_OF_A_RUN))
        ranges = [piece for images in fresh for piece in _cut(images, length)]
        shards = [PlannedShard(name=f"{number:06d}", inputs=(images,)) for number, images in enumerate(ranges)]
        plans.append(dataset.new_plan(PlanKind.MASKS, shards, settings))
    return plans


def _uncovered(dataset: Dataset, plans: Sequence[Plan]) -> list[ImageRange]:
    """Ranges of images that none of the plans masks.

    A redone image shard keeps its images and their places, new ones come behind: only those are uncovered.
    """
    covered: dict[str, set[int]] = {}
    for images in (images for plan in plans for shard in plan.shards for images in image_inputs(shard.inputs)):
        covered.setdefault(image_shard(images).lineage, set()).update(_places(dataset, images))
    return [
        ImageRange(shard=commit.address, start=start, stop=stop)
        for commit in dataset.image_shards()
        for start, stop in _gaps(covered.get(commit.address.lineage, set()), commit.images)
    ]


def _places(dataset: Dataset, images: Images) -> Iterable[int]:
    return range(dataset.commit_of(images).images) if isinstance(images, ShardAddress) else images.places


def _gaps(covered: set[int], total: int) -> Iterator[tuple[int, int]]:
    """The longest ranges of 0 to `total` - 1 without a covered place, ascending."""
    bounds = [-1, *sorted(place for place in covered if place < total), total]
    return ((before + 1, after) for before, after in pairwise(bounds) if after - before > 1)


def plan_settings(model: Model, config: GenerateConfig) -> dict[str, object]:
    """What decides over the masks, as a plan records it: the model, and the generator's settings with its thresholds.

    How many points and crops are computed together is no part of it: it changes speed and memory, not masks.
    """
    card = model.card
    decided = replace(
        config,
        predicted_iou_threshold=_first(config.predicted_iou_threshold, card.predicted_iou_threshold),
        stability_threshold=_first(config.stability_threshold, card.stability_threshold),
    )
    generate = {name: value for name, value in asdict(decided).items() if name not in BATCHES}
    return {"stage": STAGE, "model_id": model.model_id, "generate": generate}


def _first(given: float | None, default: float) -> float:
    return default if given is None else given


def _cut(images: ImageRange, length: int) -> list[ImageRange]:
    """Cut a range into ranges of nearly equal length, at most `length` each."""
    total = len(images.places)
    count = math.ceil(total / length)
    bounds = [images.start + total * i // count for i in range(count + 1)]
    return [ImageRange(shard=images.shard, start=start, stop=stop) for start, stop in pairwise(bounds)]


def count_images(shard: PlannedShard) -> int:
    """How many images a planned mask shard is made from, as far as its plan says."""
    return sum(len(images.places) for images in image_inputs(shard.inputs) if not isinstance(images, ShardAddress))
