"""What there is to mask: image shards -> a plan of mask shards, each a run of images of one image shard."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise

from engine.automatic.config import GenerateConfig
from engine.model.weights import Model
from storage.dataset import Dataset
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
    plans = [plan for plan in dataset.plans() if plan.kind == "masks" and plan.settings == settings]
    fresh = _uncovered(dataset, plans)
    if fresh:
        total = sum(len(images) for _, images in fresh)
        length = images_per_shard or min(MAX_IMAGES, math.ceil(total / SHARDS_OF_A_RUN))
        runs = [(address, run) for address, images in fresh for run in _runs(images, length)]
        shards = [
            PlannedShard(name=f"{number:06d}", inputs=(address, f"{run.start}:{run.stop}"))
            for number, (address, run) in enumerate(runs)
        ]
        plans.append(dataset.new_plan("masks", shards, settings))
    return plans


def _uncovered(dataset: Dataset, plans: Sequence[Plan]) -> list[tuple[str, range]]:
    """Addresses of image shards, with the images that none of the plans masks.

    A redone image shard keeps its images and their places, new ones come behind: only those are uncovered.
    """
    covered: dict[str, int] = {}
    for shard in (shard for plan in plans for shard in plan.shards):
        name = _without_generation(shard.inputs[0])
        covered[name] = max(covered.get(name, 0), run_of(shard).stop)
    all_images = [
        (commit.address, range(covered.get(_without_generation(commit.address), 0), commit.images))
        for commit in dataset.image_shards()
    ]
    return [(address, images) for address, images in all_images if images]


def _without_generation(address: str) -> str:
    return address.rpartition(".g")[0]


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


def _runs(images: range, length: int) -> list[range]:
    """The images cut in runs of nearly equal length, at most `length` each."""
    count = math.ceil(len(images) / length)
    bounds = [images.start + len(images) * i // count for i in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(bounds)]


def images_of(shard: PlannedShard) -> int:
    """How many photographs a planned mask shard has."""
    return len(run_of(shard))


def run_of(shard: PlannedShard) -> range:
    start, stop = shard.inputs[1].split(":")
    return range(int(start), int(stop))
