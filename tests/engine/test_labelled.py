import codecs
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.labelled import load_folder, read_pixels, unlabelled_images
from storage import rle
from tests.paths import PHOTOS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of two labelled photographs of one domain, to be damaged."""
    return Path(shutil.copytree(PHOTOS / "nuts", tmp_path / "nuts"))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_folders_below_are_the_domains_and_their_masks_have_the_areas_of_the_json() -> None:
    images = load_folder(PHOTOS)
    assert [image.domain for image in images] == ["coco"] * 2 + ["facade"] * 2 + ["nuclei"] * 3 + ["nuts"] * 2
    assert sum(image.num_masks for image in images) == 299
    for image in images:
        annotations = json.loads(Path(image.origin).with_suffix(".json").read_text())["annotations"]
        assert [rle.area(mask) for mask in image.masks_by_annotator[0]] == [one["area"] for one in annotations]
        assert read_pixels(image).shape == (image.height, image.width, 3)


def test_a_flat_folder_is_one_domain_of_its_name(folder: Path) -> None:
    assert [(image.domain, image.stem) for image in load_folder(folder)] == [("nuts", "nuts_0"), ("nuts", "nuts_1")]


def test_annotators_are_kept_apart(folder: Path) -> None:
    def second_person(content: Any) -> None:
        for annotation in content["annotations"][::2]:
            annotation["annotator"] = 3

    edit(folder / "nuts_1.json", second_person)
    masks = load_folder(folder)[1].masks_by_annotator
    assert {annotator: len(drawn) for annotator, drawn in masks.items()} == {0: 4, 3: 5}


def test_pictures_without_labels_are_named(folder: Path) -> None:
    (folder / "nuts_0.json").unlink()
    assert [image.stem for image in load_folder(folder)] == ["nuts_1"]
    assert unlabelled_images(folder) == [folder / "nuts_0.jpg"]


def test_a_missing_folder_and_one_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: got no folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="got no JSON"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text(path.read_text()[:500]), "broken JSON"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00\x00"), "not UTF-8"),
        (lambda path: path.write_text("[1, 2]"), "expected"),
        (lambda path: edit(path, lambda content: content.pop("annotations")), "'annotations'"),
        (lambda path: edit(path, lambda content: content["image"].pop("height")), "'height'"),
        (
            lambda path: edit(path, lambda content: content["image"].update(width=801)),
            "annotation 0: got a mask of size",
        ),
        (lambda path: edit(path, lambda c: c["annotations"][2]["segmentation"].update(counts="04")), "annotation 2"),
        (lambda path: edit(path, lambda c: c["annotations"][1]["segmentation"].update(counts=[1, 2])), "type list"),
        (lambda path: path.with_suffix(".jpg").unlink(), "no image beside it"),
    ],
)
def test_a_damaged_label_file_is_refused_by_name(folder: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(folder / "nuts_1.json")
    with pytest.raises(ValueError, match=r"nuts_1\.json: .*" + message.replace("[", r"\[")):
        load_folder(folder)


def test_a_label_file_with_a_byte_order_mark_is_read(folder: Path) -> None:
    path = folder / "nuts_1.json"
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert load_folder(folder)


def test_a_truncated_or_exchanged_picture_is_refused_by_name(folder: Path) -> None:
    image = load_folder(folder)[0]
    Path(image.origin).write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"nuts_0\.jpg: .*expected a JPEG"):
        read_pixels(image)
    cv2.imwrite(str(Path(image.origin)), np.zeros((600, 799, 3), np.uint8))
    with pytest.raises(ValueError, match=r"nuts_0\.jpg: got an image of 799x600, but its JSON says 800x600"):
        read_pixels(image)
