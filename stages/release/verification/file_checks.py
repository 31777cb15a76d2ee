"""Checks of a release's files as files: sizes, checksums, strangers, and the lists that follow from its tables."""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast

import pyarrow as pa

from stages.release.coco import COCO
from stages.release.folder import MANIFEST, UNFINISHED
from stages.release.lists import ATTRIBUTIONS, CHECKSUMS, HOLDOUT, image_rows, write_coco_of
from stages.release.verification.faults import Faults
from storage.progress import OnPhase, silent


def check_files(out: Path, manifest: Mapping[str, Any], faults: Faults, on_progress: OnPhase = silent) -> int:
    """Check that the files of the manifest are there, unchanged, and no others; return their size in bytes."""
    nbytes, total_mib = 0, sum(file["nbytes"] for file in manifest["files"]) >> 20
    for file in manifest["files"]:
        on_progress(nbytes >> 20, total_mib, "MiB compared with their checksums")
        path = out / file["path"]
        if not path.is_file():
            faults.add("missing file", file["path"])
            continue
        nbytes += path.stat().st_size
        if path.stat().st_size != file["nbytes"]:
            faults.add("wrong size", f"{file['path']}: {path.stat().st_size} bytes, expected {file['nbytes']}")
            continue
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if sha256 != file["sha256"]:
            faults.add("wrong checksum", f"{file['path']}: sha256 {sha256[:12]}..., expected {file['sha256'][:12]}...")
    known = {MANIFEST, *(file["path"] for file in manifest["files"])}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and name not in known:
            kind = "left-over of the writing" if name.startswith(f"{UNFINISHED}/") else "unknown file"
            faults.add(kind, name)
    return nbytes


def check_lists(out: Path, manifest: Mapping[str, Any], faults: Faults) -> None:
    """Check the checksums' list, the attributions and the held-out images against manifest and tables."""
    others = [file for file in manifest["files"] if file["path"] != CHECKSUMS]
    lines = [f"{file['sha256']}  {file['path']}" for file in sorted(others, key=lambda file: str(file["path"]))]
    if _lines(out / CHECKSUMS) != lines:
        faults.add("wrong list", f"{CHECKSUMS} differs from {MANIFEST}")
    try:
        _check_image_lists(out, manifest, faults)
        _check_coco(out, manifest, faults)
    except (OSError, ValueError, KeyError, csv.Error, pa.ArrowException) as error:
        faults.add("unreadable table or list", str(error))


def _check_image_lists(out: Path, manifest: Mapping[str, Any], faults: Faults) -> None:
    attributions, holdout = _attributions(out / ATTRIBUTIONS), iter(_lines(out / HOLDOUT))
    splits, licenses = Counter[str](), Counter[str]()
    for row in image_rows(out):
        splits[row["split"]] += 1
        licenses[row["license"]] += 1
        if next(attributions, None) != [row["file_name"], row["license"], row["source"]]:
            faults.add("wrong list", f"{ATTRIBUTIONS}: {row['file_name']} differs from images/*.parquet")
        if row["split"] == "holdout" and next(holdout, None) != row["file_name"]:
            faults.add("wrong list", f"{HOLDOUT}: {row['file_name']} differs from images/*.parquet")
    if next(attributions, None) is not None or next(holdout, None) is not None:
        faults.add("wrong list", f"{ATTRIBUTIONS} or {HOLDOUT} names more images than there are")
    faults.compare("images by split in the manifest", manifest["counts"].get("splits"), dict(splits))
    faults.compare("images by licence in the manifest", manifest["counts"].get("licenses"), dict(licenses))


def _check_coco(out: Path, manifest: Mapping[str, Any], faults: Faults) -> None:
    """Check that the COCO file is the one that the tables give."""
    stated = [file["sha256"] for file in manifest["files"] if file["path"] == COCO]
    if not stated:
        return
    with TemporaryFile() as again:
        write_coco_of(cast(BinaryIO, again), out, manifest["release_id"], manifest["counts"]["licenses"])
        again.seek(0)
        if [hashlib.file_digest(again, "sha256").hexdigest()] != stated:
            faults.add("wrong list", f"{COCO} differs from images/*.parquet and masks/*.parquet")


def _attributions(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        table = csv.reader(file)
        next(table, None)
        yield from table


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
