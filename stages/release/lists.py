"""Lists of a release: attributions, the held-out images, and the checksums of all files."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from stages.release.folder import File, ReleaseFolder

ATTRIBUTIONS, HOLDOUT, CHECKSUMS = "ATTRIBUTIONS.csv", "holdout.txt", "SHA256SUMS"
_COLUMNS = ["file_name", "license", "source"]


def write_lists(folder: ReleaseFolder, parts: int) -> list[File]:
    """Write the attributions of all images, and the names of those that are held out."""
    return [
        folder.write(ATTRIBUTIONS, lambda file: _write_attributions(file, _image_rows(folder, parts))),
        folder.write(HOLDOUT, lambda file: _write_holdout(file, _image_rows(folder, parts))),
    ]


def write_checksums(folder: ReleaseFolder, files: Sequence[File]) -> File:
    """Write the checksums in the form that `sha256sum --check` reads."""
    lines = (f"{file.sha256}  {file.path}\n" for file in sorted(files, key=lambda file: file.path))
    return folder.write_text(CHECKSUMS, "".join(lines))


def _image_rows(folder: ReleaseFolder, parts: int) -> Iterator[dict[str, Any]]:
    columns = [*_COLUMNS, "split"]
    for number in range(parts):
        with pq.ParquetFile(folder.root / f"images/sa_{number:06d}.parquet") as file:
            for batch in file.iter_batches(10_000, columns=columns):
                yield from batch.to_pylist()


def _write_attributions(file: BinaryIO, rows: Iterator[dict[str, Any]]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    table = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    text.detach()


def _write_holdout(file: BinaryIO, rows: Iterator[dict[str, Any]]) -> None:
    file.writelines(f"{row['file_name']}\n".encode() for row in rows if row["split"] == "holdout")
