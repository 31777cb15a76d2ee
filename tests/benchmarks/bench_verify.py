"""Verifying a dataset of many shards: seconds, and peak memory.

    python tests/benchmarks/bench_verify.py [--shards 2000] [--folder FOLDER] [--keep]

Half of the shards hold images, half masks; every byte of them is written through `Dataset`. Filling and verifying run
in separate processes, so that each has its own peak memory. Times are wall seconds on all cores.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_tables import alone
from json_lines import print_line

from storage import rle
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, mask_id_of
from tests.image_records import photo_key
from tests.small_dataset import SIDE, photograph

IMAGES_A_SHARD, MASKS_AN_IMAGE = 4, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=2000, help="number of shards, half of them of images")
    parser.add_argument("--folder", type=Path, help="folder for the dataset; default: the system's temporary folder")
    parser.add_argument("--keep", action="store_true", help="keep the dataset and print its folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-verify-", dir=arguments.folder))
    try:
        measure(folder / "dataset", max(1, arguments.shards // 2))
    finally:
        if arguments.keep:
            print(folder)
        else:
            shutil.rmtree(folder)


def measure(uri: Path, homes: int) -> None:
    """Fill and verify a dataset, and print a line for each figure."""
    filled, _ = alone(fill, uri, homes)
    verified, peak_mib = alone(verify, uri)
    facts = {"shards": 2 * homes, "masks": int(filled["masks"]), "mib": round(verified["nbytes"] / 2**20)}
    print_line("verify", "every byte and row", verified["s"], "s", **facts)
    print_line("verify", "every byte and row, peak memory", peak_mib, "MiB", **facts)
    print_line("verify", "sizes and counts (--fast)", verified["fast_s"], "s", **facts)


def fill(uri: Path, homes: int) -> dict[str, float]:
    """Commit and fold `homes` image shards and their mask shards, without flushing them to disk."""
    os.fsync = lambda fd: None
    dataset = Dataset.create(uri)
    shards = [PlannedShard(name=f"{number:06d}", inputs=(photo_key(f"photos-{number}"),)) for number in range(homes)]
    images = dataset.new_plan("images", shards, {"shortest_side_px": SIDE})
    made = [
        PlannedShard(name=home.name, inputs=(ImageRange(shard=images.address(home), start=0, stop=IMAGES_A_SHARD),))
        for home in images.shards
    ]
    masks = dataset.new_plan("masks", made, {"model_id": "one-1"})
    for number, (home, shard) in enumerate(zip(images.shards, masks.shards, strict=True)):
        photographs = [photograph(number * IMAGES_A_SHARD + place) for place in range(IMAGES_A_SHARD)]
        dataset.write_images(images, home, photographs)
        dataset.write_masks(masks, shard, [(image, squares(masks, shard, image)) for image, _ in photographs])
    dataset.fold()
    return {"masks": homes * IMAGES_A_SHARD * MASKS_AN_IMAGE}


def squares(plan: Plan, shard: PlannedShard, image: ImageRecord) -> list[MaskRecord]:
    """Make masks of growing squares."""
    masks = []
    for ordinal in range(MASKS_AN_IMAGE):
        mask_HW = np.zeros((SIDE, SIDE), np.bool_)
        mask_HW[4 : 8 + ordinal, 4 : 8 + ordinal] = True
        runs = rle.encode(mask_HW)
        masks.append(
            MaskRecord(
                mask_id=mask_id_of(plan.plan_id, shard.name, 0, image.image_id, ordinal),
                image_id=image.image_id,
                rle=runs,
                box_xyxy=rle.box_xyxy(runs),
                area_px=rle.area(runs),
                predicted_iou=0.5,
                stability_score=0.75,
                point_xy=(10.0, 20.0),
                crop_xyxy=(0, 0, SIDE, SIDE),
                provenance=Provenance(stage="fully_automatic", model_id="one-1", plan_id=plan.plan_id),
            )
        )
    return masks


def verify(uri: Path) -> dict[str, float]:
    """Measure the seconds of both kinds of check.

    Raises:
        ValueError: A fault was found, though nothing is wrong.
    """
    maintenance = Dataset.open(uri).maintenance
    began = time.perf_counter()
    report = maintenance.verify()
    middle = time.perf_counter()
    fast = maintenance.verify(fast=True)
    if report.faults or fast.faults:
        raise ValueError(f"{(report.faults + fast.faults)[0]}")
    return {"s": middle - began, "fast_s": time.perf_counter() - middle, "nbytes": report.nbytes}


if __name__ == "__main__":
    main()
