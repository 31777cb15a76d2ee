"""Import of SA-1B's files, from a folder and from tars: the boxes of its code are one pixel smaller than COCO's."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from stages.formats.import_labels import import_labels
from stages.formats.sa1b import read_sa1b
from storage import rle
from storage.dataset import Dataset
from tests.stages.formats.labelled import in_order, stored_masks, write_sa1b


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sa1b").mkdir()
    return tmp_path / "sa1b"


def pack(folder: Path, tar: Path, numbers: list[int]) -> Path:
    """Pack images into a tar as GNU tar packs a folder: with `./` before each name, and with the folder itself."""
    with tarfile.open(tar, "w") as archive:
        archive.add(folder, ".", recursive=False)
        for number in numbers:
            for suffix in ("jpg", "json"):
                archive.add(folder / f"sa_{number}.{suffix}", f"./sa_{number}.{suffix}")
    return tar


def test_a_folder_is_taken_with_scores_and_boxes_computed_from_the_masks(dataset: Dataset, folder: Path) -> None:
    images = write_sa1b(folder)
    (labels,) = read_sa1b(folder)
    report = import_labels(dataset, labels)
    assert (report.photos, report.images, report.left_out) == (3, 3, ())
    stored = stored_masks(dataset)
    for image in images:
        masks = in_order([rle.decode(mask) for mask in image.masks_by_annotator[0]])
        np.testing.assert_array_equal(stored[f"{image.stem}.jpg"], masks)
    row = dataset.query("SELECT * FROM masks ORDER BY image_id, mask_id LIMIT 1").to_pylist()[0]
    mask = dataset.read_mask(row["image_id"], row["mask_id"])
    assert mask.box_xyxy == rle.box_xyxy(mask.rle) == tuple(row[name] for name in ("x0", "y0", "x1", "y1"))
    assert (mask.predicted_iou, mask.stability_score) == pytest.approx((0.9, 0.95))
    assert mask.point_xy == mask.box_xyxy[:2]


def test_tars_are_taken_once_and_their_folder_then_adds_nothing(
    dataset: Dataset, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    write_sa1b(folder)
    (tmp_path / "tars").mkdir()
    pack(folder, tmp_path / "tars" / "sa_000000.tar", [1, 2])
    pack(folder, tmp_path / "tars" / "sa_000001.tar", [3])
    reports = [import_labels(dataset, labels) for labels in read_sa1b(tmp_path / "tars")]
    assert [(report.images, report.new_images) for report in reports] == [(2, 2), (1, 1)]
    assert [path.suffix for path in tmp_path.glob("gigamask-import-*/*")] == [".lock", ".lock"]

    again = [import_labels(dataset, labels).new_masks for labels in read_sa1b(tmp_path / "tars")]
    assert again == [0, 0]
    (labels,) = read_sa1b(folder)
    unpacked = import_labels(dataset, labels)
    assert (unpacked.new_masks, unpacked.there_already) == (0, sum(report.masks for report in reports))


def test_a_damaged_tar_is_refused(folder: Path, tmp_path: Path) -> None:
    write_sa1b(folder)
    tar = pack(folder, tmp_path / "sa_000000.tar", [1, 2, 3])
    with tarfile.open(tar) as archive:
        third = archive.getmembers()[3].offset
    data = bytearray(tar.read_bytes())
    data[third : third + 512] = b"x" * 512
    tar.write_bytes(data)
    with pytest.raises(ValueError, match="damaged tar"):
        next(read_sa1b(tar))
    tar.write_bytes(data[: third + 100])
    with pytest.raises(ValueError, match=r"damaged tar|no whole tar"):
        next(read_sa1b(tar))


def test_a_file_that_is_none_of_sa1b_and_an_area_that_lies_are_named(dataset: Dataset, folder: Path) -> None:
    write_sa1b(folder)
    (folder / "release.json").write_text('{"images": 3}')
    file = folder / "sa_1.json"
    file.write_text(file.read_text().replace('"area": ', '"area": 1', 1))
    (labels,) = read_sa1b(folder)
    report = import_labels(dataset, labels)
    assert {each.what: each.reason for each in report.left_out} == {
        "file release.json": "malformed",
        "sa_1.json, annotation 0": "malformed",
    }
    with pytest.raises(ValueError, match="no JSON file and no tar"):
        next(read_sa1b(folder.parent / "nothing"))
