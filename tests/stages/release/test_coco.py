"""The COCO file of a release."""

import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from stages.release.choose import choose
from stages.release.config import ReleaseConfig
from stages.release.release import write_release
from stages.release.verification.verify import verify_release
from tests.stages.release.conftest import Released
from tests.stages.release.outside_reader import read_folder


def test_pycocotools_reads_the_coco_file_and_finds_the_masks_of_the_tars(released: Released, tmp_path: Path) -> None:
    config = ReleaseConfig(not_deidentified=True, allow_unlicensed=True, with_coco=True)
    out = tmp_path / "out"
    write_release(released.dataset, choose(released.dataset, released.snapshot, config), out, config)
    coco = COCO(str(out / "coco.json"))
    images = list(read_folder(out))
    assert [each["file_name"] for each in coco.loadImgs(coco.getImgIds())] == [f"{image.name}.jpg" for image in images]
    for image in images:
        found = coco.loadAnns(coco.getAnnIds(image.document["image"]["image_id"]))
        assert [each["bbox"] for each in found] == [each["bbox"] for each in image.document["annotations"]]
        for annotation, mask in zip(found, image.masks(), strict=True):
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert (annotation["iscrowd"], annotation["category_id"]) == (0, 1)
    names = {each["id"]: each["name"] for each in coco.dataset["licenses"]}
    assert {names[each["license"]] for each in coco.dataset["images"]} == {"CC-BY-4.0", "CC0-1.0", "none given"}

    assert not verify_release(out).faults
    document = json.loads((out / "coco.json").read_bytes())
    document["annotations"][0]["area"] += 1
    (out / "coco.json").write_text(json.dumps(document))
    manifest = json.loads((out / "release.json").read_bytes())
    assert "wrong size" in {fault.kind for fault in verify_release(out).faults}
    for file in manifest["files"]:
        if file["path"] == "coco.json":
            file["sha256"] = "0" * 64
    (out / "release.json").write_text(json.dumps(manifest))
    assert "wrong list" in {fault.kind for fault in verify_release(out).faults}
