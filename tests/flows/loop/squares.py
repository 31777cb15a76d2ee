"""Labelled photographs in a folder: bright squares on a dark ground."""

import json
from pathlib import Path

import cv2
import numpy as np

from engine.labelled import LabelledImage, load_folder
from storage import rle


def write_squares(folder: Path, count: int) -> list[LabelledImage]:
    """Write images of 64 px with two squares each, and their labels."""
    (folder / "squares").mkdir(parents=True)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        image_HW3 = rng.integers(0, 60, (64, 64, 3), np.uint8)
        annotations = []
        for number, left in enumerate((4, 36)):
            mask_HW = np.zeros((64, 64), np.bool_)
            top = int(rng.integers(4, 36))
            mask_HW[top : top + 22, left : left + 22] = True
            image_HW3[mask_HW] += 80 + 60 * number
            counts = rle.to_coco(rle.encode(mask_HW))
            annotations.append({"id": number, "segmentation": {"size": [64, 64], "counts": counts}})
        stem = folder / "squares" / f"{seed:03d}"
        cv2.imwrite(str(stem.with_suffix(".png")), image_HW3)
        header = {"image_id": seed, "height": 64, "width": 64, "file_name": f"{seed:03d}.png"}
        stem.with_suffix(".json").write_text(json.dumps({"image": header, "annotations": annotations}))
    return load_folder(folder)
