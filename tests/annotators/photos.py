"""Photos with ground truth for simulated annotators: crops and mirror images of the test photos, 1024 px long."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.labelled import load_folder, read_pixels
from storage import rle
from storage.records import image_id_of
from storage.rle import Rle
from tests.paths import PHOTOS

MIN_AREA_PX = 400


def make_photos(folder: Path, count: int, *, side: int = 1024) -> dict[int, list[Rle]]:
    """Write `count` photos to a folder, and return the ground truth of each by its image id."""
    folder.mkdir(parents=True)
    rng, labelled = np.random.default_rng(0), load_folder(PHOTOS)
    truth: dict[int, list[Rle]] = {}
    for number in range(count):
        image = labelled[number % len(labelled)]
        pixels_HW3 = read_pixels(image)
        height, width = pixels_HW3.shape[:2]
        crop_h, crop_w = (int(edge * rng.uniform(0.7, 1.0)) for edge in (height, width))
        top, left = int(rng.integers(height - crop_h + 1)), int(rng.integers(width - crop_w + 1))
        window = np.s_[top : top + crop_h, left : left + crop_w]
        scale, is_mirrored = side / max(crop_h, crop_w), bool(rng.integers(2))
        size = (round(crop_w * scale), round(crop_h * scale))
        photo_HW3 = cv2.resize(pixels_HW3[window], size, interpolation=cv2.INTER_AREA)
        masks = []
        for mask in next(iter(image.masks_by_annotator.values())):
            mask_HW = cv2.resize(rle.decode(mask)[window].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            if np.count_nonzero(mask_HW) >= MIN_AREA_PX:
                masks.append(rle.encode(mask_HW[:, ::-1] if is_mirrored else mask_HW))
        photo_HW3 = photo_HW3[:, ::-1] if is_mirrored else photo_HW3
        data = cv2.imencode(".png", photo_HW3[..., ::-1])[1].tobytes()
        (folder / f"{number:04d}.png").write_bytes(data)
        truth[image_id_of(hashlib.sha256(data).hexdigest())] = masks
    return truth


def write_truth(path: Path, truth: dict[int, list[Rle]]) -> None:
    """Write ground truth as JSON."""
    content = {
        str(image_id): [[mask.height, mask.width, rle.to_coco(mask)] for mask in masks]
        for image_id, masks in truth.items()
    }
    path.write_text(json.dumps(content))


def read_truth(path: Path) -> dict[int, Sequence[Rle]]:
    """Read what `write_truth` wrote."""
    content = json.loads(path.read_text())
    return {
        int(image_id): [rle.from_coco(counts, height=height, width=width) for height, width, counts in masks]
        for image_id, masks in content.items()
    }
