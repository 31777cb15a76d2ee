"""docs/dataset.md: its columns are those of the code, and every example in it runs on a real dataset."""

import re
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from storage import rle
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange
from storage.protocol.plans import PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, Reject, mask_id_of
from storage.tables.columns import SCHEMAS
from tests.image_records import image_record, photo_key
from tests.paths import ROOT

PAGE = ROOT / "docs" / "dataset.md"
BLOCK = re.compile(r"^([^\n]+):\n```sql\n(.*?)```", re.DOTALL | re.MULTILINE)
UNITS = {
    pa.int64(): "int64",
    pa.int32(): "int32",
    pa.string(): "text",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.bool_(): "boolean",
}


def columns_in_markdown() -> str:
    """The tables of the code, as the page shows them."""
    lines = []
    for name, schema in SCHEMAS.items():
        lines += [f"### {name}", "", "| column | type | meaning |", "|---|---|---|"]
        for field in schema:
            kind = UNITS.get(field.type, "timestamp, UTC")
            lines.append(f"| {field.name} | {kind} | {field.metadata[b'comment'].decode()} |")
        lines.append("")
    return "\n".join(lines)


def test_the_page_lists_the_columns_of_the_code() -> None:
    between = PAGE.read_text().split("<!-- columns -->\n")[1].split("<!-- end of columns -->")[0]
    assert between == columns_in_markdown(), "paste what `python tests/test_docs_dataset.py` prints between the marks"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four images; one has no masks, one was rejected. Two snapshots, the second with another model's masks."""
    dataset = Dataset.create(tmp_path_factory.mktemp("docs") / "dataset")
    images = dataset.new_plan("images", [PlannedShard(name="000000", inputs=(photo_key("photos"),))], {})
    dataset.write_images(images, images.shards[0], [photograph(number) for number in range(4)])
    dataset.snapshot()
    write_masks(dataset, "seed-0123")
    dataset.snapshot()
    write_masks(dataset, "vit_b-4567")
    dataset.snapshot()
    return dataset


def photograph(number: int) -> tuple[ImageRecord, bytes]:
    data = cv2.imencode(".png", np.full((64, 64, 3), number, np.uint8))[1].tobytes()
    return image_record(data, (64, 64), f"photos/{number}.jpg", "png"), data


def write_masks(dataset: Dataset, model_id: str) -> None:
    """Two masks for photographs 0 and 1, none for 2; 3 is a reject."""
    (commit,) = dataset.image_shards()
    plan = dataset.new_plan(
        "masks",
        [PlannedShard(name="000000", inputs=(ImageRange(shard=commit.address, start=0, stop=4),))],
        {"m": model_id},
    )
    masked, rejects = [], []
    for image, _ in dataset.read_images(commit):
        number = int(image.source.removeprefix("photos/").removesuffix(".jpg"))
        if number == 3:
            rejects.append(
                Reject(
                    source=image.source, source_sha256="", reason="failed", detail="no luck", stage="fully_automatic"
                )
            )
            continue
        masks = [square(image, plan.plan_id, ordinal, model_id) for ordinal in range(2 if number < 2 else 0)]
        masked.append((image, masks))
    dataset.write_masks(plan, plan.shards[0], masked, rejects, model_id=model_id, seconds=4.0)


def square(image: ImageRecord, plan_id: str, ordinal: int, model_id: str) -> MaskRecord:
    """Of 4 or 40 px a side, stable to 0.7 or 0.95."""
    mask_HW = np.zeros((64, 64), np.bool_)
    mask_HW[: 4 + 36 * ordinal, : 4 + 36 * ordinal] = True
    runs = rle.encode(mask_HW)
    return MaskRecord(
        mask_id=mask_id_of(plan_id, "000000", 0, image.image_id, ordinal),
        image_id=image.image_id,
        rle=runs,
        box_xyxy=rle.box_xyxy(runs),
        area_px=rle.area(runs),
        predicted_iou=0.9,
        stability_score=0.7 + 0.25 * ordinal,
        point_xy=(1.0, 1.0),
        crop_xyxy=(0, 0, 64, 64),
        provenance=Provenance(stage="fully_automatic", model_id=model_id, plan_id=plan_id),
    )


ANSWERS = {
    "Masks per stage and model": [("seed-0123", 4, 2), ("vit_b-4567", 4, 2)],
    "The masks of lowest stability": 4,
    "Shards with rejects, which `gigamask redo` plans again": 2,
    "Masks of one image, by the photo it came from": 4,
    "Images without masks, with the reason where one is known": 2,
    "Distribution of mask sizes, as a fraction of the image": [(-3.0, 4), (-1.0, 4)],
    "Masks per hour of work, by model": [("seed-0123", 3600.0), ("vit_b-4567", 3600.0)],
    "Masks by annotator and round": 0,  # nobody drew any
    "Seconds per mask, by stage and origin": 0,
    "Seconds and masks of an answer, on images that began with masks and on those that began empty": 0,
    "Agreement of annotators, over images that several of them answered": 0,
    "Images erased, and why": 0,  # nobody erased any
    "Changes between two snapshots, shard by shard; query both and compare": 3,
}
"""Of each recipe: the rows, or how many there are."""


def test_every_recipe_answers_rightly(dataset: Dataset) -> None:
    recipes = dict(BLOCK.findall(PAGE.read_text()))
    assert recipes.keys() == ANSWERS.keys()
    got: dict[str, object] = {}
    for name, sql in recipes.items():
        answer = dataset.query(sql).to_pylist()
        wanted = ANSWERS[name]
        got[name] = len(answer)
        if name.startswith("Masks per stage"):
            got[name] = sorted((row["model_id"], row["masks"], row["images"]) for row in answer)
        elif isinstance(wanted, list):
            got[name] = [tuple(row.values()) for row in answer]
    assert got == ANSWERS


def test_the_python_examples_run(dataset: Dataset) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    code = "\n".join(blocks).replace('"gigamask-dataset"', repr(dataset.uri))
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["counts"]["masks"].tolist() == [8]
    assert names["mask"].image_id == names["image_id"]
    assert set(names["changed"]["plan"]) == {plan.plan_id for plan in dataset.plans() if plan.kind == "masks"}
    ((stage, area_px),) = names["sizes"]
    assert (stage, area_px) == ("fully_automatic", (16 + 1600) / 2)
    assert names["scanned"].rows() == [("fully_automatic", 8)]
    assert len(names["frame"]) == 8


if __name__ == "__main__":
    print(columns_in_markdown(), end="")
