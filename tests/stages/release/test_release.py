"""Releases: the form of SA-1B, the same bytes again, and what a killed process leaves."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from stages.release.choose import choose
from stages.release.config import ReleaseConfig
from stages.release.folder import ReleaseFolder
from stages.release.release import ReleaseProgress, write_release
from storage import rle
from storage.dataset import Dataset
from tests.paths import DATA, ROOT
from tests.stages.release.conftest import CONFIG, Released
from tests.stages.release.outside_reader import ReadImage, check_checksums, read_folder
from tests.stages.release.photos import ANNOTATOR, ROUND, SECRET, make_dataset, stored_images


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_images(released: Released) -> list[ReadImage]:
    return list(read_folder(released.out))


def test_an_outside_reader_finds_every_image_and_mask_in_the_form_of_sa_1b(released: Released) -> None:
    images = read_images(released)
    assert [image.name for image in images] == [f"sa_{number}" for number in range(1, 7)]
    assert [each["id"] for image in images for each in image.document["annotations"]] == list(range(1, 25))
    assert sorted(path.name for path in released.out.glob("*.tar")) == ["sa_000000.tar", "sa_000001.tar"]
    manifest = json.loads((released.out / "release.json").read_bytes())
    assert (manifest["images"], manifest["masks"], manifest["deidentified"]) == (6, 24, False)
    assert check_checksums(released.out) == len(manifest["files"]) - 1


def test_pycocotools_reads_the_masks_of_the_snapshot_pixel_by_pixel(released: Released) -> None:
    order = sorted((image for image, _ in stored_images()[:6]), key=lambda image: image.image_id)
    for image, read in zip(order, read_images(released), strict=True):
        rows = released.dataset.masks_of_image(image.image_id, released.snapshot).sort_by("part").to_pylist()
        stored = {rle.decode(released.dataset.read_mask(image.image_id, row["mask_id"]).rle).tobytes() for row in rows}
        assert {mask.astype(bool).tobytes() for mask in read.masks()} == stored
        assert len(rows) == len(read.masks()) == 4


def test_masks_of_people_have_no_scores_and_no_point(released: Released) -> None:
    annotations = [each for image in read_images(released) for each in image.document["annotations"]]
    by_people = [each for each in annotations if each["predicted_iou"] is None]
    assert len(by_people) == 12
    assert all(each["stability_score"] is None and each["point_coords"] == [] for each in by_people)
    assert {each["predicted_iou"] for each in annotations if each not in by_people} == {0.875}


def test_nothing_private_leaves(released: Released) -> None:
    files = contents(released.out)
    tables = [pq.read_table(io.BytesIO(data)) for name, data in files.items() if name.endswith(".parquet")]
    text = b"".join(files.values()) + repr([table.to_pylist() for table in tables]).encode()
    for image, data in stored_images():
        assert str(image.image_id).encode() not in text
        assert image.key.encode() not in text
        assert data in text or image.source_sha256.encode() not in text  # an unchanged file has the hash of its photo
    assert SECRET not in text
    assert ANNOTATOR.encode() not in text
    assert ROUND.encode() not in text
    assert released.dataset.uri.encode() not in text


def test_the_tables_say_what_the_tars_hold(released: Released) -> None:
    images = {image.name: image for image in read_images(released)}
    image_rows = pq.read_table(released.out / "images").to_pylist()
    mask_rows = pq.read_table(released.out / "masks").to_pylist()
    assert [row["file_name"] for row in image_rows] == [f"{name}.jpg" for name in images]
    for row in image_rows:
        image = images[row["file_name"].removesuffix(".jpg")]
        assert row["sha256"] == hashlib.sha256(image.jpeg).hexdigest()
        assert row["masks"] == len(image.document["annotations"])
    annotations = {each["id"]: (name, each) for name, image in images.items() for each in image.document["annotations"]}
    for row in mask_rows:
        name, annotation = annotations[row["id"]]
        assert row["file_name"] == f"{name}.jpg"
        assert {"size": [row["height"], row["width"]], "counts": row["counts"]} == annotation["segmentation"]
        assert all(row[field] == annotation[field] for field in ("bbox", "area", "predicted_iou", "crop_box"))
    assert {(row["stage"], row["model_id"]) for row in mask_rows} == {
        ("fully_automatic", "one-1"),
        ("assisted_manual", ""),
    }
    licences = {row["source"]: row["license"] for row in image_rows}
    assert licences == {image.source.removeprefix("photos/"): image.license for image, _ in stored_images()[:6]}


def test_attributions_and_the_held_out_images_are_listed(released: Released) -> None:
    lines = (released.out / "ATTRIBUTIONS.csv").read_text().splitlines()
    assert lines[0] == "file_name,license,source"
    assert sorted(line.split(",", 1)[1] for line in lines[1:]) == sorted(
        f"{image.license},{image.source.removeprefix('photos/')}" for image, _ in stored_images()[:6]
    )
    order = sorted(image.image_id for image, _ in stored_images()[:6])
    held_out = [f"sa_{place + 1}.jpg" for place, image_id in enumerate(order) if image_id % 2 == 0]
    assert 0 < len(held_out) < 6
    assert (released.out / "holdout.txt").read_text().splitlines() == held_out


def test_sources_stay_where_asked(released: Released, tmp_path: Path) -> None:
    assert b",0.jpg" in (released.out / "ATTRIBUTIONS.csv").read_bytes()
    assert all(b"photos/" not in data for data in contents(released.out).values())
    config = ReleaseConfig(not_deidentified=True, with_sources=False)
    write_release(released.dataset, choose(released.dataset, released.snapshot, config), tmp_path / "out", config)
    assert set(pq.read_table(tmp_path / "out" / "images")["source"].to_pylist()) == {""}
    assert ",0.jpg" not in (tmp_path / "out" / "ATTRIBUTIONS.csv").read_text()


def test_webdataset_reads_the_tars(released: Released) -> None:
    paths = sorted(str(path) for path in released.out.glob("*.tar"))
    samples = list(webdataset.WebDataset(paths, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [image.name for image in read_images(released)]
    for sample, image in zip(samples, read_images(released), strict=True):
        assert sample["json"] == image.document
        assert np.array_equal(sample["jpg"], np.asarray(Image.open(io.BytesIO(image.jpeg)).convert("RGB")))


def test_the_same_snapshot_gives_the_same_bytes(released: Released, tmp_path: Path) -> None:
    assert contents(released.again(tmp_path / "again")) == contents(released.out)


def test_a_finished_release_is_left_as_it_is(released: Released, tmp_path: Path) -> None:
    out = released.again(tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    released.again(out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_interrupted_at_any_rename_it_continues_to_the_same_bytes(
    released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.replace
    left = 0

    def fail_after_some(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("power cut")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail_after_some)
    complete = contents(released.out)
    renames = 0
    while True:
        left, out = renames, tmp_path / f"after-{renames}"
        try:
            released.again(out)
        except OSError:
            assert not (out / "release.json").exists()
            left = 1000
            released.again(out)
            assert contents(out) == complete
            renames += 1
        else:
            break
    assert renames >= 15  # two tars of three files and a record each, five lists and documents, the id, the manifest


def test_killed_in_the_middle_of_a_tar_it_continues_to_the_same_bytes(released: Released, tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from stages.release import tars
from stages.release.choose import choose
from stages.release.folder import ReleaseFolder
from stages.release.release import ReleaseProgress, write_release
from storage.dataset import Dataset
from tests.stages.release.conftest import CONFIG
made = 0
def die_at_the_sixth(*arguments):
    global made
    made += 1
    if made == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return make_picture(*arguments)
make_picture, tars.make_picture = tars.make_picture, die_at_the_sixth
dataset = Dataset.open({released.dataset.uri!r})
write_release(dataset, choose(dataset, {released.snapshot!r}, CONFIG), Path({str(tmp_path / "out")!r}), CONFIG)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=200)
    assert done.returncode == -signal.SIGKILL
    files = contents(tmp_path / "out")
    assert "sa_000000.tar" in files
    assert "sa_000001.tar" not in files
    assert ".unfinished/sa_000001.tar.tmp" in files
    assert contents(released.again(tmp_path / "out")) == contents(released.out)


def test_another_release_or_other_files_in_the_folder_are_refused(released: Released, tmp_path: Path) -> None:
    out = released.again(tmp_path / "out")
    before = contents(out)
    other = ReleaseConfig(not_deidentified=True, images_per_tar=3)
    with pytest.raises(ValueError, match="another snapshot, other settings"):
        write_release(released.dataset, choose(released.dataset, released.snapshot, other), out, other)
    assert contents(out) == before
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter.txt").touch()
    with pytest.raises(ValueError, match=r"not empty \(letter.txt is there\)"):
        released.again(tmp_path / "used")
    with pytest.raises(ValueError, match="a file is there"):
        released.again(tmp_path / "used" / "letter.txt")


def test_two_processes_do_not_write_the_same_release(released: Released, tmp_path: Path) -> None:
    folder = ReleaseFolder(tmp_path / "out", released.choice.release_id(CONFIG))
    with folder.writing(), pytest.raises(ValueError, match="another process writes this release"):
        released.again(tmp_path / "out")
    released.again(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(released.out)


def test_snapshots_that_an_earlier_version_took_are_released(tmp_path: Path) -> None:
    """They have no table of annotations, and a mask of the first was withdrawn since."""
    with tarfile.open(DATA / "dataset_0_1" / "dataset.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    dataset = Dataset.open(tmp_path / "dataset")
    released_masks = []
    for snapshot in dataset.snapshots():
        choice = choose(dataset, snapshot.snapshot_id, CONFIG)
        write_release(dataset, choice, tmp_path / snapshot.snapshot_id, CONFIG)
        images = list(read_folder(tmp_path / snapshot.snapshot_id))
        assert len(images) == len(choice)
        released_masks.append(sum(len(image.masks()) for image in images))
        (row,) = dataset.query("SELECT count(*) AS masks FROM masks", snapshot.snapshot_id).to_pylist()
        assert choice.masks + sum(choice.masks_left_out.values()) == row["masks"]
    assert released_masks == [2, 7]


def test_progress_counts_every_image_and_what_was_there_before_apart(released: Released, tmp_path: Path) -> None:
    seen = list[ReleaseProgress]()

    def stop_at_the_fifth(now: ReleaseProgress) -> None:
        seen.append(now)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_release(released.dataset, released.choice, tmp_path / "out", CONFIG, stop_at_the_fifth)
    assert [(now.images, now.new_images, now.new_masks) for now in seen] == [(n, n, 4 * n) for n in range(1, 6)]
    write_release(released.dataset, released.choice, tmp_path / "out", CONFIG, stop_at_the_fifth)
    assert [(now.images, now.images_total, now.new_images, now.masks, now.new_masks) for now in seen[5:]] == [
        (4, 6, 0, 16, 0),
        (5, 6, 1, 20, 4),
        (6, 6, 2, 24, 8),
    ]


@pytest.mark.parametrize("taken_back", ["mask", "image"])
def test_what_is_taken_back_during_the_writing_leaves_no_release(tmp_path: Path, taken_back: str) -> None:
    dataset = make_dataset(tmp_path / "dataset")
    choice = choose(dataset, dataset.snapshot().snapshot_id, CONFIG)
    image_id = int(choice.image_ids[0])

    def take_back(now: ReleaseProgress) -> None:
        if now.images == len(choice) and taken_back == "mask":
            (row, *_) = dataset.masks(f"image_id = {image_id}", ["mask_id"]).read_all().to_pylist()
            dataset.withdraw([(image_id, row["mask_id"])], "a person's wish")
        elif now.images == len(choice):
            dataset.erase([image_id], "a person's wish")

    with pytest.raises(ValueError, match="withdrawn or images erased while the release was written; delete the folder"):
        write_release(dataset, choice, tmp_path / "out", CONFIG, take_back)
    assert not (tmp_path / "out" / "release.json").exists()
    with pytest.raises(ValueError, match="delete it, or give a new folder"):
        write_release(dataset, choose(dataset, choice.snapshot.snapshot_id, CONFIG), tmp_path / "out", CONFIG)
