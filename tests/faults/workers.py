"""What workers do: they write real shards, as their plans' inputs and settings say, and fold them."""

import hashlib
from dataclasses import replace

from storage import rle
from storage.dataset import Dataset
from storage.protocol.commits import Commit
from storage.protocol.inputs import ImageKey, MaskKey, image_inputs, photo_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, Reject, image_id_of, image_key, mask_id_of
from tests.faults import truth
from tests.faults.processes import Job


def make_image(number: int) -> tuple[ImageRecord, bytes]:
    data = truth.photo(number)
    sha256 = hashlib.sha256(data).hexdigest()
    record = ImageRecord(
        image_id=image_id_of(sha256),
        key=image_key(image_id_of(sha256)),
        height=truth.HEIGHT,
        width=truth.WIDTH,
        format="jpg",
        nbytes=len(data),
        source=f"photo-{number}",
        source_sha256=sha256,
        stored_sha256=sha256,
        license="CC0-1.0",
        country="",
    )
    return record, data


def make_masks(image: ImageRecord, plan: Plan, shard: PlannedShard) -> list[MaskRecord]:
    number = int(image.source.partition("-")[2])
    masks = []
    for ordinal in range(truth.MASKS_PER_IMAGE):
        runs = rle.encode(truth.mask_HW(number, ordinal, int(plan.settings["variant"])))
        masks.append(
            MaskRecord(
                mask_id=mask_id_of(plan.plan_id, shard.name, shard.generation, image.image_id, ordinal),
                image_id=image.image_id,
                rle=runs,
                box_xyxy=rle.box_xyxy(runs),
                area_px=rle.area(runs),
                predicted_iou=0.9,
                stability_score=0.95,
                point_xy=(1.5, 2.5),
                crop_xyxy=(0, 0, image.width, image.height),
                provenance=Provenance(
                    stage="fully_automatic", model_id="m", plan_id=plan.plan_id, config_hash=plan.settings_hash
                ),
            )
        )
    return masks


def renamed(mask: MaskRecord) -> MaskRecord:
    """The same mask under an id of its own."""
    return replace(mask, mask_id=mask.mask_id ^ 1)


def reject(source: str) -> Reject:
    return Reject(source=source, source_sha256="", reason="truncated", detail="ends early", stage="ingest")


def write_images(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit:
    """An image shard as its plan's inputs say; a redo adds the photographs that were bad.

    A redo of a shard whose objects are lost makes all of it from the photographs again.
    """
    inputs = [key.source for key in photo_inputs(shard.inputs)]
    bad = [each for each in inputs if each.startswith("bad-")]
    if shard.generation == 0:
        photos = [make_image(int(each.partition("-")[2])) for each in inputs if each not in bad]
        return dataset.write_images(plan, shard, photos, [reject(each) for each in bad])
    before = previous(dataset, plan, shard)
    if not dataset.is_there(before):
        return dataset.write_images(plan, shard, [make_image(int(each.partition("-")[2])) for each in inputs])
    photos = [] if before.generation else [make_image(int(each.partition("-")[2])) for each in bad]
    return dataset.write_images(plan, shard, photos, inherited=before)


def write_masks(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit:
    """A mask shard as its plan's settings say: all images anew, or those that its forerunner lacks."""
    images = [image for image, _ in dataset.read_images(image_inputs(shard.inputs)[0])]
    inherited, rejects = None, []
    if plan.settings["inherit"]:
        inherited = previous(dataset, plan, shard)
        there = {image.key for image, _ in dataset.read_masks(inherited)}
        images = [image for image in images if image.key not in there]
    else:
        skip = int(plan.settings["skip"])
        rejects, images = [reject(image.source) for image in images[:skip]], images[skip:]
    masked = [(image, make_masks(image, plan, shard)) for image in images]
    return dataset.write_masks(plan, shard, masked, rejects, model_id="m", inherited=inherited)


def previous(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit:
    return dataset.previous(plan, shard)


def write_unit(plan_id: str, name: str) -> Job:
    """The job of one planned shard."""

    def work(dataset: Dataset) -> None:
        plan = dataset.plan(plan_id)
        write = write_images if plan.kind == "images" else write_masks
        write(dataset, plan, plan.shard(name))

    return work


def withdraw(pairs: list[tuple[int, int]], reason: str) -> Job:
    return lambda dataset: dataset.withdraw(pairs, reason).address


def fold(dataset: Dataset) -> None:
    dataset.fold()


def clean(dataset: Dataset) -> None:
    dataset.maintenance.clean(delete=True)


def finish(dataset: Dataset) -> None:
    """What the next run does after any crash: every missing shard of every plan, then the tables."""
    for plan in dataset.plans():
        for shard in dataset.missing(plan):
            if plan.kind == "withdrawals":
                pairs = [(each.image_id, each.mask_id) for each in shard.inputs if isinstance(each, MaskKey)]
                try:
                    dataset.withdraw(pairs, str(plan.settings["reason"]))
                except ValueError:  # a redo replaced some of them meanwhile
                    dataset.maintenance.close(plan)
            elif plan.kind == "erasures":
                image_ids = [each.image_id for each in shard.inputs if isinstance(each, ImageKey)]
                dataset.erase(image_ids, str(plan.settings["reason"]))
            else:
                write_unit(plan.plan_id, shard.name)(dataset)
    dataset.fold()
