import dataclasses
import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from storage import rle
from storage.formats.sa1b import parse_sa1b, sa1b_json
from storage.protocol.plans import PlannedShard, make_plan
from storage.records import ImageRecord, MaskRecord, image_id_of, image_key, mask_id_of

SHARD = PlannedShard(name="00000")
PLAN = make_plan("masks", [SHARD], {})


@pytest.fixture
def annotated(samples: SimpleNamespace) -> tuple[ImageRecord, list[MaskRecord]]:
    image, _ = samples.make_image(1)
    return image, samples.make_masks(image, PLAN, SHARD)


def test_ids_follow_from_content_and_fit_63_bits() -> None:
    assert image_id_of("f" * 64) == 2**63 - 1
    assert image_key(image_id_of("0" * 15 + "2" + "f" * 48)) == "0000000000000001"
    assert mask_id_of("p", "s", 0, 7, 0) == mask_id_of("p", "s", 0, 7, 0)
    places = [("p", "s", 0, 7, 0), ("p", "s", 0, 7, 1), ("p", "s", 1, 7, 0), ("ps", "", 0, 7, 0), ("p", "s0", 7, 0, 0)]
    assert len({mask_id_of(*place) for place in places}) == len(places)
    assert all(0 <= mask_id_of(*place) < 2**63 for place in places)


def test_an_annotation_file_has_exactly_sa1b_fields(annotated: tuple[ImageRecord, list[MaskRecord]]) -> None:
    image, masks = annotated
    document = json.loads(json.dumps(sa1b_json(image, masks), allow_nan=False))
    assert set(document) == {"image", "annotations"}
    assert set(document["image"]) == {"image_id", "width", "height", "file_name"}
    for annotation in document["annotations"]:
        assert set(annotation) == {
            "id", "segmentation", "bbox", "area", "predicted_iou", "stability_score", "crop_box", "point_coords",
        }  # fmt: skip
        pixels = coco.decode(annotation["segmentation"])
        assert pixels.shape == (image.height, image.width)
        assert int(pixels.sum()) == annotation["area"]
        assert coco.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]


def test_reading_an_annotation_file_gives_the_masks_back(annotated: tuple[ImageRecord, list[MaskRecord]]) -> None:
    image, masks = annotated
    read_image, read_masks = parse_sa1b(json.loads(json.dumps(sa1b_json(image, masks))), provenance=masks[0].provenance)
    assert (read_image.image_id, read_image.key, read_image.format) == (image.image_id, image.key, "jpg")
    assert repr(read_masks) == repr(masks)  # repr, since a score that was never taken is NaN
    assert [mask.rle for mask in read_masks] == [mask.rle for mask in masks]
    assert math.isnan(read_masks[-1].predicted_iou)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.pop("image"), "'image' is missing"),
        (lambda document: document["annotations"][0].pop("area"), "'area' is missing"),
        (lambda document: document["annotations"][0].update(area=1), "area says 1"),
        (lambda document: document["image"].update(width=61), "its image's 40 x 61"),
        (lambda document: document["annotations"][0].update(segmentation=7), "wrong type"),
    ],
)
def test_an_annotation_file_that_contradicts_itself_is_refused(
    annotated: tuple[ImageRecord, list[MaskRecord]], change: Callable[[Any], object], message: str
) -> None:
    document = sa1b_json(*annotated)
    change(document)
    with pytest.raises(ValueError, match=message):
        parse_sa1b(document)


def test_numpy_numbers_are_written_as_plain_json(annotated: tuple[ImageRecord, list[MaskRecord]]) -> None:
    image, masks = annotated
    mask = dataclasses.replace(
        masks[0], mask_id=np.int64(5), area_px=np.int64(rle.area(masks[0].rle)), predicted_iou=np.float32(0.5)
    )
    assert json.loads(json.dumps(sa1b_json(image, [mask])))["annotations"][0]["id"] == 5
