"""Shards of a round's plan: where its images are, which masks each shard withdraws, and their way into the tables."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from storage.dataset import Dataset
from storage.errors import StoreError
from storage.protocol.inputs import ImageSet, MaskKey, ShardAddress
from storage.protocol.plans import Plan, PlannedShard

Places = Mapping[int, tuple[ShardAddress, int]]
"""Image shard of each image and its place in it, by image id."""


def locate(dataset: Dataset, image_ids: Sequence[int]) -> Places:
    """Find the image shard of each image and its place in it; images that the dataset does not hold are left out.

    The order is that of the ids.
    """
    newest = {address.lineage: address for address in sorted(dataset.image_addresses())}
    rows = dataset.query("SELECT image_id, plan, shard FROM images")
    own = rows.filter(np.isin(rows["image_id"].to_numpy(), np.array(image_ids, np.int64)))
    lineages = {f"{row['plan']}/{row['shard']}" for row in own.select(["plan", "shard"]).to_pylist()}
    wanted = set(own["image_id"].to_pylist())
    places: dict[int, tuple[ShardAddress, int]] = {}
    for lineage in sorted(lineages):
        ids = dataset.image_ids_in(dataset.commit_of(newest[lineage]))
        found = {image_id: (newest[lineage], place) for place, image_id in enumerate(ids) if image_id in wanted}
        places = found | places
    return {image_id: places[image_id] for image_id in image_ids if image_id in places}


def inputs_at(places: Iterable[tuple[ShardAddress, int]]) -> tuple[ImageSet, ...]:
    """Turn places of images into the inputs of one mask shard."""
    by_shard: dict[ShardAddress, list[int]] = {}
    for address, place in places:
        by_shard.setdefault(address, []).append(place)
    return tuple(ImageSet(shard=address, places=tuple(sorted(some))) for address, some in sorted(by_shard.items()))


def plan_shards(places: Places, replaced: Mapping[int, Collection[MaskKey]], *, max_images: int) -> list[PlannedShard]:
    """Plan the round's shards: each takes some images, and the masks that annotators replaced in them."""
    shards, image_ids = list[PlannedShard](), list(places)
    for start in range(0, len(image_ids), max_images):
        some = image_ids[start : start + max_images]
        images = inputs_at(places[image_id] for image_id in some)
        masks = sorted(key for image_id in some for key in replaced.get(image_id, ()))
        shards.append(PlannedShard(name=f"{len(shards):06d}", inputs=(*images, *masks)))
    return shards


def fold_shards(dataset: Dataset, plan: Plan, round_id: str) -> None:
    """Take the shards of a round's plan into the tables.

    Raises:
        StoreError: A shard cannot be folded, because table rows are lost.
    """
    waiting = {str(plan.address(shard)) for shard in plan.shards}.intersection(dataset.fold().set_aside)
    if waiting:
        raise StoreError(
            f"round {round_id}: {len(waiting)} of {len(plan.shards)} shards cannot be folded, the first is "
            f"{min(waiting)}: rows of its own or of the masks that it replaces are lost; `gigamask verify` names them: "
            "restore these objects from a copy and close the round again"
        )
