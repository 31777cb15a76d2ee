"""A dataset small enough to train on in tests: ten images of 64 px and their masks by two models."""

from pathlib import Path

import cv2
import numpy as np

from storage import rle
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange
from storage.protocol.plans import PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, mask_id_of
from tests.image_records import image_record, photo_key

SIDE = 64
EMPTY_IMAGE = 3
"""Number of the one image that has no masks."""


def small_dataset(folder: Path) -> Dataset:
    """Create ten images in three image shards, and their masks by two models in shards of at most three images."""
    dataset = Dataset.create(folder)
    shards = [PlannedShard(name=f"{number:06d}", inputs=(photo_key(f"photos-{number}"),)) for number in range(3)]
    plan = dataset.new_plan("images", shards, {})
    for shard, numbers in zip(plan.shards, (range(4), range(4, 8), range(8, 10)), strict=True):
        dataset.write_images(plan, shard, [photograph(number) for number in numbers])
    for model_id in ("one-1", "two-2"):
        write_masks(dataset, model_id)
    return dataset


def photograph(number: int) -> tuple[ImageRecord, bytes]:
    """Make a smooth random image that depends on `number` alone."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    data = cv2.imencode(".jpg", cv2.resize(coarse, (SIDE, SIDE)))[1].tobytes()
    return image_record(data, (SIDE, SIDE), f"photos/{number}.jpg", "jpg"), data


def write_masks(dataset: Dataset, model_id: str, *, of_shards: slice = slice(None)) -> None:
    """Masks that name their model; as with people's, made with several, the shards name none."""
    runs = [(commit, start) for commit in dataset.image_shards()[of_shards] for start in range(0, commit.images, 3)]
    shards = [
        PlannedShard(
            name=f"{number:06d}",
            inputs=(ImageRange(shard=commit.address, start=start, stop=min(start + 3, commit.images)),),
        )
        for number, (commit, start) in enumerate(runs)
    ]
    plan = dataset.new_plan("masks", shards, {"model_id": model_id})
    for shard, (commit, start) in zip(plan.shards, runs, strict=True):
        images = [image for image, _ in dataset.read_images(commit)][start : start + 3]
        masked = []
        for image in images:
            count = 0 if image.source == f"photos/{EMPTY_IMAGE}.jpg" else 2
            masks = []
            for ordinal in range(count):
                mask_HW = np.zeros((SIDE, SIDE), np.bool_)
                mask_HW[8 : 40 + 8 * ordinal, 8:40] = True
                runs_of_mask = rle.encode(mask_HW)
                masks.append(
                    MaskRecord(
                        mask_id=mask_id_of(plan.plan_id, shard.name, 0, image.image_id, ordinal),
                        image_id=image.image_id,
                        rle=runs_of_mask,
                        box_xyxy=rle.box_xyxy(runs_of_mask),
                        area_px=rle.area(runs_of_mask),
                        predicted_iou=0.5,
                        stability_score=0.75,
                        point_xy=(10.0, 20.0),
                        crop_xyxy=(0, 0, SIDE, SIDE),
                        provenance=Provenance(stage="fully_automatic", model_id=model_id, plan_id=plan.plan_id),
                    )
                )
            masked.append((image, masks))
        dataset.write_masks(plan, shard, masked)
