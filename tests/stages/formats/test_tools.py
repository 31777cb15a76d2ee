"""Files as CVAT, Label Studio and YOLO's tools write them: their exact form, their traps, and what is left out."""

import base64
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from stages.formats import brush, yolo
from stages.formats.coco import read_coco
from stages.formats.cvat import read_cvat, write_cvat
from stages.formats.export import TooLossy, export_snapshot
from stages.formats.import_labels import ImportReport, import_labels
from stages.formats.label_studio import read_label_studio, write_label_studio
from stages.formats.labels import Labels
from stages.formats.yolo import read_yolo, write_yolo
from storage.dataset import Dataset
from tests.stages.formats.labelled import stored_masks, write_coco
from tests.stages.release.photos import make_dataset

SIZE = HEIGHT, WIDTH = (40, 60)
MASK = np.zeros(SIZE, np.bool_)
MASK[:2, 1:3] = MASK[2, 2] = True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with a photo `images/a.jpg`."""
    (tmp_path / "labels" / "images").mkdir(parents=True)
    Image.effect_noise((WIDTH, HEIGHT), 90).convert("RGB").save(tmp_path / "labels" / "images" / "a.jpg")
    return tmp_path / "labels"


def masks_of(dataset: Dataset, labels: Labels) -> tuple[list[np.ndarray], ImportReport]:
    report = import_labels(dataset, labels)
    ((_, masks),) = stored_masks(dataset).items()
    return masks, report


def reasons(report: ImportReport) -> dict[str, str]:
    return {each.what: each.reason for each in report.left_out}


def test_cvat_masks_run_row_by_row_in_their_box(dataset: Dataset, folder: Path) -> None:
    (folder / "annotations.xml").write_text(f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>t</name></task></meta>
 <image id="5" name="a.jpg" width="{WIDTH}" height="{HEIGHT}">
  <mask label="dog" source="manual" occluded="0" rle="0, 4, 1, 1" left="1" top="0" width="2" height="3" z_order="0"/>
  <polygon label="cat" points="5.0,5.0;15.0,5.0;15.0,12.0;5.0,12.0" z_order="0"></polygon>
  <box label="cat" xtl="1" ytl="1" xbr="5" ybr="5"></box>
  <mask label="dog" rle="0, 4, 1" left="1" top="0" width="2" height="3"/>
  <mask label="dog" rle="0, 6" left="59" top="0" width="2" height="3"/>
 </image>
 <track id="0" label="dog"><mask frame="0"/></track></annotations>""")
    masks, report = masks_of(dataset, read_cvat(folder))
    square = np.zeros(SIZE, np.bool_)
    square[5:12, 5:15] = True
    assert {mask.tobytes() for mask in masks} == {MASK.tobytes(), square.tobytes()}
    assert report.categories == {"cat": 1, "dog": 1}
    assert reasons(report) == {
        "track 0": "track",
        "image 5, box 2": "not_a_mask",
        "image 5, mask 3": "malformed",
        "image 5, mask 4": "malformed",
    }


def test_cvat_gets_runs_that_fill_their_box_and_attributes_that_its_label_declares(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    export_snapshot(dataset, dataset.snapshot().snapshot_id, tmp_path / "out", "cvat", write_cvat)
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    declared = [each.text for each in root.iterfind("meta/task/labels/label/attributes/attribute/name")]
    assert root.findtext("version") == "1.1"
    shapes = root.findall("image/mask")
    assert len(shapes) == 28
    for shape in shapes:
        runs = [int(run) for run in shape.attrib["rle"].split(", ")]
        assert sum(runs) == int(shape.attrib["width"]) * int(shape.attrib["height"])
        assert [each.get("name") for each in shape] == declared
    for image in root.iterfind("image"):
        stored = dataset.masks_of_image(int(image.attrib["name"][:16], 16))
        ids = {each.findtext("attribute[@name='gigamask_id']") for each in image}
        assert ids == {str(mask_id) for mask_id in stored["mask_id"].to_pylist()}


def region(value: dict[str, Any], name: str, kind: str = "brushlabels", **fields: Any) -> dict[str, Any]:
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {"id": name, "type": kind, "from_name": "tag", "to_name": "image", **size, "value": value, **fields}


def bitmap(mask: np.ndarray) -> str:
    """A bitmap as Label Studio's: black where the mask is, else transparent."""
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[..., 3] = np.where(mask, 255, 0)
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def test_label_studio_brushes_bitmasks_and_polygons_are_taken(dataset: Dataset, folder: Path) -> None:
    disc = cv2.circle(np.zeros(SIZE, np.uint8), (30, 20), 9, 1, -1) > 0
    runs = {"format": "rle", "rle": brush.encode(MASK), "brushlabels": ["dog"]}
    percent = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ((5, 5), (15, 5), (15, 12), (5, 12))]
    results = [
        region(runs, "m1"),
        region({**runs, "labels": ["dog"]}, "m1", "labels"),  # the same region by its second tag
        region({"imageDataURL": bitmap(disc), "bitmasklabels": ["cat"]}, "m2", "bitmasklabels"),
        region({"points": percent, "closed": True, "polygonlabels": ["cat"]}, "m3", "polygonlabels"),
        region({"x": 1, "y": 1, "width": 5, "height": 5}, "m4", "rectanglelabels"),
        region(runs, "m5") | {"image_rotation": 90},
        region({"format": "rle", "rle": [1, 2, 3]}, "m6"),
        {"id": "c", "type": "choices", "value": {"choices": ["good"]}},
    ]
    task = {
        "id": 7,
        "data": {"image": "/data/upload/1/1a2b3c4d-a.jpg"},
        "annotations": [{"id": 1, "result": results}, {"id": 2, "was_cancelled": True, "result": results[:1]}],
        "predictions": [{"result": results[:2]}],
    }
    (folder / "tasks.json").write_text(json.dumps([task]))
    masks, report = masks_of(dataset, read_label_studio(folder))
    square = np.zeros(SIZE, np.bool_)
    square[5:12, 5:15] = True
    assert {mask.tobytes() for mask in masks} == {MASK.tobytes(), disc.tobytes(), square.tobytes()}
    assert report.categories == {"cat": 2, "dog": 1}
    assert reasons(report) == {
        "task 7, annotation 2": "skipped",
        "task 7, predictions": "prediction",
        "task 7, annotation 1, region m4": "not_a_mask",
        "task 7, annotation 1, region m5": "malformed",
        "task 7, annotation 1, region m6": "malformed",
        "task 7, annotation 1, region c": "not_a_mask",
    }


def test_label_studio_results_of_one_region_are_one_mask_in_any_order(dataset: Dataset, folder: Path) -> None:
    runs = {"format": "rle", "rle": brush.encode(MASK)}
    results = [
        region({"text": ["a note"]}, "m1", "textarea"),
        region({"labels": ["dog"]}, "m1", "labels"),
        region(runs, "m1", "brush"),
        region({"text": ["a note"]}, "m2", "textarea"),
        region({"choices": ["good"]}, "m2", "choices"),
    ]
    annotations = [{"id": 1, "result": results}, {"id": 2, "result": None}]
    tasks = [
        {"id": 7, "data": {"image": "a.jpg"}, "annotations": annotations, "predictions": [{"result": None}, 3]},
        {"id": 8, "data": {"image": "b.jpg"}, "annotations": None, "predictions": None},
    ]
    (folder / "tasks.json").write_text(json.dumps(tasks))
    labels = read_label_studio(folder)
    assert [photo.num_masks for photo in labels.photos] == [2, 0]
    masks, report = masks_of(dataset, labels)
    np.testing.assert_array_equal(masks, [MASK])
    assert report.categories == {"dog": 1}
    assert reasons(report) == {
        "task 7, predictions": "prediction",
        "task 7, annotation 1, region m2": "not_a_mask",
        "photo b.jpg": "photo_missing",
    }


def test_label_studio_gets_opaque_masks_in_tasks_that_fit_the_interface(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    export_snapshot(dataset, dataset.snapshot().snapshot_id, tmp_path / "out", "label-studio", write_label_studio)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    view = ElementTree.parse(tmp_path / "out" / "label_config.xml").getroot()
    assert len(tasks) == 7
    for task in tasks:
        assert (tmp_path / "out" / task["data"]["image"].partition("?d=")[2]).is_file()
        regions = task["annotations"][0]["result"]
        assert len({each["id"] for each in regions}) == len(regions) == 4
        assert {(each["from_name"], each["to_name"]) for each in regions} == {
            (view.find("BrushLabels").get("name"), view.find("Image").get("name"))
        }


def test_yolo_rows_are_polygons_in_fractions(dataset: Dataset, folder: Path) -> None:
    (folder / "labels").mkdir()
    ring = [(1, 0), (3, 0), (3, 3), (2, 3), (2, 2), (1, 2)]
    row = " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in ring)
    rows = [f"2 {row}", "1 0.5 0.5 0.2 0.2", "0 0.1 0.1 0.2 0.2", "0 0.1 0.1 5 0.2 0.3 0.3", "0 a b c d e f"]
    (folder / "labels" / "a.txt").write_text("\n".join(rows), encoding="utf-8-sig")  # as Windows writes it
    (folder / "labels" / "gone.txt").write_text(f"0 {row}\n")
    masks, report = masks_of(dataset, read_yolo(folder))
    np.testing.assert_array_equal(masks, [MASK])
    assert report.categories == {"class 2": 1}
    assert reasons(report) == {
        "a.txt, row 2": "not_a_mask",
        "a.txt, row 3": "not_a_mask",
        "a.txt, row 4": "malformed",
        "a.txt, row 5": "malformed",
        "photo images/gone.jpg": "photo_missing",
    }


def test_yolo_says_what_is_lost_and_refuses_below_a_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path / "data")
    snapshot = dataset.snapshot().snapshot_id
    report = export_snapshot(dataset, snapshot, tmp_path / "out", "yolo", write_yolo, min_iou=1.0)
    assert report.loss is not None
    assert (report.loss.min_iou, report.loss.mean_iou, report.loss.changed) == (1.0, 1.0, 0)
    assert 0.8 < report.loss.mean_iou_opencv < 1.0  # it fills half a pixel more on every side

    # Rings that are really poorer, since those that are written lose nothing: holes and further parts are dropped
    monkeypatch.setattr(yolo, "join", lambda rings: max(rings, key=lambda ring: np.ptp(ring, axis=0).prod()))
    lossy = export_snapshot(dataset, snapshot, tmp_path / "lossy", "yolo", write_yolo, min_iou=0.1).loss
    assert lossy is not None
    assert 0.1 < lossy.min_iou < 1.0
    assert lossy.mean_iou == pytest.approx(lossy.min_iou)  # all masks have the same form
    assert lossy.changed == 28
    above = (lossy.min_iou + 1) / 2
    with pytest.raises(TooLossy, match=rf"{lossy.worst}, .* an IoU of {lossy.min_iou:.3f} .*; nothing was written"):
        export_snapshot(dataset, snapshot, tmp_path / "refused", "yolo", write_yolo, min_iou=above)
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("form", ["cvat", "label-studio", "yolo"])
def test_masks_of_photographs_come_back_pixel_by_pixel(dataset: Dataset, tmp_path: Path, form: str) -> None:
    (tmp_path / "in").mkdir()
    first = import_labels(dataset, read_coco(write_coco(tmp_path / "in")))
    writer = {"cvat": write_cvat, "label-studio": write_label_studio, "yolo": write_yolo}[form]
    export_snapshot(dataset, dataset.snapshot().snapshot_id, tmp_path / "out", form, writer)
    reader = {"cvat": read_cvat, "label-studio": read_label_studio, "yolo": read_yolo}[form]
    back = import_labels(dataset, reader(tmp_path / "out"))
    assert (back.new_masks, back.there_already, back.left_out) == (0, first.masks, ())


@pytest.mark.parametrize(
    ("form", "content", "words"),
    [
        ("cvat", "<html/>", "got <html> as the outermost element"),
        ("cvat", "<annotations><image", "expected the XML of CVAT"),
        ("cvat", '<annotations><image id="1"/></annotations>', "expected the XML of CVAT"),
        ("label-studio", "[1]", "task 0 has no data and annotations"),
        ("label-studio", '{"a": 1}', "has no data and annotations"),
        ("label-studio", '[{"data": {"image": "a"}, "annotations": [3]}]', "task 0 has no data and annotations"),
        ("label-studio", '[{"data": {"image": "a"}, "annotations": 3}]', "task 0 has no data and annotations"),
        ("label-studio", '[{"data": {}, "annotations": [{"result": [3]}]}]', "task 0 has no data and annotations"),
        ("label-studio", "[", "broken JSON"),
        ("label-studio", '[{"data": {"text": 3}, "annotations": []}]', "no field 'image'"),
    ],
)
def test_what_is_no_file_of_the_format_is_refused(tmp_path: Path, form: str, content: str, words: str) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    with pytest.raises(ValueError, match=words):
        read_cvat(file) if form == "cvat" else read_label_studio(file)
    with pytest.raises(ValueError, match="got no text file there"):
        read_yolo(tmp_path)
