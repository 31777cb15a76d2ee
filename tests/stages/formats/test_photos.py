"""Which photo is which image: files under shared names, and photos that the dataset holds in another form."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.formats.coco import read_coco
from stages.formats.import_labels import ImportReport, import_labels
from stages.ingest.config import IngestConfig
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
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
