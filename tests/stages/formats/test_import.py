"""Import of COCO's instances: what pycocotools reads is what the dataset holds, once, whatever interrupts it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from stages.formats import import_labels as importing
from stages.formats.coco import read_coco
from stages.formats.import_labels import import_labels
from storage.dataset import Dataset
from tests.stages.formats.labelled import compressed, in_order, photos_of_nuclei, square, stored_masks, write_coco


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "labels").mkdir()
    return tmp_path / "labels"


def masks_of_pycocotools(file: Path) -> dict[str, list[np.ndarray]]:
    theirs = COCO(file)
    return {
        image["file_name"]: in_order(
            [theirs.annToMask(each) > 0 for each in theirs.loadAnns(theirs.getAnnIds(image["id"]))]
        )
        for image in theirs.dataset["images"]
    }


def change(file: Path, **fields: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | fields))


def test_masks_are_those_of_pycocotools_with_a_provenance_of_their_own(dataset: Dataset, folder: Path) -> None:
    file = write_coco(folder)
    report = import_labels(dataset, read_coco(file))
    total = sum(image.num_masks for image in photos_of_nuclei()) + 3
    assert (report.photos, report.new_images, report.images) == (3, 3, 3)
    assert (report.masks, report.new_masks, report.there_already, report.left_out) == (total, total, 0, ())
    assert report.categories == {"nucleus": total}

    stored, theirs = stored_masks(dataset), masks_of_pycocotools(file)
    assert stored.keys() == theirs.keys()
    for name, masks in theirs.items():
        np.testing.assert_array_equal(stored[name], masks)
    (plan,) = [plan for plan in dataset.plans() if plan.kind == "masks"]
    assert {name: plan.settings[name] for name in ("stage", "format", "file")} == {
        "stage": "imported",
        "format": "coco",
        "file": "instances.json",
    }
    rows = dataset.query("SELECT DISTINCT stage, model_id, annotator_id, config_hash FROM masks").to_pylist()
    assert rows == [{"stage": "imported", "model_id": "", "annotator_id": "", "config_hash": plan.settings_hash}]
    assert dataset.query("SELECT DISTINCT license FROM images").to_pylist() == [{"license": "CC0-1.0"}]


def test_the_same_file_under_another_name_adds_nothing(dataset: Dataset, folder: Path, tmp_path: Path) -> None:
    first = import_labels(dataset, read_coco(write_coco(folder)))
    (tmp_path / "elsewhere").mkdir()
    again = import_labels(dataset, read_coco(write_coco(tmp_path / "elsewhere", name="renamed.json")))
    assert (again.masks, again.new_masks, again.new_images, again.plans) == (first.masks, 0, 0, first.plans)
    assert dataset.query("SELECT count(*) AS masks FROM masks").to_pylist() == [{"masks": first.masks}]


def test_of_a_file_that_grew_only_the_new_masks_are_stored(dataset: Dataset, folder: Path) -> None:
    first = import_labels(dataset, read_coco(write_coco(folder)))
    more = [{"image_id": 1, "category_id": 3, "segmentation": square(30)}]
    second = import_labels(dataset, read_coco(write_coco(folder, extra=more)))
    assert (second.new_masks, second.there_already) == (1, first.masks)
    assert dataset.query("SELECT count(*) AS masks FROM masks").to_pylist() == [{"masks": first.masks + 1}]


def test_an_interrupted_import_continues_and_equals_an_undisturbed_one(
    dataset: Dataset, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "MAX_IMAGES", 1)
    labels = read_coco(write_coco(folder))

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_labels(dataset, labels, on_images=stop)
    (plan,) = [plan for plan in dataset.plans() if plan.kind == "masks"]
    assert (len(plan.shards), len(dataset.missing(plan))) == (3, 2)

    continued = import_labels(dataset, labels)
    whole = Dataset.create(tmp_path / "whole")
    undisturbed = import_labels(whole, labels)
    assert continued.plans == (plan.plan_id,)
    assert continued.new_masks < continued.masks == undisturbed.masks
    ids = "SELECT image_id, mask_id FROM masks ORDER BY 1, 2"
    assert dataset.query(ids).to_pylist() == whole.query(ids).to_pylist()


def test_a_shard_that_is_redone_keeps_its_masks(dataset: Dataset, folder: Path) -> None:
    """Those of its earlier generation are there already, but leave with it."""
    labels = read_coco(write_coco(folder))
    first = import_labels(dataset, labels)
    (plan,) = [plan for plan in dataset.plans() if plan.kind == "masks"]
    dataset.maintenance.plan_redo(plan, [plan.shards[0].name])
    import_labels(dataset, labels)
    rows = dataset.query("SELECT generation, count(*) AS masks FROM masks GROUP BY generation").to_pylist()
    assert rows == [{"generation": 1, "masks": first.masks}]


def test_what_cannot_be_taken_is_counted_and_named(dataset: Dataset, folder: Path) -> None:
    first = photos_of_nuclei()[0]
    mask = compressed(first.masks_by_annotator[0][0])
    extra = [
        {"image_id": 1, "segmentation": mask, "iscrowd": 1},
        {"image_id": 1, "segmentation": {"size": [1, 2], "counts": "1"}},
        {"image_id": 2, "segmentation": [[1.0, 2.0, 3.0, 4.0]]},
        {"image_id": 9, "segmentation": square()},
        {"image_id": 1, "segmentation": [[0, 0, 1e12, 0, 5, 5]]},
    ]
    file = write_coco(folder, extra=extra)
    content = json.loads(file.read_text())
    missing = {"id": 4, "file_name": "missing.png", "height": 5, "width": 6}
    smaller = {"id": 5, "file_name": "other_size.png", "height": 40, "width": 40}
    Image.new("RGB", (60, 50), "red").save(folder / "other_size.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    broken = {"id": 6, "file_name": "broken.jpg", "height": 40, "width": 40}
    change(
        file,
        images=[*content["images"], missing, smaller, broken],
        annotations=[
            *content["annotations"],
            *({"id": 900 + image, "image_id": image, "segmentation": square()} for image in (4, 5, 6)),
        ],
    )
    report = import_labels(dataset, read_coco(file))
    reasons = {each.what: each.reason for each in report.left_out}
    at = 100 + report.masks
    assert reasons == {
        f"annotation {at}": "crowd",
        f"annotation {at + 1}": "malformed",
        f"annotation {at + 2}": "empty",
        f"annotation {at + 3}": "no_photo",
        f"annotation {at + 4}": "malformed",
        "photo missing.png": "photo_missing",
        "photo other_size.png": "other_size",
        "photo broken.jpg": "photo_rejected",
    }
    assert sum(report.masks_left_out.values()) == 8
    again = import_labels(dataset, read_coco(file))
    assert set(again.left_out) == set(report.left_out)
    with_crowds = import_labels(dataset, read_coco(file, with_crowds=True))
    assert (with_crowds.new_masks, with_crowds.masks_left_out.get("crowd", 0)) == (0, 0)  # the crowd is a mask's copy
    assert with_crowds.there_already == report.masks + 1


def test_a_photo_that_came_later_is_taken_then(dataset: Dataset, folder: Path) -> None:
    file = write_coco(folder)
    photo = next(folder.glob("*.png"))
    data = photo.read_bytes()
    photo.unlink()
    first = import_labels(dataset, read_coco(file))
    assert [each.reason for each in first.left_out] == ["photo_missing"]
    photo.write_bytes(data)
    second = import_labels(dataset, read_coco(file))
    assert (second.left_out, second.images, len(second.plans)) == ((), 3, 2)
    assert second.new_masks == second.masks - first.masks > 0


def test_an_interrupted_import_names_a_photo_that_is_gone_since(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "MAX_IMAGES", 1)
    file = write_coco(folder)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_labels(dataset, read_coco(file), on_images=stop)
    for photo in folder.glob("*.png"):
        photo.unlink()
    with pytest.raises(ValueError, match="whose photo is no longer found; put the photo back"):
        import_labels(dataset, read_coco(file))


@pytest.mark.parametrize(
    ("size", "orientation", "stated", "reason"),
    [
        ((60, 40), 6, (60, 40), None),  # the labels are of the upright photo
        ((60, 40), 6, (40, 60), "turned"),  # of the pixels before EXIF turns them
        ((60, 40), 3, (40, 60), "turned"),  # either
        ((50, 50), 6, (50, 50), "turned"),
        ((60, 40), 1, (40, 60), None),
        ((60, 40), 6, (41, 60), "other_size"),
    ],
)
def test_a_photo_that_exif_turns_is_taken_where_its_labels_say_which_way(
    dataset: Dataset,
    folder: Path,
    size: tuple[int, int],
    orientation: int,
    stated: tuple[int, int],
    reason: str | None,
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.effect_noise(size, 90).convert("RGB").save(folder / "a.jpg", exif=exif)
    image = {"id": 1, "file_name": "a.jpg", "height": stated[0], "width": stated[1]}
    content = {"images": [image], "annotations": [{"id": 1, "image_id": 1, "segmentation": square()}]}
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    report = import_labels(dataset, read_coco(file))
    assert [each.reason for each in report.left_out] == ([reason] if reason else [])
    assert report.masks == (0 if reason else 1)
