"""Ground truth of simulated annotators: found by the photos' bytes, scaled with them, one view for each person."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.ingest.config import IngestConfig
from stages.ingest.ingest import ingest_photos
from stages.simulated.truth import as_seen_by, read_truth
from storage import rle
from storage.dataset import Dataset
from tests.stages.conftest import encoded, picture


def write_photo(folder: Path, number: int, masks_by_annotator: dict[int, list[tuple[int, int]]]) -> None:
    """A photo of 64 x 96 px, with masks that are bands of rows."""
    folder.mkdir(exist_ok=True)
    (folder / f"{number}.png").write_bytes(encoded(picture(number, height=64, width=96), "PNG"))
    annotations = []
    for annotator, bands in masks_by_annotator.items():
        for start, stop in bands:
            mask_HW = np.zeros((64, 96), np.bool_)
            mask_HW[start:stop] = True
            counts = rle.to_coco(rle.encode(mask_HW))
            annotations.append({"annotator": annotator, "segmentation": {"size": [64, 96], "counts": counts}})
    content = {"image": {"image_id": number, "height": 64, "width": 96}, "annotations": annotations}
    (folder / f"{number}.json").write_text(json.dumps(content))


def ingested(folder: Path, dataset: Dataset, **settings: int) -> list[int]:
    ingest_photos([folder], dataset, IngestConfig(**settings))
    dataset.fold()
    ids: list[int] = dataset.query("SELECT image_id FROM images ORDER BY source")["image_id"].to_pylist()
    return ids


def test_each_annotator_has_the_masks_of_one_person_in_mind(dataset: Dataset, tmp_path: Path) -> None:
    write_photo(tmp_path / "photos", 0, {1: [(0, 8)], 5: [(0, 16), (32, 48)]})
    write_photo(tmp_path / "photos", 1, {})
    first, second = ingested(tmp_path / "photos", dataset)
    truth = read_truth(tmp_path / "photos", dataset)
    seen = [as_seen_by(number, truth, first) or () for number in range(3)]
    assert [[rle.area(mask) for mask in masks] for masks in seen] == [[8 * 96], [16 * 96, 16 * 96], [8 * 96]]
    assert as_seen_by(0, truth, second) == ()
    assert as_seen_by(0, truth, 12345) is None


def test_masks_are_scaled_as_ingest_scaled_their_photo(dataset: Dataset, tmp_path: Path) -> None:
    write_photo(tmp_path / "photos", 0, {0: [(0, 32)]})
    (image_id,) = ingested(tmp_path / "photos", dataset, shortest_side_px=32, min_side_px=16)
    ((mask,),) = read_truth(tmp_path / "photos", dataset)[image_id]
    assert (mask.height, mask.width, rle.area(mask)) == (32, 48, 16 * 48)


def test_photos_of_another_dataset_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    write_photo(tmp_path / "photos", 0, {0: [(0, 32)]})
    write_photo(tmp_path / "others", 1, {0: [(0, 32)]})
    ingested(tmp_path / "photos", dataset)
    with pytest.raises(ValueError, match=r"ground truth of none of the 1 images .*; expected the photos that were"):
        read_truth(tmp_path / "others", dataset)


def test_masks_of_another_shape_than_the_stored_image_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    """As of a photo that its camera turned: its masks are those of the pixels as stored."""
    folder = tmp_path / "photos"
    folder.mkdir()
    turned = picture(0, height=64, width=96)
    exif = turned.getexif()
    exif[0x0112] = 6
    (folder / "0.jpg").write_bytes(encoded(turned, "JPEG", exif=exif))
    content = {"image": {"image_id": 0, "height": 64, "width": 96}, "annotations": []}
    (folder / "0.json").write_text(json.dumps(content))
    ingested(folder, dataset)
    with pytest.raises(ValueError, match="masks of 96x64 for an image that is stored as 64x96"):
        read_truth(folder, dataset)
