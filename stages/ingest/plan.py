"""Choice of the shards to ingest: shards of earlier plans that can be made now, and a new plan for the other photos."""

from collections.abc import Iterator, Mapping, Sequence

from stages.ingest.config import IngestConfig
from stages.ingest.files import FoundPhoto, PhotosAtHand
from storage.dataset import Dataset
from storage.protocol.inputs import PhotoKey, PlanKind, photo_inputs
from storage.protocol.plans import Plan, PlannedShard


def plan_photos(
    dataset: Dataset,
    found: Sequence[FoundPhoto],
    config: IngestConfig,
    at_hand: PhotosAtHand,
    *,
    privacy: Mapping[str, object] | None = None,
    max_new: int | None = None,
) -> list[Plan]:
    """Return the earlier plans with these settings that cover found photos, and a new plan for photos not covered.

    A shard of an earlier plan covers its photos if the shard is committed, or if all its photos were searched for now.
    Suppose an ingest of the folders `A` and `B` stopped before a shard with photos of both folders was committed. An
    ingest of `A` alone then plans the photos of `A` again and leaves `B` alone. A shard that was given up is planned
    again as a redo. The new plan has the first `max_new` photos, if that is given. `privacy` holds the settings of the
    detectors, None without any: plans of earlier versions have no such settings.
    """
    settings = config.settings() if privacy is None else {**config.settings(), "privacy": privacy}
    plans: dict[str, Plan] = {}
    covered: set[PhotoKey] = set()
    for plan in image_plans(dataset):
        if plan.settings != settings:
            continue
        named = {shard.name: at_hand.keys.intersection(photo_inputs(shard.inputs)) for shard in plan.shards}
        given_up = {record.shard for record in dataset.commits(plan, given_up=True) if not record.attempt_id}
        unmade = given_up | {shard.name for shard in dataset.missing(plan)}
        waiting = {
            shard.name
            for shard in plan.shards
            if shard.name in unmade and not at_hand.covers(photo_inputs(shard.inputs))
        }
        able = [name for name, keys in named.items() if keys and name not in waiting]
        if able:
            plans[plan.plan_id] = plan
            covered |= {key for name in able for key in named[name]}
        again = [name for name in able if name in given_up]
        if again:
            redo = dataset.maintenance.plan_redo(plan, again)
            plans[redo.plan_id] = redo
    fresh = [photo for photo in found if photo.key not in covered][:max_new]
    if fresh:
        groups = _group(fresh, config.images_per_shard, config.shard_bytes)
        shards = [PlannedShard.from_inputs(*(photo.key for photo in group)) for group in groups]
        new = dataset.new_plan(PlanKind.IMAGES, shards, settings)
        plans[new.plan_id] = new
    return list(plans.values())


def image_plans(dataset: Dataset) -> list[Plan]:
    """Read the dataset's plans of image shards, oldest first."""
    return [plan for plan in dataset.plans() if plan.kind is PlanKind.IMAGES]


def _group(found: Sequence[FoundPhoto], max_images: int, max_bytes: int) -> Iterator[list[FoundPhoto]]:
    """Split the photos, in their order, into groups within both limits; a photo over `max_bytes` has its own group."""
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
