"""Lists of a release: attributions, held-out images, a COCO file where asked for, and the checksums of all files."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from stages.release.coco import COCO, write_coco
from stages.release.folder import File, ReleaseFolder

ATTRIBUTIONS, HOLDOUT, CHECKSUMS = "ATTRIBUTIONS.csv", "holdout.txt", "SHA256SUMS"
_ATTRIBUTED = ["file_name", "license", "source"]
_BATCH_ROWS = 10_000


def write_lists(folder: ReleaseFolder, licenses: Iterable[str], *, with_coco: bool) -> list[File]:
    """Write the attributions of all images, the names of those that are held out, and the COCO file."""
    root = folder.root
    files = [
        folder.write(ATTRIBUTIONS, lambda file: _write_attributions(file, image_rows(root, _ATTRIBUTED))),
        folder.write(HOLDOUT, lambda file: _write_holdout(file, image_rows(root, ["file_name", "split"]))),
    ]
    if with_coco:
        files.append(folder.write(COCO, lambda file: write_coco_of(file, root, folder.release_id, licenses)))
    return files


def write_coco_of(file: BinaryIO, root: Path, release_id: str, licenses: Iterable[str]) -> None:
    """Write the COCO file of the tables in a release's folder."""
    write_coco(file, release_id, licenses, image_rows(root), table_rows(root, "masks"))


def image_rows(root: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of a release's images, in their order."""
    return table_rows(root, "images", columns)


def table_rows(root: Path, table: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of one of a release's tables, in their order."""
    for path in sorted((root / table).glob("sa_*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()


def write_checksums(folder: ReleaseFolder, files: Sequence[File]) -> File:
    """Write the checksums in the form that `sha256sum --check` reads."""
    lines = (f"{file.sha256}  {file.path}\n" for file in sorted(files, key=lambda file: file.path))
    return folder.write_text(CHECKSUMS, "".join(lines))


def _write_attributions(file: BinaryIO, rows: Iterator[dict[str, Any]]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    table = csv.DictWriter(text, _ATTRIBUTED, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    text.detach()


def _write_holdout(file: BinaryIO, rows: Iterator[dict[str, Any]]) -> None:
    file.writelines(f"{row['file_name']}\n".encode() for row in rows if row["split"] == "holdout")
