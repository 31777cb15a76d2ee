"""Which image of the dataset each labelled photo is: photos that it does not hold are ingested first, at full size.

A photo is known by the SHA-256 of its file, as it came or as the dataset stores it, because an export hands out stored
images. A photo whose file is not there is known by its name, if that is an image's key, as an export names it.

A file is looked for under the photo's whole name, and under the last part of it only where one photo alone has that
last part: numbered frames of two cameras would be mixed up otherwise.
"""

import hashlib
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from stages.formats.labels import Labels, LeftOut, PhotoLabels
from stages.ingest.config import IngestConfig
from stages.ingest.ingest import IngestProgress, ingest_photos
from storage.dataset import Dataset
from storage.errors import StoreError
from storage.records import ImageRecord, image_id_of
from storage.tables.sql import one_of

_KEY = re.compile(r"[0-7][0-9a-f]{15}")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
"""Beginning that Label Studio gives to the names of uploaded files."""
_ASKED_AT_ONCE = 1000
_ORIENTATION = 274
"""Number of EXIF's tag for the orientation."""


@dataclass(frozen=True, kw_only=True)
class MatchedPhoto:
    """A labelled photo and the image that it is."""

    labels: PhotoLabels
    image: ImageRecord


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Labelled photos with their images, and those without."""

    photos: tuple[MatchedPhoto, ...]
    left_out: tuple[LeftOut, ...]
    new_images: int
    """Number of images that this call put into the dataset."""


def match_photos(
    dataset: Dataset,
    labels: Labels,
    folder: Path,
    config: IngestConfig,
    progress: Callable[[IngestProgress], None] | None = None,
) -> Matched:
    """Find the image of each labelled photo, after ingesting the photos that the dataset does not hold.

    Args:
        dataset: The dataset.
        labels: The labels.
        folder: Folder that the photos' names are relative to.
        config: Settings of the ingest. Photos keep their size, and have the licence that the file names for them.
        progress: Function that is called after each photo that is ingested.

    Raises:
        StoreError: The dataset cannot be read or written, or photos could not be stored.
    """
    # Find the files, and the photos that the dataset holds
    files, unclear = _find_all(folder, {photo.name for photo in labels.photos})
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    dataset.fold()
    distinct = sorted(set(hashes.values()))
    held = _by(dataset, "source_sha256", distinct) | _by(dataset, "stored_sha256", distinct)

    # Ingest the others
    by_license: dict[str, dict[str, Path]] = defaultdict(dict)
    for photo in labels.photos:
        if photo.name in files and hashes[photo.name] not in held:
            by_license[photo.license or config.license].setdefault(hashes[photo.name], files[photo.name])
    before = _count_images(dataset)
    rejects: dict[str, str] = {}
    for given, paths in sorted(by_license.items()):
        own = replace(config, shortest_side_px=None, license=given)
        report = ingest_photos(sorted(paths.values()), dataset, own, progress)
        if report.failed:
            shard, error = next(iter(report.failed.items()))
            raise StoreError(f"{dataset.uri}: shard {shard} of images could not be made ({error}); run this again")
        rejects |= {each.source_sha256: f"{each.reason}: {each.detail}" for each in report.rejects}
    dataset.fold()

    # Match by what the file is, else by the name
    held |= _by(dataset, "source_sha256", [each for each in distinct if each not in held])
    not_there = [photo.name for photo in labels.photos if photo.name not in files]
    keys = {name: _UPLOADED.sub("", PurePosixPath(name).stem, count=1) for name in not_there}
    keyed = _by(dataset, "key", [key for key in keys.values() if _KEY.fullmatch(key)])
    matched, left_out = list[MatchedPhoto](), list[LeftOut]()
    taken = set[int]()
    for photo in labels.photos:
        sha256 = hashes.get(photo.name, "")
        row = held.get(sha256) or keyed.get(keys.get(photo.name, ""))
        why_none = unclear.get(photo.name) or rejects.get(sha256, "")
        judged = _judge(photo, row, files.get(photo.name), why_none, taken)
        if isinstance(judged, LeftOut):
            left_out.append(judged)
        else:
            taken.add(judged.image_id)
            matched.append(MatchedPhoto(labels=photo, image=judged))
    return Matched(photos=tuple(matched), left_out=tuple(left_out), new_images=_count_images(dataset) - before)


def _find_all(folder: Path, names: Set[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Find the files of photos below the folder: under the whole name, or under a short one that no other photo has.

    Returns:
        The file of each photo that has one, and why a photo has none where only its short name is there.
    """
    shared = Counter(short for name in names for short in _shorten(name))
    files, unclear = dict[str, Path](), dict[str, str]()
    for name in names:
        path = _find(folder, name)
        for short in _shorten(name):
            found = _find(folder, short) if path is None else None
            if found is not None and shared[short] > 1:
                unclear[name] = (
                    f"several photos of the file have this name, {short}; give --photos the folder that the whole "
                    "names start from"
                )
            elif found is not None:
                path = found
        if path is not None:
            files[name] = path
            unclear.pop(name, None)
    return files, unclear


def _shorten(name: str) -> list[str]:
    """List the last part of a photo's name, and that part as it was before Label Studio took the photo."""
    last = PurePosixPath(name).name
    return list(dict.fromkeys((last, _UPLOADED.sub("", last, count=1))))


def _find(folder: Path, name: str) -> Path | None:
    """Find a file below the folder, there or in `images`."""
    root = folder.resolve()
    for path in (folder / name, folder / "images" / name):
        if path.is_file() and path.resolve().is_relative_to(root):
            return path
    return None


def _by(dataset: Dataset, column: str, values: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Read the rows of images with one of the values in a column, by that value."""
    columns = ", ".join(ImageRecord.__dataclass_fields__)
    rows: list[Mapping[str, Any]] = []
    for start in range(0, len(values), _ASKED_AT_ONCE):
        asked = list(values[start : start + _ASKED_AT_ONCE])
        where = f"{column} IN {one_of(asked)}"
        if column == "source_sha256":  # the id, which follows from it, finds the row faster
            where = f"image_id IN ({', '.join(str(image_id_of(each)) for each in asked)}) AND {where}"
        rows += dataset.query(f"SELECT {columns} FROM images WHERE {where}").to_pylist()
    return {row[column]: row for row in rows}


def _count_images(dataset: Dataset) -> int:
    return int(dataset.query("SELECT count(*) AS images FROM images").to_pylist()[0]["images"])


def _judge(
    photo: PhotoLabels, row: Mapping[str, Any] | None, path: Path | None, why_none: str, taken: set[int]
) -> ImageRecord | LeftOut:
    """Return the image of a photo, or why its masks cannot be taken."""

    def refuse(reason: str, detail: str) -> LeftOut:
        return LeftOut(what=f"photo {photo.name}", reason=reason, detail=detail, masks=photo.num_masks)

    if row is None and path is None:
        return refuse("photo_missing", why_none or "no such file in the folder of the photos; give --photos FOLDER")
    if row is None:
        return refuse("photo_rejected", why_none or "the dataset did not take it; `gigamask status` says more")
    image = ImageRecord.from_row(row)
    if image.image_id in taken:
        return refuse("photo_twice", f"another photo of the file is the same image, {image.key}")
    upright, stated = (image.height, image.width), photo.size_hw
    turned = None if path is None else _size_before_turning(path)
    if turned is not None and (stated is None or (stated == turned and turned[0] != turned[1]) or turned == upright):
        detail = "EXIF turns the photo, and its masks may be of the pixels before that; turn its pixels in the file"
        return refuse("turned", detail)
    if stated is not None and stated != upright:
        height, width = stated
        detail = (
            f"the file says {width} x {height} px, the image of the dataset has {image.width} x {image.height}; "
            "import into a dataset that does not hold the photo at another size"
        )
        return refuse("other_size", detail)
    return image


def _size_before_turning(path: Path) -> tuple[int, int] | None:
    """Read height and width of a photo that EXIF turns, before it is turned; None for a photo that is upright."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as photo:  # odd metadata, which ingest takes
            return photo.size[::-1] if photo.getexif().get(_ORIENTATION, 1) in range(2, 9) else None
    except (OSError, ValueError, SyntaxError):  # EXIF that cannot be read turns nothing, as at ingest
        return None
