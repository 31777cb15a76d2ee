"""Which photos to ingest: those that no plan of the same settings names become the shards of a new plan."""

from collections.abc import Iterator, Sequence

from stages.ingest.config import IngestConfig
from stages.ingest.files import FoundPhoto
from storage.dataset import Dataset
from storage.protocol.inputs import PhotoKey, PlanKind, photo_inputs
from storage.protocol.plans import Plan, PlannedShard


def plan_photos(dataset: Dataset, found: Sequence[FoundPhoto], config: IngestConfig) -> list[Plan]:
    """Return the plans of these settings that name the photos, with a new plan for photos that none of them names."""
    keys = {photo.key for photo in found}
    plans: list[Plan] = []
    planned: set[PhotoKey] = set()
    for plan in image_plans(dataset):
        named = keys.intersection(key for shard in plan.shards for key in photo_inputs(shard.inputs))
        if named and plan.settings == config.settings():
            plans.append(plan)
            planned |= named
    fresh = [photo for photo in found if photo.key not in planned]
    if fresh:
        groups = _group(fresh, config.images_per_shard, config.shard_bytes)
        shards = [
            PlannedShard(name=f"{number:06d}", inputs=tuple(photo.key for photo in group))
            for number, group in enumerate(groups)
        ]
        plans.append(dataset.new_plan(PlanKind.IMAGES, shards, config.settings()))
    return plans


def image_plans(dataset: Dataset) -> list[Plan]:
    """Read the dataset's plans of image shards, oldest first."""
    return [plan for plan in dataset.plans() if plan.kind is PlanKind.IMAGES]


def _group(found: Sequence[FoundPhoto], max_images: int, max_bytes: int) -> Iterator[list[FoundPhoto]]:
    """Split the photos, in their order, into groups within both limits; a photo over `max_bytes` is a group alone."""
    group: list[FoundPhoto] = []
    nbytes = 0
    for photo in found:
        if group and (len(group) == max_images or nbytes + photo.nbytes > max_bytes):
            yield group
            group, nbytes = [], 0
        group.append(photo)
        nbytes += photo.nbytes
    if group:
        yield group
