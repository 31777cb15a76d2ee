"""What of a snapshot leaves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.release.choose import Choice, choose
from stages.release.config import ReleaseConfig
from storage import rle
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.protocol.inputs import ImageRange, MaskKey
from storage.protocol.plans import PlannedShard
from tests.image_records import image_record, photo_key
from tests.stages.release.conftest import CONFIG, Released
from tests.stages.release.photos import make_dataset, masks_of, stored_images

WITH_ALL = ReleaseConfig(not_deidentified=True, allow_unlicensed=True)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "dataset")


def image_ids(choice: Choice) -> list[int]:
    return sorted(choice.image_ids.tolist())


def ids_of(*numbers: int) -> list[int]:
    return sorted(stored_images()[number][0].image_id for number in numbers)


def test_images_without_a_licence_stay_unless_asked_for(released: Released) -> None:
    choice = choose(released.dataset, released.snapshot, CONFIG)
    assert image_ids(choice) == ids_of(0, 1, 2, 3, 4, 5)
    assert (len(choice), choice.masks) == (6, 24)
    assert {reason: images for reason, images in choice.left_out.items() if images} == {"no licence": 1}
    assert choice.masks_left_out["no licence"] == 4
    everything = choose(released.dataset, released.snapshot, WITH_ALL)
    assert (len(everything), everything.masks) == (7, 28)
    assert "no licence" not in everything.left_out


def test_masks_that_were_withdrawn_since_the_snapshot_stay(dataset: Dataset) -> None:
    snapshot = dataset.snapshot().snapshot_id
    before = choose(dataset, snapshot, CONFIG)
    rows = dataset.masks(columns=["image_id", "mask_id"]).read_all().to_pylist()
    (first,), (second,) = ids_of(0), ids_of(1)
    gone = [(row["image_id"], row["mask_id"]) for row in rows if row["image_id"] == first]
    gone += [(row["image_id"], row["mask_id"]) for row in rows if row["image_id"] == second][:1]
    dataset.withdraw(gone, "a person's wish")
    after = choose(dataset, snapshot, CONFIG)
    assert image_ids(after) == ids_of(1, 2, 3, 4, 5)
    assert after.withdrawn == set(gone)
    assert after.masks == before.masks - 5
    assert after.left_out["no masks"] == 1
    assert after.masks_left_out["withdrawn since the snapshot"] == 5
    assert after.release_id(CONFIG) != before.release_id(CONFIG)
    later = dataset.snapshot().snapshot_id
    assert choose(dataset, later, CONFIG).masks_left_out["withdrawn since the snapshot"] == 0


def test_masks_that_were_replaced_since_the_snapshot_leave(dataset: Dataset) -> None:
    snapshot = dataset.snapshot().snapshot_id
    before = choose(dataset, snapshot, CONFIG)
    image_id = ids_of(0)[0]
    row = dataset.masks(f"image_id = {image_id}", ["image_id", "mask_id"]).read_all().to_pylist()[0]
    (commit,) = dataset.image_shards()
    place = next(k for k, (image, _) in enumerate(dataset.read_images(commit)) if image.image_id == image_id)
    inputs = (ImageRange(shard=commit.address, start=place, stop=place + 1), MaskKey(**row))
    plan = dataset.new_plan("amendments", [PlannedShard.from_inputs(*inputs)], {"reason": "replaced in r1"})
    image = next(image for image, _ in stored_images() if image.image_id == image_id)
    dataset.write_masks(plan, plan.shards[0], [(image, masks_of(image, plan.plan_id, "fully_automatic")[:1])])
    dataset.fold()
    after = choose(dataset, snapshot, CONFIG)
    assert after.release_id(CONFIG) == before.release_id(CONFIG)
    assert after.masks == before.masks


def test_images_that_were_erased_since_the_snapshot_stay(dataset: Dataset) -> None:
    snapshot = dataset.snapshot().snapshot_id
    dataset.erase(ids_of(2), "a person's wish")
    choice = choose(dataset, snapshot, CONFIG)
    assert image_ids(choice) == ids_of(0, 1, 3, 4, 5)
    assert choice.left_out["erased since the snapshot"] == 1
    assert choice.masks_left_out["erased since the snapshot"] == 4


def test_an_image_that_no_jpeg_can_hold_stays(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "dataset")
    long = image_record(b"never decoded here", (1100, 65_501), "photos/long.png", "png", licence="CC0-1.0")
    plan = dataset.new_plan("images", [PlannedShard(name="000000", inputs=(photo_key("photos"),))], {})
    commit = dataset.write_images(plan, plan.shards[0], [(long, b"never decoded here")])
    shard = PlannedShard(name="000000", inputs=(ImageRange(shard=commit.address, start=0, stop=1),))
    masks = dataset.new_plan("masks", [shard], {})
    mask_HW = np.zeros((1100, 65_501), np.bool_)
    mask_HW[:9, :9] = True
    runs = rle.encode(mask_HW)
    (small, *_) = masks_of(stored_images()[0][0], masks.plan_id, "fully_automatic")
    whole = (0, 0, 65_501, 1100)
    mask = replace(
        small,
        image_id=long.image_id,
        rle=runs,
        box_xyxy=rle.box_xyxy(runs),
        area_px=81,
        point_xy=(1, 1),
        crop_xyxy=whole,
    )
    dataset.write_masks(masks, masks.shards[0], [(long, [mask])])
    with pytest.raises(ValueError, match="1 a side too long for JPEG"):
        choose(dataset, dataset.snapshot().snapshot_id, CONFIG)


def test_the_id_follows_from_snapshot_and_settings(released: Released) -> None:
    same, again = (choose(released.dataset, released.snapshot, CONFIG).release_id(CONFIG) for _ in range(2))
    assert same == again
    other = ReleaseConfig(not_deidentified=True, images_per_tar=5)
    assert choose(released.dataset, released.snapshot, other).release_id(other) != same


def test_a_release_without_images_is_refused(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "dataset")
    snapshot = dataset.snapshot().snapshot_id
    with pytest.raises(ValueError, match="no image may leave"):
        choose(dataset, snapshot, CONFIG)
    with pytest.raises(NotFound, match="s00000009-none"):
        choose(dataset, "s00000009-none", CONFIG)


def test_images_that_were_not_searched_for_faces_do_not_leave_unless_somebody_says_so(released: Released) -> None:
    with pytest.raises(
        ValueError,
        match=r"^6 of the 6 images to release were not searched for faces: ingest .* into a new dataset .*"
        ", or, after looking at the images, give --not-deidentified",
    ):
        choose(released.dataset, released.snapshot, ReleaseConfig())
    with pytest.raises(ValueError, match=r"^6 of the 6 images to release were not searched for faces: ingest"):
        choose(released.dataset, released.snapshot, ReleaseConfig(plates_reviewed=True))
    assert not choose(released.dataset, released.snapshot, CONFIG).deidentification.is_complete(CONFIG)
