"""YOLO's segmentation labels: a text file beside each image, one polygon in fractions of the image a row.

A row is one closed ring, so that parts and holes of a mask are joined to one ring by bridges. Corners are those of
pixels: filling a ring gives the mask back, pixel by pixel, unless a program rounds the corners to pixels first.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from engine.labelled import IMAGE_SUFFIXES
from stages.coco_source import to_rle
from stages.formats.exported import CATEGORY, Exported, Loss
from stages.formats.labels import LabelledMask, Labels, LeftOut, PhotoLabels, ReadMasks, hash_files
from stages.formats.rings import join, rings_of
from storage import rle
from storage.rle import Rle

_BOX_NUMBERS = 5
"""Numbers in a row that is a box: class, centre, width and height."""
_SLACK = 1e-3
"""How far a corner may lie outside of the image, as a fraction of it, because programs round."""


def read_yolo(folder: Path) -> Labels:
    """Read the labels of a folder with `images` and `labels`.

    Raises:
        ValueError: There is no folder `labels` with text files in it.
    """
    root = folder / "labels"
    files = sorted(path for path in root.rglob("*.txt") if path.is_file())
    if not files:
        raise ValueError(f"{root}: got no text file there; expected YOLO's labels/<name>.txt beside images/<name>.jpg")
    return Labels(
        form="yolo",
        file=folder.resolve().name,
        sha256=hash_files(files, root),
        folder=folder,
        photos=tuple(_photo(folder, path) for path in files),
    )


def _photo(folder: Path, file: Path) -> PhotoLabels:
    below = file.relative_to(folder / "labels")
    rows = [row for row in file.read_text(encoding="utf-8-sig", errors="replace").splitlines() if row.strip()]
    spelled = [suffix for lower in IMAGE_SUFFIXES for suffix in (lower, lower.upper())]
    beside = (folder / "images" / below.with_suffix(suffix) for suffix in spelled)
    photo = next((path for path in beside if path.is_file()), folder / "images" / below.with_suffix(".jpg"))
    return PhotoLabels(
        name=photo.relative_to(folder).as_posix(),
        size_hw=None,
        num_masks=len(rows),
        read=partial(_read, rows, below.as_posix()),
    )


def _read(rows: Sequence[str], name: str, height: int, width: int) -> ReadMasks:
    masks, left_out = list[LabelledMask](), list[LeftOut]()
    for place, row in enumerate(rows, start=1):
        what = f"{name}, row {place}"
        category, *numbers = row.split()
        if len(numbers) == _BOX_NUMBERS - 1:
            left_out.append(LeftOut(what=what, reason="not_a_mask", detail="a box; polygons are taken"))
            continue
        try:
            mask = _fill([float(number) for number in numbers], height, width)
        except ValueError as error:
            left_out.append(LeftOut(what=what, reason="malformed", detail=str(error)))
            continue
        masks.append(LabelledMask(what=what, rle=mask, category=f"class {category}"))
    return ReadMasks(masks=tuple(masks), left_out=tuple(left_out))


def _fill(fractions: Sequence[float], height: int, width: int) -> Rle:
    if len(fractions) < 2 * 3 or len(fractions) % 2:
        raise ValueError(f"got {len(fractions)} coordinates, expected x and y of at least 3 corners")
    if not all(-_SLACK <= side <= 1 + _SLACK for side in fractions):
        raise ValueError("got a coordinate outside of 0 to 1, expected fractions of the image")
    ring = (np.array(fractions).reshape(-1, 2) * (width, height)).ravel().tolist()
    return to_rle([ring], height, width, "polygon")


def write_yolo(folder: Path, exported: Exported) -> Loss:
    """Write `labels/<key>.txt` and `data.yaml`; return how the masks differ when they are read again."""
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnames:\n  0: {CATEGORY}\n")
    ious, filled = list[float](), list[float]()
    worst, least = "", math.inf
    for sample in exported.samples():
        rows = [_row(mask.rle) for mask in sample.masks]
        (folder / "labels" / f"{sample.image.key}.txt").write_text("".join(f"0 {row}\n" for row in rows))
        for place, (row, mask) in enumerate(zip(rows, sample.masks, strict=True)):
            fractions = [float(number) for number in row.split()]
            height, width = mask.rle.height, mask.rle.width
            ious.append(rle.iou(_fill(fractions, height, width), mask.rle))
            filled.append(rle.iou(_filled_by_opencv(fractions, height, width), mask.rle))
            if ious[-1] < least:
                worst, least = f"{sample.image.key}/{place}", ious[-1]
    return Loss(
        min_iou=least,
        mean_iou=float(np.mean(ious)),
        changed=sum(iou < 1 for iou in ious),
        worst=worst,
        mean_iou_opencv=float(np.mean(filled)),
    )


def _row(mask: Rle) -> str:
    """Write a mask as one ring in fractions of its image, with 7 digits: a thousandth of a pixel in 10,000."""
    x0, y0, x1, y1 = rle.box_xyxy(mask)
    ring = join(rings_of(rle.decode(mask)[y0:y1, x0:x1])) + np.array((x0, y0))
    return " ".join(f"{side:.7g}" for side in (ring / (mask.width, mask.height)).ravel().tolist())


def _filled_by_opencv(fractions: Sequence[float], height: int, width: int) -> Rle:
    """Fill a ring as Ultralytics does: corners cut to whole pixels, border included."""
    corners = (np.array(fractions).reshape(-1, 2) * (width, height)).astype(np.int32)
    return rle.encode(cv2.fillPoly(np.zeros((height, width), np.uint8), [corners], (1,)))
