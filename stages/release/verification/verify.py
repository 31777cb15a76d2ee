"""Check of a release by its files alone: every byte, every name, every mask, every row, every count."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from stages.release import jpeg, rows
from stages.release.folder import MANIFEST, UNFINISHED
from stages.release.verification.faults import Fault, Faults
from stages.release.verification.file_checks import check_files, check_lists
from storage.errors import Corrupt
from storage.formats.sa1b import parse_sa1b, sa1b_json
from storage.formats.tar_shards import Member, read_shard
from storage.progress import OnPhase, silent

_FILE = {
    "type": "object",
    "required": ["path", "nbytes", "sha256"],
    "properties": {"path": {"type": "string"}, "nbytes": {"type": "integer"}, "sha256": {"type": "string"}},
}
_MANIFEST_SCHEMA = {
    "type": "object",
    "required": ["release_id", "images", "masks", "files", "counts"],
    "properties": {
        "release_id": {"type": "string"},
        "files": {"type": "array", "items": _FILE},
        "counts": {
            "type": "object",
            "required": ["splits", "licenses"],
            "properties": {"splits": {"type": "object"}, "licenses": {"type": "object"}},
        },
    },
}
"""JSON schema of what the check needs of a manifest."""


@dataclass(frozen=True, kw_only=True)
class ReleaseCheck:
    """Result of `gigamask release --verify`."""

    release_id: str
    files: int
    images: int
    masks: int
    nbytes: int
    faults: tuple[Fault, ...]


def verify_release(out: Path, *, on_progress: OnPhase = silent) -> ReleaseCheck:
    """Check a release: its files against their checksums, its tars against the rules and against its tables.

    Args:
        out: Folder of the release.
        on_progress: Function that is called now and then with how much is done.

    Raises:
        ValueError: The folder is no finished release.
    """
    manifest = read_manifest(out)
    faults = Faults()
    nbytes = check_files(out, manifest, faults, on_progress)
    check = _TarCheck(out, faults, lambda images: on_progress(images, manifest["images"], "images read"))
    for path in sorted(file["path"] for file in manifest["files"] if file["path"].endswith(".tar")):
        if (out / path).exists():
            check.read(path)
    faults.compare("images in the manifest", manifest["images"], check.images)
    faults.compare("masks in the manifest", manifest["masks"], check.masks)
    check_lists(out, manifest, faults)
    return ReleaseCheck(
        release_id=str(manifest["release_id"]),
        files=len(manifest["files"]),
        images=check.images,
        masks=check.masks,
        nbytes=nbytes,
        faults=faults.found(),
    )


def read_manifest(out: Path) -> dict[str, Any]:
    """Read the manifest of a release.

    Raises:
        ValueError: The folder is no finished release.
    """
    if not out.is_dir():
        raise ValueError(f"{out}: no such folder; expected a release")
    try:
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        advice = "; it was interrupted: make it again into the same folder" if (out / UNFINISHED).exists() else ""
        raise ValueError(f"{out}: no finished release, {MANIFEST} is missing{advice}") from error
    except ValueError as error:
        raise ValueError(f"{out}/{MANIFEST}: damaged ({error}); copy it again or make the release again") from error
    fault = best_match(Draft202012Validator(_MANIFEST_SCHEMA).iter_errors(manifest))
    if fault is not None:
        what = f"{fault.json_path}: {fault.message[:200]}"
        raise ValueError(f"{out}/{MANIFEST}: {what}; copy it again or make the release again")
    return manifest


class _TarCheck:
    """Check of one tar after the other, in order: numbers run on from tar to tar."""

    def __init__(self, out: Path, faults: Faults, on_image: Callable[[int], None]) -> None:
        self._out, self._faults, self._on_image = out, faults, on_image
        self.images = 0
        self.masks = 0

    def read(self, path: str) -> None:
        """Check a tar against the rules, and the rows of its images and masks against it."""
        name = path.removesuffix(".tar")
        tables = [self._out / f"{table}/{name}.parquet" for table in ("images", "masks")]
        image_rows, mask_rows = (_rows(table, self._faults) for table in tables)
        try:
            with (self._out / path).open("rb") as file:
                for member in read_shard(file):
                    self._check_sample(path, member, image_rows, mask_rows)
        except Corrupt as error:
            self._faults.add("damaged tar", str(error))
        for rest, what in ((image_rows, "images"), (mask_rows, "masks")):
            left = sum(1 for _ in rest)
            if left:
                self._faults.add("row of nothing in the tar", f"{what}/{name}.parquet: {left} rows")

    def _check_sample(
        self, path: str, member: Member, image_rows: Iterator[dict[str, Any]], mask_rows: Iterator[dict[str, Any]]
    ) -> None:
        self._on_image(self.images)
        self.images += 1
        where = f"{path}: {member.key}"
        if member.key != f"sa_{self.images}" or sorted(member.parts) != ["jpg", "json"]:
            found = f"{where} with {', '.join(sorted(member.parts))}"
            self._faults.add("wrong member", f"{found}, expected sa_{self.images} with jpg, json")
            return
        size_hw = self._check_picture(where, member.parts["jpg"])
        try:
            document = _document(member)
        except ValueError as error:
            self._faults.add("wrong annotation file", f"{where}.json: {error}")
            return
        self._check_numbers(where, document)
        stated_hw = (document["image"]["height"], document["image"]["width"])
        if size_hw not in (None, stated_hw):
            self._faults.add("size of an image", f"{where}.jpg: {size_hw}, its JSON says {stated_hw} (height, width)")
        row = next(image_rows, {})
        self._check_image_row(where, path, member, document, row)
        place = {**_place(document, path), "split": row.get("split")}
        for annotation in document["annotations"]:
            expected = rows.mask_row(annotation, place)
            self._compare("row of a mask", f"{where}, mask {annotation['id']}", expected, next(mask_rows, {}))

    def _check_picture(self, where: str, data: bytes) -> tuple[int, int] | None:
        """Check that an image is clean; return its height and width, None for a damaged one."""
        try:
            carried = jpeg.metadata_in(data)
            size_hw = jpeg.size_hw(jpeg.segments(data))
        except ValueError as error:
            self._faults.add("damaged image", f"{where}.jpg: {error}")
            return None
        if carried:
            self._faults.add("metadata in an image", f"{where}.jpg: {', '.join(carried)}")
        return size_hw

    def _check_numbers(self, where: str, document: Mapping[str, Any]) -> None:
        image_id, file_name = document["image"]["image_id"], document["image"]["file_name"]
        if image_id != self.images or file_name != f"sa_{self.images}.jpg":
            self._faults.add("wrong number of an image", f"{where}.json: image_id {image_id}, file {file_name}")
        found = [annotation["id"] for annotation in document["annotations"]]
        if found != list(range(self.masks + 1, self.masks + 1 + len(found))):
            self._faults.add("wrong number of a mask", f"{where}.json: expected {len(found)} from {self.masks + 1} on")
        self.masks += len(found)

    def _check_image_row(
        self, where: str, tar: str, member: Member, document: Mapping[str, Any], row: Mapping[str, Any]
    ) -> None:
        size = {name: document["image"][name] for name in ("height", "width")}
        counted = {"masks": len(document["annotations"])}
        expected = {**rows.picture_columns(member.parts["jpg"]), **_place(document, tar), **size, **counted}
        self._compare("row of an image", where, expected, row)

    def _compare(self, kind: str, where: str, expected: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        wrong = [name for name, value in expected.items() if row.get(name) != value]
        if wrong:
            self._faults.add(kind, f"{where}: {', '.join(wrong)} differ from the tar" if row else f"{where}: no row")


def _document(member: Member) -> dict[str, Any]:
    """Read an annotation file and check that it has SA-1B's fields, and no others, with the values of its masks."""
    document = json.loads(member.parts["json"])
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    try:
        again = sa1b_json(*parse_sa1b(document))
    except (AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"a field has the wrong form: {error}") from error
    if again != document:
        names = [name for name in again if again[name] != document.get(name)] or sorted(set(document) - set(again))
        raise ValueError(f"{', '.join(names)}: other fields or values than SA-1B's form gives to these masks")
    return document


def _place(document: Mapping[str, Any], tar: str) -> dict[str, Any]:
    return {"image_id": document["image"]["image_id"], "file_name": document["image"]["file_name"], "tar": tar}


def _rows(path: Path, faults: Faults) -> Iterator[dict[str, Any]]:
    """Stream the rows of a table; none for one that is not there, which the check of the files tells."""
    if not path.exists():
        return
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(10_000):
                yield from batch.to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: text that is no UTF-8
        faults.add("unreadable table", f"{path.parent.name}/{path.name}: {error}")
