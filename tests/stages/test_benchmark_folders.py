"""Folders of BSDS500, DAVIS and ADE20K, made small in the form that their authors publish."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from engine.evaluation.edges import people_boundaries
from engine.labelled import read_pixels
from flows.evaluation.compare import open_source
from stages.benchmark_folders import Ade20kSource, find_benchmark
from storage import rle

SIZE = (40, 60)


def labels(*corners: tuple[int, int, int, int, int]) -> np.ndarray:
    """A label map of rectangles: x0, y0, x1, y1, label."""
    labels_HW = np.zeros(SIZE, dtype=np.uint8)
    for x0, y0, x1, y1, label in corners:
        labels_HW[y0:y1, x0:x1] = label
    return labels_HW


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*SIZE, 3), 90, dtype=np.uint8))


def palette(path: Path, labels_HW: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels_HW, mode="P")
    image.putpalette([0, 0, 0, 128, 0, 0] * 128)
    image.save(path)


def groups(folder: Path) -> list[list[int]]:
    """Areas of the masks of every image and annotator, through the source that the commands open."""
    images = open_source(folder).images()
    assert all(read_pixels(image).shape == (*SIZE, 3) for image in images)
    return [[rle.area(mask) for mask in masks] for image in images for masks in image.masks_by_annotator.values()]


def bsds(root: Path, people: list[np.ndarray]) -> Path:
    cells = np.empty((1, len(people)), dtype=object)
    for number, labels_HW in enumerate(people):
        drawn = np.zeros(SIZE, np.uint8)
        cells[0, number] = {"Segmentation": labels_HW.astype(np.uint16) + 1, "Boundaries": drawn}
    folder = root / "groundTruth" / "test"
    folder.mkdir(parents=True)
    savemat(folder / "100007.mat", {"groundTruth": cells})
    for stem in ("100007", "100039"):
        photo(root / "images" / "test" / f"{stem}.jpg")
    (root / "images" / "test" / "Thumbs.db").write_bytes(b"")
    return folder


def test_bsds_keeps_people_apart_and_their_boundaries(tmp_path: Path) -> None:
    folder = bsds(tmp_path, [labels((30, 0, 60, 40, 1)), labels((20, 0, 60, 40, 1), (20, 0, 60, 10, 2))])
    assert groups(folder) == [[1200, 1200], [800, 1200, 400]]
    source = open_source(folder)
    (image,) = source.images()
    assert (image.domain, image.stem, image.image_id) == ("bsds500_test", "100007", 100007)
    assert source.count_unlabelled() == 1
    first_HW, _ = people_boundaries(image)
    assert np.flatnonzero(first_HW.any(axis=0)).tolist() == [29]


def test_davis_reads_objects_of_a_palette_and_one_of_black_and_white(tmp_path: Path) -> None:
    for sequence in ("bear", "dogs"):
        for frame in ("00000", "00001"):
            photo(tmp_path / "JPEGImages" / "480p" / sequence / f"{frame}.jpg")
    marks = tmp_path / "Annotations" / "480p"
    palette(marks / "dogs" / "00000.png", labels((0, 0, 10, 10, 1), (20, 0, 25, 10, 2), (50, 0, 60, 40, 255)))
    palette(marks / "dogs" / "00001.png", labels())
    (marks / "bear").mkdir()
    Image.fromarray(labels((5, 5, 15, 15, 255))).save(marks / "bear" / "00000.png")
    assert groups(tmp_path) == [[100], [100, 50], []]
    bear, first, second = open_source(tmp_path).images()
    assert (bear.stem, first.stem) == ("bear_00000", "dogs_00000")
    assert first.image_id == second.image_id != bear.image_id
    assert open_source(tmp_path).count_unlabelled() == 1
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(marks / "bear" / "00000.png")
    with pytest.raises(ValueError, match="got an image of mode RGB, expected a palette"):
        open_source(tmp_path).images()


def test_ade20k_reads_instances_of_objects_and_of_parts(tmp_path: Path) -> None:
    place = tmp_path / "validation" / "urban" / "street"
    photo(place / "ADE_val_00000007.jpg")
    photo(place / "ADE_val_00000008.jpg")
    for file, instances_HW in (
        ("ADE_val_00000007_seg.png", labels((0, 0, 30, 40, 1), (30, 0, 60, 20, 2))),
        ("ADE_val_00000007_parts_1.png", labels((0, 0, 5, 10, 7))),
        ("ADE_val_00000007_parts_2.png", labels((0, 0, 2, 2, 3))),
    ):
        of_one_class = np.stack([np.full(SIZE, 10), np.full(SIZE, 4), instances_HW], axis=-1).astype(np.uint8)
        Image.fromarray(of_one_class).save(place / file)
    assert groups(tmp_path) == [[1200, 600, 50, 4]]
    (image,) = open_source(tmp_path).images()
    assert (image.stem, image.image_id) == ("ADE_val_00000007", 7)
    assert open_source(tmp_path).count_unlabelled() == 1


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    assert find_benchmark(tmp_path) is None
    folder = bsds(tmp_path, [labels()])
    (tmp_path / "images" / "test" / "100007.jpg").unlink()
    with pytest.raises(ValueError, match="100007: got no such image"):
        open_source(folder).images()
    packed = folder / "100007.mat"
    savemat(packed, {"groundTruth": np.arange(1000)}, do_compression=True)
    data = packed.read_bytes()
    packed.write_bytes(data[:150] + bytes(20) + data[170:])
    with pytest.raises(ValueError, match="expected human segmentations of BSDS500"):
        open_source(folder).images()
    packed.write_bytes(b"no MAT file")
    with pytest.raises(ValueError, match="expected human segmentations of BSDS500"):
        open_source(folder).images()


def test_a_folder_of_sa1b_with_files_like_a_benchmarks_is_no_benchmark(tmp_path: Path) -> None:
    photo(tmp_path / "nuclei" / "one.jpg")
    (tmp_path / "nuclei" / "one.json").write_text("{}")
    (tmp_path / "stray.mat").write_bytes(b"")
    photo(tmp_path / "nuclei" / "alone_seg.png")
    assert find_benchmark(tmp_path) is None
    assert find_benchmark(tmp_path / "nuclei") is None
    photo(tmp_path / "nuclei" / "one_seg.png")  # ADE20K has a JSON file beside its label image
    assert find_benchmark(tmp_path) == Ade20kSource(folder=tmp_path)
    (tmp_path / "nuclei" / "one.jpg").unlink()
    assert find_benchmark(tmp_path) is None


def test_bsds_is_found_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bsds(tmp_path, [labels()]).parent)
    (image,) = open_source(Path("test")).images()
    assert (image.domain, image.origin) == ("bsds500_test", str(tmp_path / "images" / "test" / "100007.jpg"))
