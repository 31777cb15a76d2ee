"""COCO's instances as ground truth: what pycocotools reads is what an evaluation gets."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner

from flows.cli.main import app
from stages.coco_source import CocoSource
from stages.formats.coco import read_coco
from storage import rle
from tests.tiny_network import save_tiny_model

SIZE = (48, 64)
SQUARE = [8.0, 8.0, 40.0, 8.0, 40.0, 30.0, 8.0, 30.0]
TRIANGLE = [44.5, 4.5, 60.2, 4.5, 52.0, 20.9]


def disc() -> np.ndarray:
    return cv2.circle(np.zeros(SIZE, np.uint8), (30, 24), 12, 1, -1)


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths as numbers: column by column, background first."""
    pixels = mask.T.ravel()
    edges = np.flatnonzero(np.diff(pixels, prepend=0)) if pixels.any() else np.empty(0, int)
    return {"size": list(SIZE), "counts": np.diff([0, *edges, pixels.size]).tolist()}


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    """Two images with all kinds of segmentations, one with a crowd alone, and their JSON in a folder beside them."""
    for number in range(3):
        (tmp_path / "val").mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "val" / f"{number:012}.jpg"), noise)
    compressed = {"size": list(SIZE), "counts": rle.to_coco(rle.encode(disc() > 0))}
    segmentations: list[tuple[int, Any, int]] = [
        (0, [SQUARE], 0),
        (0, [SQUARE, TRIANGLE], 0),
        (0, uncompressed(disc()), 1),
        (1, uncompressed(disc()), 0),
        (1, compressed, 0),
        (2, uncompressed(disc()), 1),
    ]
    content = {
        "images": [
            {"id": number, "file_name": f"{number:012}.jpg", "height": SIZE[0], "width": SIZE[1]} for number in range(3)
        ],
        "annotations": [
            {"id": number, "image_id": image, "segmentation": each, "iscrowd": crowd, "category_id": 1}
            for number, (image, each, crowd) in enumerate(segmentations)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances.json").write_text(json.dumps(content))
    return tmp_path / "annotations" / "instances.json"


def test_masks_are_those_of_pycocotools_and_crowds_are_left_out(instances: Path) -> None:
    source = CocoSource(file=instances, folder=instances.parent.parent / "val")
    theirs = COCO(instances)
    images = source.images()
    assert [image.image_id for image in images] == [0, 1]
    assert source.count_unlabelled() == 1
    for image in images:
        annotations = theirs.loadAnns(theirs.getAnnIds(imgIds=image.image_id, iscrowd=False))
        masks = [rle.decode(mask) for mask in image.masks_by_annotator[0]]
        assert len(masks) == len(annotations) == 2
        for mask, annotation in zip(masks, annotations, strict=True):
            np.testing.assert_array_equal(mask, theirs.annToMask(annotation) > 0)


def test_a_model_is_evaluated_on_them(instances: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--data", str(instances), "--images", str(tmp_path / "val"), "--beside", "none", "--json"]
    done = CliRunner().invoke(app, [*command, "--model", str(save_tiny_model(tmp_path))])
    assert done.exit_code == 0, done.output
    overall = json.loads(done.stdout)["overall"]
    assert (overall["images"], overall["masks"]) == (2, 4)


def test_points_and_lines_among_polygons_cover_nothing(instances: Path) -> None:
    """Annotation tools leave them behind; pycocotools fails on a line and takes a point for a box."""
    content = json.loads(instances.read_text())
    content["annotations"][0]["segmentation"] = [SQUARE, [26.0, 31.0, 50.0, 31.0], [9.0, 9.0]]
    instances.write_text(json.dumps(content))
    (image, _) = CocoSource(file=instances, folder=instances.parent.parent / "val").images()
    assert rle.area(image.masks_by_annotator[0][0]) == 32 * 22


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ([[26.0, 31.0, 50.0, 31.0]], "1 (got polygons of fewer than 3 points)"),
        (
            [[70.0, 5.0, 90.0, 5.0, 80.0, 20.5]],
            "outside of the image: x 70 to 90, y 5 to 20.5, the image has 64 x 48 px",
        ),
        ([[5.0, -9.0, 9.0, -9.0, 7.0, -3.0]], "outside of the image: x 5 to 9, y -9 to -3,"),
        ({"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}, "1 (its run lengths have no pixel)"),
    ],
)
def test_an_annotation_that_covers_no_pixel_is_left_out_and_named(
    segmentation: object, why: str, instances: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads(instances.read_text())
    content["annotations"][1]["segmentation"] = segmentation
    instances.write_text(json.dumps(content))
    (image, _) = CocoSource(file=instances, folder=instances.parent.parent / "val").images()
    assert len(image.masks_by_annotator[0]) == 1
    assert "1 annotations cover no pixel of their image and are left out: 1 (" in caplog.text
    assert why in caplog.text
    (labels, _, _) = read_coco(instances).photos
    (left_out,) = [each for each in labels.read(*SIZE).left_out if each.reason == "empty"]
    assert why.removeprefix("1 (").removesuffix(")") in left_out.detail


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0]]}, "no list of x and y in turn"),
        ({"segmentation": {"size": [48, 60], "counts": [48 * 60]}}, "got a mask of size [48, 60], expected [48, 64]"),
        ({"segmentation": {"size": [48, 64], "counts": [5, 6]}}, "run lengths of 11 pixels, expected 3072"),
        ({"segmentation": []}, "no polygons and no run lengths"),
        ({"image_id": 9}, "image_id 9, which no image of the file has"),
    ],
)
def test_an_annotation_that_does_not_fit_is_named(instances: Path, change: dict[str, Any], words: str) -> None:
    content = json.loads(instances.read_text())
    content["annotations"][1] |= change
    instances.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"instances\.json: annotation 1: ") as raised:
        CocoSource(file=instances, folder=instances.parent.parent / "val").images()
    assert words in str(raised.value)


def test_an_image_that_is_not_there_is_named_with_what_to_do(instances: Path) -> None:
    with pytest.raises(ValueError, match=r"000000000000.jpg: no such image, but .* names it; give --images FOLDER"):
        CocoSource(file=instances, folder=instances.parent).images()


def lvis(folder: Path) -> Path:
    """LVIS v1's JSON: no file names, no crowds, and two images of two folders of COCO."""
    parts = ("train2017", "val2017")
    urls = [f"http://images.cocodataset.org/{part}/{number:012}.jpg" for number, part in enumerate(parts)]
    for url in urls:
        place = folder / "coco" / "/".join(url.split("/")[-2:])
        place.parent.mkdir(parents=True)
        cv2.imwrite(str(place), np.zeros((*SIZE, 3), np.uint8))
    searched = {"not_exhaustive_category_ids": [2], "neg_category_ids": [7, 9]}
    common = {"height": SIZE[0], "width": SIZE[1], "license": 1, "flickr_url": "", "date_captured": ""}
    drawn = [(1, 3, SQUARE), (0, 1, SQUARE), (1, 2, TRIANGLE)]
    content = {
        "info": {},
        "licenses": [],
        "images": [{"id": number, "coco_url": url, **common, **searched} for number, url in enumerate(urls)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "segmentation": [ring], "area": 1.0, "bbox": []}
            for number, (image, category, ring) in enumerate(drawn, start=1)
        ],
        "categories": [
            {"id": number, "frequency": letter, "name": letter, "synset": f"{letter}.n.01", "image_count": 1}
            for number, letter in enumerate("rcf", start=1)
        ],
    }
    file = folder / "lvis_v1_val.json"
    file.write_text(json.dumps(content))
    return file


def test_lvis_names_images_by_url_and_masks_by_the_frequency_of_their_category(tmp_path: Path) -> None:
    file = lvis(tmp_path)
    first, second = CocoSource(file=file, folder=tmp_path / "coco").images()
    assert (first.stem, first.frequencies) == ("000000000000", ("rare",))
    assert second.frequencies == ("frequent", "common")
    assert rle.area(second.masks_by_annotator[0][0]) == 32 * 22
    assert second.read_bytes()[:2] == b"\xff\xd8"
    flat = tmp_path / "flat"
    (tmp_path / "coco" / "val2017").rename(flat)
    (tmp_path / "coco" / "train2017" / "000000000000.jpg").rename(flat / "000000000000.jpg")
    assert [image.origin for image in CocoSource(file=file, folder=flat).images()][1] == str(flat / "000000000001.jpg")


def test_a_category_that_lvis_does_not_list_is_refused(tmp_path: Path) -> None:
    file = lvis(tmp_path)
    content = json.loads(file.read_text())
    content["annotations"][1]["category_id"] = 5
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="annotation 2: got category_id 5"):
        CocoSource(file=file, folder=tmp_path / "coco").images()
