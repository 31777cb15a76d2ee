"""Which photo is which image: files under shared names, and photos that the dataset holds in another form."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.formats.coco import read_coco, write_coco
from stages.formats.export import export_snapshot
from stages.formats.import_labels import ImportReport, import_labels
from stages.ingest.config import IngestConfig
from stages.ingest.ingest import ingest_photos
from stages.ingest.normalise import JPEG_MAX_SIDE
from storage.dataset import Dataset
from storage.protocol.plans import PlannedShard
from tests.image_records import image_record, photo_key
from tests.stages.formats.labelled import square

SIZE = HEIGHT, WIDTH = (40, 60)


def save_photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(noise).save(path)


def import_names(dataset: Dataset, file: Path, names: list[str], photos: Path) -> ImportReport:
    """Import one mask for each photo."""
    images = [{"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH} for number, name in enumerate(names)]
    masks = [{"id": number, "image_id": number, "segmentation": square()} for number in range(len(names))]
    file.write_text(json.dumps({"images": images, "annotations": masks}))
    return import_labels(dataset, read_coco(file), photos)


@pytest.mark.parametrize(
    "names",
    [
        ["cam1/0001.png", "cam2/0001.png"],
        ["cam1/0001.png", "0001.png"],
        ["upload/1a2b3c4d-0001.png", "upload/2a2b3c4d-0001.png"],  # as Label Studio names two uploads
    ],
)
def test_a_file_is_no_photo_s_where_several_have_its_name(dataset: Dataset, tmp_path: Path, names: list[str]) -> None:
    save_photo(tmp_path / "cam2" / "0001.png", 1)
    report = import_names(dataset, tmp_path / "labels.json", names, tmp_path / "cam2")
    clear = [name for name in names if name == "0001.png"]
    assert [each.what for each in report.left_out] == [f"photo {name}" for name in names if name not in clear]
    for each in report.left_out:
        assert each.reason == "photo_missing"
        assert each.detail.startswith("several photos of the file have this name, 0001.png; give --photos")
    assert report.masks == len(clear)


def test_a_file_is_a_photo_s_by_its_last_part_where_one_alone_has_it(dataset: Dataset, tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "0001.png", 1)
    save_photo(tmp_path / "photos" / "0002.png", 2)
    names = ["cam1/0001.png", "upload/1a2b3c4d-0002.png", "cam1/0003.png"]
    report = import_names(dataset, tmp_path / "labels.json", names, tmp_path / "photos")
    assert report.masks == 2
    (missing,) = report.left_out
    assert (missing.what, missing.detail[:12]) == ("photo cam1/0003.png", "no such file")


def test_a_photo_that_the_dataset_holds_at_another_size_is_not_ingested_again(dataset: Dataset, tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "a.png", 1)
    ingest_photos([tmp_path / "photos"], dataset, IngestConfig(shortest_side_px=20))
    dataset.fold()
    plans = [plan.plan_id for plan in dataset.plans()]
    report = import_names(dataset, tmp_path / "labels.json", ["a.png"], tmp_path / "photos")
    assert [each.reason for each in report.left_out] == ["other_size"]
    assert dataset.query("SELECT * FROM rejects").num_rows == 0
    assert [plan.plan_id for plan in dataset.plans()] == plans


def test_an_image_too_long_for_jpeg_is_exported_as_it_is_stored(dataset: Dataset, tmp_path: Path) -> None:
    photo = tmp_path / "long.png"
    size_hw = (HEIGHT, JPEG_MAX_SIDE + 1)
    Image.new("RGB", size_hw[::-1], "red").save(photo)
    plan = dataset.new_plan("images", [PlannedShard(name="000000", inputs=(photo_key("photos"),))], {})
    record = image_record(photo.read_bytes(), size_hw, "photos/long.png", "png")
    dataset.write_images(plan, plan.shards[0], [(record, photo.read_bytes())])
    image = {"id": 1, "file_name": "long.png", "height": size_hw[0], "width": size_hw[1]}
    labels = {"images": [image], "annotations": [{"id": 1, "image_id": 1, "segmentation": square()}]}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    import_labels(dataset, read_coco(tmp_path / "labels.json"))

    report = export_snapshot(dataset, dataset.snapshot().snapshot_id, tmp_path / "out", "coco", write_coco)
    assert (report.images, report.masks, report.images_left_out) == (1, 1, {})
    (picture,) = (tmp_path / "out" / "images").iterdir()
    assert picture.read_bytes() == photo.read_bytes()
