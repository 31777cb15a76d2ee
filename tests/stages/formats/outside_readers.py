"""Read exports and a release with other programs, without gigamask; prints how their masks compare, as JSON.

`python outside_readers.py FOLDER TRUTH`, in an environment that holds the programs: `make release-readers`. FOLDER has
an export in a folder named after each format, and a release in `release`. TRUTH is an .npz file of the masks of each
image, bool [N, H, W], under the image's key.
"""

import json
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path

import numpy as np

Masks = Mapping[str, list[np.ndarray]]
"""Masks of each image, bool [H, W] each, by the image's key."""


def main() -> None:
    """Read every format with every program, and print `{format: {program: figures}}`."""
    folder, truth = Path(sys.argv[1]), {key: list(masks) for key, masks in np.load(sys.argv[2]).items()}
    found: dict[str, dict[str, object]] = {}
    for name, programs in READERS.items():
        for program, read in programs.items():
            found.setdefault(name, {})[program] = compare(truth, read(folder / name))
    found["release"] = {"webdataset, pycocotools": compare_release(truth, read_release(folder / "release"))}
    print(json.dumps(found))


def compare(truth: Masks, read: Masks) -> dict[str, object]:
    """Compare masks with the true ones of the same image, whatever their order: each with the one most like it."""
    ious = [
        max((iou(mask, other) for other in read.get(key, [])), default=0.0)
        for key, masks in truth.items()
        for mask in masks
    ]
    return {
        "masks": sum(map(len, read.values())),
        "equal": sum(value == 1 for value in ious),
        "min_iou": round(min(ious), 4),
        "mean_iou": round(float(np.mean(ious)), 4),
    }


def compare_release(truth: Masks, read: Masks) -> dict[str, object]:
    """Compare the masks of all images at once: a release numbers images anew."""
    return compare({"all": list(chain(*truth.values()))}, {"all": list(chain(*read.values()))})


def iou(mask_HW: np.ndarray, other_HW: np.ndarray) -> float:
    """Compute the IoU of two masks; 0 where their sizes differ."""
    if mask_HW.shape != other_HW.shape:
        return 0.0
    return float((mask_HW & other_HW).sum() / (mask_HW | other_HW).sum())


def by_image(pairs: Iterable[tuple[str, np.ndarray]]) -> Masks:
    """Gather masks by image."""
    made: dict[str, list[np.ndarray]] = {}
    for name, mask_HW in pairs:
        made.setdefault(Path(name).stem, []).append(mask_HW.astype(bool))
    return made


def coco_by_pycocotools(folder: Path) -> Masks:
    """Read COCO as its own library does."""
    from pycocotools.coco import COCO

    coco = COCO(folder / "instances.json")
    return by_image(
        (coco.imgs[each["image_id"]]["file_name"], coco.annToMask(each)) for each in coco.loadAnns(coco.getAnnIds())
    )


def coco_by_supervision(folder: Path) -> Masks:
    """Read COCO with supervision, which must be told not to take `iscrowd` for the mark of run lengths."""
    import supervision

    read = supervision.DetectionDataset.from_coco(
        str(folder / "images"), str(folder / "instances.json"), force_masks=True, use_iscrowd=False
    )
    return by_image((name, mask) for name, _, detections in read for mask in detections.mask)


def yolo_by_supervision(folder: Path) -> Masks:
    """Read YOLO's labels with supervision."""
    import supervision

    read = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml"), force_masks=True
    )
    return by_image((name, mask) for name, _, detections in read for mask in detections.mask)


def by_datumaro(form: str, path: Callable[[Path], Path]) -> Callable[[Path], Masks]:
    """Make a reader by Datumaro's importer of a format."""

    def read(folder: Path) -> Masks:
        import datumaro

        dataset = datumaro.Dataset.import_from(str(path(folder)), form)
        return by_image(
            (item.id, np.asarray(each.image))
            for item in dataset
            for each in item.annotations
            if each.type is datumaro.AnnotationType.mask
        )

    return read


def label_studio_by_sdk(folder: Path) -> Masks:
    """Read brushes with Label Studio's own converter."""
    from label_studio_sdk.converter.brush import decode_rle

    pairs = []
    for task in json.loads((folder / "tasks.json").read_text()):
        for kind in ("annotations", "predictions"):
            for result in [each for answer in task.get(kind, []) for each in answer["result"]]:
                size = result["original_height"], result["original_width"], 4
                alpha = decode_rle(result["value"]["rle"]).reshape(size)[:, :, 3]
                pairs.append((task["data"]["image"].rpartition("=")[2], alpha > 0))
    return by_image(pairs)


def sa1b_by_pycocotools(folder: Path) -> Masks:
    """Read SA-1B's files as its makers say."""
    from pycocotools import mask

    documents = [json.loads(path.read_text()) for path in sorted((folder / "images").glob("*.json"))]
    return by_image(
        (document["image"]["file_name"], mask.decode(each["segmentation"]))
        for document in documents
        for each in document["annotations"]
    )


def in_cocos_folders(folder: Path) -> Path:
    """Copy an export of COCO into the folders that Datumaro looks for: `annotations` and `images/SUBSET`."""
    copy = folder.with_name("coco-folders")
    shutil.copytree(folder / "images", copy / "images" / "default")
    (copy / "annotations").mkdir()
    shutil.copy(folder / "instances.json", copy / "annotations" / "instances_default.json")
    return copy


def without_null(folder: Path) -> Path:
    """Copy SA-1B's files with a score of 0 for each null, which Datumaro refuses: masks of people have no scores."""
    copy = Path(shutil.copytree(folder / "images", folder / "images-without-null"))
    for path in copy.glob("*.json"):
        path.write_text(path.read_text().replace(":null", ":0.0"))
    return copy


def read_release(folder: Path) -> Masks:
    """Read the tars of a release."""
    import webdataset
    from pycocotools import mask

    tars = sorted(str(path) for path in folder.glob("*.tar"))
    assert all(tarfile.is_tarfile(path) for path in tars)
    return by_image(
        (sample["__key__"], mask.decode(each["segmentation"]))
        for sample in webdataset.WebDataset(tars, shardshuffle=False).decode()
        for each in sample["json"]["annotations"]
    )


READERS: dict[str, dict[str, Callable[[Path], Masks]]] = {
    "coco": {
        "pycocotools": coco_by_pycocotools,
        "supervision": coco_by_supervision,
        "datumaro": by_datumaro("coco_instances", in_cocos_folders),
    },
    "cvat": {"datumaro": by_datumaro("cvat", lambda folder: folder)},
    "label-studio": {"label-studio-sdk": label_studio_by_sdk},
    "yolo": {"supervision": yolo_by_supervision},
    "sa1b": {
        "pycocotools": sa1b_by_pycocotools,
        "datumaro": by_datumaro("segment_anything", without_null),
    },
}
"""Programs that read each format, by their names."""


if __name__ == "__main__":
    main()
