"""Export of a snapshot to other tools' formats and import again: masks per CPU second.

    python tests/benchmarks/bench_formats.py [--images 1000] [--formats coco,yolo] [--folder FOLDER]

The images are JPEGs of 1024 x 768 pixels, each with 100 blobs as masks. Each step runs in a process of its own; seconds
are CPU seconds of all threads. An import ingests the pictures, too.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from bench_release import IMAGES_A_SHARD, MASKS_AN_IMAGE, fill
from bench_tables import alone
from json_lines import print_line

from flows.cli.formats import find_writer, read_format
from stages.formats.export import export_snapshot
from stages.formats.import_labels import import_labels
from storage.dataset import Dataset

FILES = {"coco": "instances.json"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="number of images, in steps of 250")
    parser.add_argument("--formats", default="coco,yolo,cvat", help="formats, with commas between")
    parser.add_argument("--folder", type=Path, help="folder for the files; default: the system's temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-formats-", dir=arguments.folder))
    try:
        filled, _ = alone(fill, folder / "dataset", max(1, arguments.images // IMAGES_A_SHARD))
        masks = int(filled["images"]) * MASKS_AN_IMAGE
        for form in arguments.formats.split(","):
            for step in (export_to, import_from):
                took, peak_mib = alone(step, folder, form)
                print_line("formats", f"{step.__name__} {form}", masks / took["s"], "masks/s", masks=masks)
                print_line("formats", f"{step.__name__} {form}, peak memory", peak_mib, "MiB", masks=masks)
            shutil.rmtree(folder / form)
            shutil.rmtree(folder / f"{form}-dataset")
    finally:
        shutil.rmtree(folder)


def export_to(folder: Path, form: str) -> dict[str, float]:
    """Export the dataset's snapshot."""
    dataset = Dataset.open(folder / "dataset")
    (snapshot,) = dataset.snapshots()
    began = time.process_time()
    export_snapshot(dataset, snapshot.snapshot_id, folder / form, form, find_writer(form))
    return {"s": time.process_time() - began}


def import_from(folder: Path, form: str) -> dict[str, float]:
    """Import what was exported into a new dataset."""
    began = time.process_time()
    (labels,) = read_format(form, folder / form / FILES.get(form, ""), with_crowds=False)
    report = import_labels(Dataset.create(folder / f"{form}-dataset"), labels)
    assert not report.left_out, report.left_out[:3]
    return {"s": time.process_time() - began}


if __name__ == "__main__":
    main()
