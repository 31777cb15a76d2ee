"""SA-1B: a folder of images with a JSON file beside each, or the tars of such files; read as labels, and written.

Area and box are computed from the run lengths: the code that made SA-1B writes boxes one pixel smaller than COCO's.
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from stages.coco_source import to_rle
from stages.formats.exported import Exported
from stages.formats.labels import LabelledMask, Labels, LeftOut, PhotoLabels, ReadMasks, hash_files
from storage import rle
from storage.formats.sa1b import sa1b_json

_SUFFIXES = (".jpg", ".jpeg", ".png", ".json")


def read_sa1b(path: Path) -> Iterator[Labels]:
    """Read the labels of a folder of JSON files, of a tar, or of each tar of a folder.

    A tar is unpacked into a folder for temporary files while its labels are used.

    Raises:
        ValueError: There is no JSON file and no tar, or a tar is damaged.
    """
    tars = [path] if path.is_file() else sorted(path.glob("*.tar"))
    if not tars:
        yield _read_folder(path, path.name)
    for tar in tars:
        with _unpacked(tar) as (folder, sha256):
            yield _read_folder(folder, tar.name, sha256)


def _read_folder(folder: Path, name: str, sha256: str = "") -> Labels:
    files = sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))
    if not files:
        raise ValueError(f"{name}: got no JSON file and no tar; expected SA-1B's <name>.jpg beside <name>.json")
    photos, left_out = list[PhotoLabels](), list[LeftOut]()
    for file in files:
        below = file.relative_to(folder)
        try:
            photos.append(_photo(file, below))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            detail = f"it is no annotation file of SA-1B ({type(error).__name__}: {error})"
            left_out.append(LeftOut(what=f"file {below.as_posix()}", reason="malformed", detail=detail))
    return Labels(
        form="sa1b",
        file=name,
        sha256=sha256 or hash_files(files, folder),
        folder=folder,
        photos=tuple(photos),
        left_out=tuple(left_out),
    )


def _photo(file: Path, below: Path) -> PhotoLabels:
    content = json.loads(file.read_bytes())
    image = content["image"]
    named = PurePosixPath(str(image["file_name"])).name
    if not (file.parent / named).is_file():  # renamed together with its JSON file
        beside = (file.with_suffix(suffix) for suffix in _SUFFIXES[:-1])
        named = next((path.name for path in beside if path.is_file()), named)
    return PhotoLabels(
        name=(below.parent / named).as_posix(),
        size_hw=(int(image["height"]), int(image["width"])),
        num_masks=len(content["annotations"]),
        read=partial(_read, file, below.as_posix()),
        license=str(image.get("license") or ""),
    )


def _read(file: Path, name: str, height: int, width: int) -> ReadMasks:
    masks, left_out = list[LabelledMask](), list[LeftOut]()
    for place, annotation in enumerate(json.loads(file.read_bytes())["annotations"]):
        what = f"{name}, annotation {place}"
        try:
            masks.append(_mask(annotation, what, height, width))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            left_out.append(LeftOut(what=what, reason="malformed", detail=str(error).removeprefix(f"{what}: ")))
    return ReadMasks(masks=tuple(masks), left_out=tuple(left_out))


def _mask(annotation: Mapping[str, Any], what: str, height: int, width: int) -> LabelledMask:
    mask = to_rle(annotation["segmentation"], height, width, what)
    if annotation.get("area", rle.area(mask)) != rle.area(mask):
        raise ValueError(f"its area says {annotation['area']}, its runs cover {rle.area(mask)} pixels")
    points, crop = annotation.get("point_coords"), annotation.get("crop_box")
    x, y, crop_width, crop_height = (round(side) for side in crop or (0, 0, width, height))
    return LabelledMask(
        what=what,
        rle=mask,
        predicted_iou=_score(annotation.get("predicted_iou")),
        stability_score=_score(annotation.get("stability_score")),
        point_xy=(float(points[0][0]), float(points[0][1])) if points else (math.nan, math.nan),
        crop_xyxy=(x, y, x + crop_width, y + crop_height),
    )


def _score(value: float | None) -> float:
    return math.nan if value is None else float(value)


@contextmanager
def _unpacked(tar: Path) -> Iterator[tuple[Path, str]]:
    """Unpack a tar into a folder that has the same name whenever the tar is the same; remove it afterwards.

    The name matters because ingest names photos by their place: an import that was killed continues its plan.

    Raises:
        ValueError: The tar is damaged.
    """
    with tar.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    root = Path(tempfile.gettempdir()) / f"gigamask-import-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise ValueError(f"{root}: it belongs to somebody else; name another folder in TMPDIR")
    folder = root / sha256[:16]
    with (root / f"{sha256[:16]}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another import of the same tar
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _unpack(tar, folder)
            yield folder, sha256
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _unpack(tar: Path, folder: Path) -> None:
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.isreg() and PurePosixPath(member.name).suffix.lower() in _SUFFIXES:
                    archive.extract(member, folder, filter="data")
            end = archive.offset
    except tarfile.TarError as error:
        raise ValueError(f"{tar}: got no whole tar ({error}); expected one without compression") from error
    with tar.open("rb") as file:  # tarfile takes a damaged header in the middle for the end
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise ValueError(f"{tar}: got a damaged tar (no header at byte {end}); fetch it again")


def write_sa1b(folder: Path, exported: Exported) -> None:
    """Write a JSON file beside each picture, in `images`; ids are those of the dataset."""
    for sample in exported.samples():
        document = json.dumps(sa1b_json(sample.image, sample.masks), separators=(",", ":"), allow_nan=False)
        (folder / "images" / f"{sample.image.key}.json").write_text(document)
