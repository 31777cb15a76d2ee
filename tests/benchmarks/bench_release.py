"""Writing a release and checking it: images, masks and MB per second, and memory over time.

    python tests/benchmarks/bench_release.py [--images 1000] [--twice] [--folder FOLDER]

The images are JPEGs of 1024 x 768 pixels with EXIF, each with 100 blobs as masks. The lines of memory list the resident
memory after each tenth of the images: it is flat where memory does not grow with the images. `--twice` writes the
release again and compares the checksums of all files. Filling, writing and checking run in separate processes. Seconds
are CPU seconds of all threads; the lines state the wall seconds, too.
"""

import argparse
import io
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench_tables import alone
from json_lines import print_line
from PIL import Image

from stages.release.choose import choose
from stages.release.config import ReleaseConfig
from stages.release.release import ReleaseProgress, write_release
from stages.release.verification.verify import verify_release
from storage import rle
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, mask_id_of
from tests.image_records import image_record, photo_key

HEIGHT, WIDTH = 768, 1024
IMAGES_A_SHARD, MASKS_AN_IMAGE, IMAGES_A_TAR = 250, 100, 250
CONFIG = ReleaseConfig(not_deidentified=True, images_per_tar=IMAGES_A_TAR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="number of images, in steps of 250")
    parser.add_argument("--twice", action="store_true", help="write the release again, and compare all bytes")
    parser.add_argument("--folder", type=Path, help="folder for the files; default: the system's temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-release-", dir=arguments.folder))
    try:
        measure(folder, max(1, arguments.images // IMAGES_A_SHARD), twice=arguments.twice)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, shards: int, *, twice: bool) -> None:
    """Fill a dataset, release it and check the release, and print a line for each figure.

    Raises:
        ValueError: The second release has other bytes than the first.
    """
    filled, _ = alone(fill, folder / "dataset", shards)
    images = int(filled["images"])
    written, written_mib = alone(write, folder, "release")
    report("write", written, written_mib, images)
    checked, checked_mib = alone(check, folder / "release")
    report("verify", checked, checked_mib, images)
    if twice:
        again, again_mib = alone(write, folder, "again")
        report("write again", again, again_mib, images)
        one, other = ((folder / name / "release.json").read_bytes() for name in ("release", "again"))
        if one != other:
            raise ValueError("the second release has other bytes than the first")


def report(what: str, measured: dict[str, Any], peak_mib: float, images: int) -> None:
    """Print the rates and the memory of a step."""
    took, masks, nbytes = measured["s"], images * MASKS_AN_IMAGE, measured["nbytes"]
    facts = {"images": images, "masks": masks, "mib": round(nbytes / 2**20), "wall_s": round(measured["wall_s"])}
    print_line("release", what, images / took, "images/s", **facts)
    print_line("release", what, masks / took, "masks/s", **facts)
    print_line("release", what, nbytes / 1e6 / took, "MB/s", **facts)
    print_line("release", f"{what}, peak memory", peak_mib, "MiB", resident_mib=measured["resident_mib"], **facts)


def fill(uri: Path, shards: int) -> dict[str, float]:
    """Commit and fold image shards and their mask shards, without flushing them to disk."""
    os.fsync = lambda fd: None
    dataset = Dataset.create(uri)
    homes = [PlannedShard(name=f"{number:06d}", inputs=(photo_key(f"photos-{number}"),)) for number in range(shards)]
    images = dataset.new_plan("images", homes, {})
    made = [
        PlannedShard(name=home.name, inputs=(ImageRange(shard=images.address(home), start=0, stop=IMAGES_A_SHARD),))
        for home in images.shards
    ]
    masks = dataset.new_plan("masks", made, {"model_id": "one-1"})
    pictures, blobs = [picture(number) for number in range(8)], blob_masks(200)
    for number, (home, shard) in enumerate(zip(images.shards, masks.shards, strict=True)):
        numbers = range(number * IMAGES_A_SHARD, (number + 1) * IMAGES_A_SHARD)
        photos = [numbered(pictures[each % len(pictures)], each) for each in numbers]
        dataset.write_images(images, home, photos)
        dataset.write_masks(masks, shard, [(image, own(blobs, masks, shard, image)) for image, _ in photos])
    dataset.snapshot()
    return {"images": shards * IMAGES_A_SHARD}


def picture(number: int) -> bytes:
    """Encode a textured picture as a JPEG of about 200 KB."""
    rng = np.random.default_rng(number)
    layers = [
        cv2.resize(rng.integers(0, 256, (side * 3, side * 4, 3), np.uint8), (WIDTH, HEIGHT)).astype(np.float32)
        for side in (2, 16, 128)
    ]
    buffer = io.BytesIO()
    Image.fromarray((layers[0] * 0.6 + layers[1] * 0.25 + layers[2] * 0.15).astype(np.uint8)).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def numbered(data: bytes, number: int) -> tuple[ImageRecord, bytes]:
    """Make an image that no other one equals, by a number in its EXIF segment."""
    content = b"Exif\0\0" + number.to_bytes(8, "big")
    whole = data[:2] + b"\xff\xe1" + (2 + len(content)).to_bytes(2, "big") + content + data[2:]
    return image_record(whole, (HEIGHT, WIDTH), f"photos/{number}.jpg", "jpg", licence="CC0-1.0"), whole


def blob_masks(count: int) -> list[MaskRecord]:
    """Make masks with wavy outlines, from small to large."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        radius = float(np.exp(rng.uniform(np.log(8), np.log(250))))
        angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        radii = radius * (1 + 0.15 * np.sin(5 * angles + rng.uniform(0, 6)) + rng.normal(0, 0.02, 90))
        centre = rng.uniform((0, 0), (WIDTH, HEIGHT))
        outline = np.stack([centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)], 1)
        mask_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(mask_HW, [outline.round().astype(np.int32)], 1)
        runs = rle.encode(mask_HW)
        if not rle.area(runs):
            continue
        made.append(
            MaskRecord(
                mask_id=0,
                image_id=0,
                rle=runs,
                box_xyxy=rle.box_xyxy(runs),
                area_px=rle.area(runs),
                predicted_iou=0.5,
                stability_score=0.75,
                point_xy=(10.0, 20.0),
                crop_xyxy=(0, 0, WIDTH, HEIGHT),
                provenance=Provenance(stage="fully_automatic", model_id="one-1"),
            )
        )
    return made


def own(blobs: list[MaskRecord], plan: Plan, shard: PlannedShard, image: ImageRecord) -> list[MaskRecord]:
    """Give an image masks out of those at hand."""
    first = image.image_id % len(blobs)
    chosen = [blobs[(first + place) % len(blobs)] for place in range(MASKS_AN_IMAGE)]
    provenance = replace(blobs[0].provenance, plan_id=plan.plan_id)
    return [
        replace(
            mask,
            mask_id=mask_id_of(plan.plan_id, shard.name, 0, image.image_id, ordinal),
            image_id=image.image_id,
            provenance=provenance,
        )
        for ordinal, mask in enumerate(chosen)
    ]


def write(folder: Path, name: str) -> dict[str, Any]:
    """Measure a release: its CPU and wall seconds, and the resident memory on the way."""
    dataset = Dataset.open(folder / "dataset")
    snapshot = dataset.snapshots()[-1].snapshot_id
    resident_mib: list[int] = []

    def note(now: ReleaseProgress) -> None:
        if now.images * 10 // now.images_total > len(resident_mib):
            resident_mib.append(read_resident_mib())

    began, began_wall = time.process_time(), time.perf_counter()
    manifest = write_release(dataset, choose(dataset, snapshot, CONFIG), folder / name, CONFIG, note)
    return {
        "s": time.process_time() - began,
        "wall_s": time.perf_counter() - began_wall,
        "nbytes": sum(file["nbytes"] for file in manifest["files"]),
        "resident_mib": resident_mib,
    }


def read_resident_mib() -> int:
    """Read this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


def check(out: Path) -> dict[str, Any]:
    """Measure the check of a release.

    Raises:
        ValueError: A fault was found, though nothing is wrong.
    """
    began, began_wall = time.process_time(), time.perf_counter()
    checked = verify_release(out)
    if checked.faults:
        raise ValueError(f"{checked.faults[0]}")
    return {
        "s": time.process_time() - began,
        "wall_s": time.perf_counter() - began_wall,
        "nbytes": checked.nbytes,
        "resident_mib": [read_resident_mib()],
    }


if __name__ == "__main__":
    main()
