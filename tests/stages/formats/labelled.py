"""Labels for the tests of the formats: the development photographs with their masks, as a file of COCO."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.labelled import LabelledImage, load_folder
from storage import rle
from storage.dataset import Dataset
from storage.rle import Rle
from storage.tables.samples import MASK_COLUMNS, read_masks
from tests.paths import ROOT

PHOTOS = ROOT / "tests" / "data" / "photos" / "nuclei"


def photos_of_nuclei() -> list[LabelledImage]:
    """List the photographs of nuclei with their masks."""
    return load_folder(PHOTOS)


def uncompressed(mask: Rle) -> dict[str, Any]:
    """Write run lengths as numbers."""
    return {"size": [mask.height, mask.width], "counts": mask.counts.tolist()}


def compressed(mask: Rle) -> dict[str, Any]:
    """Write run lengths as COCO's text."""
    return {"size": [mask.height, mask.width], "counts": rle.to_coco(mask)}


def square(size: int = 20) -> list[list[float]]:
    """Make a polygon."""
    return [[5.0, 5.0, 5.0 + size, 5.0, 5.0 + size, 5.0 + size, 5.0, 5.0 + size]]


def write_coco(folder: Path, *, name: str = "instances.json", extra: list[dict[str, Any]] | None = None) -> Path:
    """Copy the photographs of nuclei into a folder, and write their masks in each form of COCO.

    The first mask of each photograph has its runs as numbers, the others as text; a polygon is added to each.
    """
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for number, image in enumerate(photos_of_nuclei(), start=1):
        shutil.copy(image.origin, folder)
        images.append(
            {"id": number, "file_name": Path(image.origin).name, "height": image.height, "width": image.width}
            | {"license": 7}
        )
        runs = image.masks_by_annotator[0]
        segmentations: list[Any] = [uncompressed(runs[0]), *map(compressed, runs[1:]), square()]
        annotations += [{"image_id": number, "category_id": 3, "segmentation": each} for each in segmentations]
    annotations += extra or []
    content = {
        "images": images,
        "annotations": [{"id": 100 + place, "iscrowd": 0, **each} for place, each in enumerate(annotations)],
        "categories": [{"id": 3, "name": "nucleus"}],
        "licenses": [{"id": 7, "name": "CC0-1.0"}],
    }
    file = folder / name
    file.write_text(json.dumps(content))
    return file


def stored_masks(dataset: Dataset) -> dict[str, list[np.ndarray]]:
    """Read the masks of the tables by the source of their image, each decoded, in the order of their runs."""
    rows = dataset.masks(columns=MASK_COLUMNS).read_all().to_pylist()
    found: dict[int, list[Rle]] = {}
    for mask in read_masks(dataset.store, rows):
        found.setdefault(mask.image_id, []).append(mask.rle)
    return {
        row["source"]: [rle.decode(each) for each in sorted(found[row["image_id"]], key=_runs)]
        for row in dataset.query("SELECT image_id, source FROM images").to_pylist()
        if row["image_id"] in found
    }


def in_order(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Sort masks by their runs, as `stored_masks` does."""
    return [rle.decode(each) for each in sorted(map(rle.encode, masks), key=_runs)]


def _runs(mask: Rle) -> list[int]:
    runs: list[int] = mask.counts.tolist()
    return runs


def write_sa1b(folder: Path) -> list[LabelledImage]:
    """Write the photographs of nuclei as SA-1B's files are: JPEG, scores, boxes that are one pixel too small."""
    for number, image in enumerate(photos_of_nuclei(), start=1):
        Image.open(io.BytesIO(image.read_bytes())).convert("RGB").save(folder / f"sa_{number}.jpg", quality=95)
        annotations = []
        for place, mask in enumerate(image.masks_by_annotator[0]):
            x, y, width, height = rle.box_xywh(mask)
            annotations.append(
                {
                    "bbox": [x, y, width - 1, height - 1],
                    "area": rle.area(mask),
                    "segmentation": compressed(mask),
                    "predicted_iou": 0.9,
                    "point_coords": [[x, y]],
                    "crop_box": [0, 0, image.width, image.height],
                    "id": 1000 * number + place,
                    "stability_score": 0.95,
                }
            )
        header = {"image_id": number, "width": image.width, "height": image.height, "file_name": f"sa_{number}.jpg"}
        (folder / f"sa_{number}.json").write_text(json.dumps({"image": header, "annotations": annotations}))
    return load_folder(folder)
