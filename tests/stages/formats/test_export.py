"""Export of a snapshot: what comes back is the same pixel by pixel, and adds nothing to the dataset it came from."""

import fcntl
import json
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from pycocotools.coco import COCO

from engine.labelled import load_folder
from stages.formats.coco import read_coco, write_coco
from stages.formats.cvat import read_cvat, write_cvat
from stages.formats.export import Writer, export_snapshot
from stages.formats.import_labels import import_labels
from stages.formats.label_studio import read_label_studio, write_label_studio
from stages.formats.labels import Labels
from stages.formats.sa1b import read_sa1b, write_sa1b
from stages.formats.yolo import read_yolo, write_yolo
from storage import rle
from storage.dataset import Dataset
from tests.stages.formats.labelled import in_order, stored_masks
from tests.stages.release.photos import make_dataset

WRITERS: dict[str, Writer] = {
    "coco": write_coco,
    "sa1b": write_sa1b,
    "cvat": write_cvat,
    "label-studio": write_label_studio,
    "yolo": write_yolo,
}


def read(form: str, folder: Path) -> Labels:
    match form:
        case "coco":
            return read_coco(folder / "instances.json")
        case "cvat":
            return read_cvat(folder)
        case "label-studio":
            return read_label_studio(folder)
        case "yolo":
            return read_yolo(folder)
        case _:
            return next(read_sa1b(folder))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Seven images, JPEG and PNG; each has two masks with a hole and two parts, made by a person and by a model."""
    return make_dataset(tmp_path_factory.mktemp("source") / "data")


def by_image(dataset: Dataset) -> set[frozenset[bytes]]:
    """Collect the pixels of each image's masks."""
    return {frozenset(mask.tobytes() for mask in masks) for masks in stored_masks(dataset).values()}


@pytest.mark.parametrize("form", [*WRITERS])
def test_what_is_exported_and_imported_again_is_the_same(source: Dataset, tmp_path: Path, form: str) -> None:
    snapshot = source.snapshot().snapshot_id
    report = export_snapshot(source, snapshot, tmp_path / "out", form, WRITERS[form])
    assert (report.images, report.masks, report.loss is None) == (7, 28, form != "yolo")
    assert len(list((tmp_path / "out" / "images").glob("*.???"))) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

    other = Dataset.create(tmp_path / "other")
    imported = import_labels(other, read(form, tmp_path / "out"))
    assert (imported.images, imported.masks, imported.there_already, imported.left_out) == (7, 14, 14, ())
    assert by_image(other) == by_image(source)
    assert len(by_image(source)) == 7

    own = Dataset.open(source.uri)
    back = import_labels(own, read(form, tmp_path / "out"))
    assert (back.new_images, back.new_masks, back.there_already) == (0, 0, 28)


def test_coco_is_read_by_pycocotools(source: Dataset, tmp_path: Path) -> None:
    export_snapshot(source, source.snapshot().snapshot_id, tmp_path / "out", "coco", write_coco)
    theirs = COCO(tmp_path / "out" / "instances.json")
    assert (len(theirs.imgs), len(theirs.anns)) == (7, 28)
    for image in theirs.imgs.values():
        assert (tmp_path / "out" / "images" / image["file_name"]).is_file()
        annotations = theirs.loadAnns(theirs.getAnnIds(image["id"]))
        ours = source.masks_of_image(int(image["file_name"][:16], 16)).to_pylist()
        pixels = [rle.decode(source.read_mask(row["image_id"], row["mask_id"]).rle) for row in ours]
        np.testing.assert_array_equal(in_order([theirs.annToMask(each) > 0 for each in annotations]), in_order(pixels))
        for each in annotations:
            assert (each["iscrowd"], each["area"]) == (0, theirs.annToMask(each).sum())


def test_images_without_a_licence_have_none_in_coco_and_get_none_from_it(source: Dataset, tmp_path: Path) -> None:
    export_snapshot(source, source.snapshot().snapshot_id, tmp_path / "out", "coco", write_coco)
    file = tmp_path / "out" / "instances.json"
    content = json.loads(file.read_text())
    (unlicensed,) = [image for image in content["images"] if "license" not in image]
    assert {each["name"] for each in content["licenses"]} == {"CC-BY-4.0", "CC0-1.0"}

    content["licenses"].append({"id": 9, "name": "none given"})  # as the COCO file of a release says it
    unlicensed["license"] = 9
    file.write_text(json.dumps(content))
    assert [photo.license for photo in read_coco(file).photos].count("") == 1


def test_sa1b_is_read_as_labelled_images(source: Dataset, tmp_path: Path) -> None:
    export_snapshot(source, source.snapshot().snapshot_id, tmp_path / "out", "sa1b", write_sa1b)
    assert sum(image.num_masks for image in load_folder(tmp_path / "out")) == 28


def test_a_folder_that_holds_something_is_refused_and_an_unfinished_one_begun_again(
    source: Dataset, tmp_path: Path
) -> None:
    snapshot = source.snapshot().snapshot_id

    def stop(done: int, total: int, masks: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_snapshot(source, snapshot, tmp_path / "out", "coco", write_coco, on_image=stop)
    assert not (tmp_path / "out").exists()
    (tmp_path / ".out.unfinished" / "left").mkdir(parents=True)  # by a process that was killed
    export_snapshot(source, snapshot, tmp_path / "out", "coco", write_coco)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images", "instances.json"]
    with pytest.raises(ValueError, match="there already and not empty"):
        export_snapshot(source, snapshot, tmp_path / "out", "coco", write_coco)


def test_a_link_to_an_empty_folder_is_followed_and_the_current_folder_refused_before_the_work(
    source: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = source.snapshot().snapshot_id
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    export_snapshot(source, snapshot, tmp_path / "link", "coco", write_coco)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "instances.json").is_file()

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = list[int]()
    with pytest.raises(ValueError, match="the current folder and a mounted disk cannot be replaced"):
        export_snapshot(source, snapshot, Path(), "coco", write_coco, on_image=lambda *numbers: done.extend(numbers))
    assert (done, sorted(path.name for path in tmp_path.iterdir())) == ([], ["disk", "here", "link"])


@pytest.mark.parametrize(("ended", "words"), [(False, "there already and not empty"), (True, "another process writes")])
def test_what_another_process_did_before_the_lock_was_taken_is_seen(
    source: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool, words: str
) -> None:
    out = tmp_path / "out"
    flock = fcntl.flock

    def lock(file: IO[str], how: int) -> None:
        if ended:
            Path(file.name).unlink()
        else:
            out.mkdir()
            (out / "theirs").touch()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", lock)
    with pytest.raises(ValueError, match=words):
        export_snapshot(source, source.snapshot().snapshot_id, out, "coco", write_coco)
    assert [path.name for path in tmp_path.rglob("*")] == ([] if ended else ["out", "theirs"])


def test_masks_that_were_withdrawn_since_the_snapshot_are_left_out(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    snapshot = dataset.snapshot().snapshot_id
    row = dataset.query("SELECT image_id, mask_id FROM masks ORDER BY 1, 2 LIMIT 1").to_pylist()[0]
    dataset.withdraw([(row["image_id"], row["mask_id"])], "a wish")
    report = export_snapshot(dataset, snapshot, tmp_path / "out", "coco", write_coco)
    assert (report.masks, report.masks_left_out) == (27, {"withdrawn since the snapshot": 1})
    assert len(COCO(tmp_path / "out" / "instances.json").anns) == 27
