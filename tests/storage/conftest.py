"""Small datasets of real JPEG bytes in tmp_path; `samples` gives tests the functions that make them."""

import math
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from storage import rle
from storage.dataset import Dataset
from storage.protocol.commits import Commit
from storage.protocol.inputs import image_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, Reject, mask_id_of
from tests import s3_server as s3_server_program
from tests.image_records import image_record, photo_key

HEIGHT, WIDTH = 40, 60


def make_image(number: int) -> tuple[ImageRecord, bytes]:
    """A small photograph-like JPEG that depends on `number` alone."""
    pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", cv2.resize(pixels, (WIDTH, HEIGHT)))[1].tobytes()
    record = image_record(data, (HEIGHT, WIDTH), f"photos/{number}.jpg", "jpg", licence="CC0-1.0", country="DE")
    return record, data


def make_masks(image: ImageRecord, plan: Plan, shard: PlannedShard, count: int = 3) -> list[MaskRecord]:
    """`count` rectangles; the last has no point and no scores, like one drawn by hand."""
    masks = []
    for ordinal in range(count):
        mask_HW = np.zeros((image.height, image.width), dtype=bool)
        mask_HW[ordinal : ordinal + 5, ordinal * 2 : ordinal * 2 + 9] = True
        runs = rle.encode(mask_HW)
        by_hand = ordinal == count - 1
        masks.append(
            MaskRecord(
                mask_id=mask_id_of(plan.plan_id, shard.name, shard.generation, image.image_id, ordinal),
                image_id=image.image_id,
                rle=runs,
                box_xyxy=rle.box_xyxy(runs),
                area_px=rle.area(runs),
                predicted_iou=math.nan if by_hand else 0.5 + ordinal / 8,
                stability_score=math.nan if by_hand else 0.75,
                point_xy=(math.nan, math.nan) if by_hand else (ordinal + 0.5, ordinal + 1.5),
                crop_xyxy=(0, 0, image.width, image.height),
                provenance=Provenance(
                    stage="fully_automatic", model_id="seed-0123", plan_id=plan.plan_id, config_hash=plan.settings_hash
                ),
            )
        )
    return masks


def make_reject(number: int) -> Reject:
    return Reject(
        source=f"photos/bad-{number}.jpg", source_sha256="", reason="truncated", detail="ends early", stage="ingest"
    )


def ingest(dataset: Dataset, shards: int = 2, images: int = 2, first: int = 0) -> Plan:
    """Ingests image shards of `images` photographs and one reject each, and gives the plan."""
    planned = [
        PlannedShard(name=f"{number:05d}", inputs=(photo_key(f"photos-{first + number}"),)) for number in range(shards)
    ]
    plan = dataset.new_plan("images", planned, {"side_px": 1500})
    for shard in dataset.missing(plan):
        start = first + int(shard.name) * images
        photos = [make_image(start + offset) for offset in range(images)]
        dataset.write_images(plan, shard, photos, [make_reject(start)], stats={"read": images + 1}, seconds=1.5)
    return plan


def plan_masks(dataset: Dataset, settings: dict[str, Any] | None = None) -> Plan:
    """A plan of one mask shard for each image shard."""
    planned = [
        PlannedShard(name=f"{number:05d}", inputs=(commit.address,))
        for number, commit in enumerate(dataset.image_shards())
    ]
    return dataset.new_plan("masks", planned, settings or {"model": "seed-0123", "points_per_side": 32})


def mask(dataset: Dataset, settings: dict[str, Any] | None = None) -> Plan:
    """Writes three masks for every image, and gives the plan."""
    plan = plan_masks(dataset, settings)
    for shard in dataset.missing(plan):
        write_mask_shard(dataset, plan, shard)
    return plan


def write_mask_shard(dataset: Dataset, plan: Plan, shard: PlannedShard, count: int = 3) -> Commit:
    images = [image for image, _ in dataset.read_images(image_inputs(shard.inputs)[0])]
    masked = [(image, make_masks(image, plan, shard, count)) for image in images]
    return dataset.write_masks(plan, shard, masked, stats={"candidates": 9}, model_id="seed-0123", seconds=2.0)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real S3 server (see tests/s3_server.py), started once."""
    if missing := s3_server_program.missing_programs():
        pytest.skip(f"no S3 server: {', '.join(missing)} not installed (Debian: ceph-mon ceph-osd radosgw)")
    with s3_server_program.serving(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def s3_uri(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a bucket, with the environment that finds it."""
    for name, value in s3_server_program.environment(s3_server).items():
        monkeypatch.setenv(name, value)
    import boto3

    client = boto3.client("s3")
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket="gigamask-tests")
    return f"s3://gigamask-tests/{uuid.uuid4().hex}"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.create(tmp_path / "dataset")


@pytest.fixture(scope="session")
def samples() -> SimpleNamespace:
    return SimpleNamespace(
        make_image=make_image,
        make_masks=make_masks,
        make_reject=make_reject,
        ingest=ingest,
        plan_masks=plan_masks,
        mask=mask,
        write_mask_shard=write_mask_shard,
    )
