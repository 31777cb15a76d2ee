"""Every exported format read by programs that share no code with gigamask: `make release-readers`."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from stages.formats.coco import write_coco
from stages.formats.cvat import write_cvat
from stages.formats.export import Writer, export_snapshot
from stages.formats.label_studio import write_label_studio
from stages.formats.sa1b import write_sa1b
from stages.formats.yolo import write_yolo
from stages.release.choose import choose
from stages.release.release import write_release
from stages.training.snapshot_source import SnapshotImages
from storage import rle
from storage.dataset import Dataset
from tests.paths import ROOT
from tests.stages.release.conftest import CONFIG
from tests.stages.release.photos import make_dataset

PYTHON = os.environ.get("GIGAMASK_READERS_PYTHON")
WRITERS: dict[str, Writer] = {
    "coco": write_coco,
    "cvat": write_cvat,
    "label-studio": write_label_studio,
    "sa1b": write_sa1b,
    "yolo": write_yolo,
}
MIN_YOLO_IOU = 0.8
"""Least IoU of a mask that supervision fills with OpenCV: half a pixel is added on every side of a mask 25 px wide."""


@pytest.mark.skipif(PYTHON is None, reason="the programs have an environment of their own: make release-readers")
def test_other_programs_read_every_pixel_of_each_lossless_format(tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    dataset = make_dataset(tmp_path / "data", images=slice(6))
    snapshot = dataset.snapshot().snapshot_id
    for form, write in WRITERS.items():
        export_snapshot(dataset, snapshot, folder / form, form, write)
    write_release(dataset, choose(dataset, snapshot, CONFIG), folder / "release", CONFIG)
    truth = tmp_path / "truth.npz"
    np.savez(truth, **masks_by_key(dataset, snapshot))

    found = read_outside(folder, truth)

    lossy = found.pop("yolo")
    for form, programs in found.items():
        for program, figures in programs.items():
            assert figures == {"masks": 24, "equal": 24, "min_iou": 1, "mean_iou": 1}, f"{form} by {program}"
    assert set(found) == {*WRITERS, "release"} - {"yolo"}
    assert all(figures["masks"] == 24 and figures["min_iou"] > MIN_YOLO_IOU for figures in lossy.values())


def masks_by_key(dataset: Dataset, snapshot: str) -> dict[str, np.ndarray]:
    images = SnapshotImages(dataset, snapshot)
    samples = [images.read(number) for number in range(len(images))]
    return {
        sample.image.key: np.stack([rle.decode(mask.rle).astype(bool) for mask in sample.masks])
        for sample in samples
        if sample
    }


def read_outside(folder: Path, truth: Path) -> dict[str, dict[str, dict[str, float]]]:
    environment = os.environ | {"HOME": str(folder.parent)}
    environment.pop("PYTHONPATH", None)
    script = ROOT / "tests/stages/formats/outside_readers.py"
    command = [str(PYTHON), str(script), str(folder), str(truth)]
    done = subprocess.run(command, env=environment, cwd=folder.parent, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, dict[str, float]]] = json.loads(done.stdout.splitlines()[-1])
    return found
