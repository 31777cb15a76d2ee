"""The check of a release finds what was done to it."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.release.verification.verify import verify_release
from tests.paths import ROOT
from tests.stages.release import photos
from tests.stages.release.conftest import Released

TAR, IMAGES, MASKS = "sa_000000.tar", "images/sa_000000.parquet", "masks/sa_000000.parquet"


@pytest.fixture
def out(released: Released, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released.out, tmp_path / "release"))


def kinds(out: Path) -> set[str]:
    return {fault.kind for fault in verify_release(out).faults}


def change_tar(out: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write the first tar again with other contents."""
    buffer = io.BytesIO()
    with tarfile.open(out / TAR) as old, tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for member in old.getmembers():
            data = change(member.name, old.extractfile(member).read())
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    (out / TAR).write_bytes(buffer.getvalue())


def change_annotation(out: Path, **changes: Any) -> None:
    """Change fields of the first annotation of the first image."""

    def change(name: str, data: bytes) -> bytes:
        if name != "sa_1.json":
            return data
        document = json.loads(data)
        document["annotations"][0] |= changes
        return json.dumps(document).encode()

    change_tar(out, change)


def change_table(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    table = pq.read_table(path)
    rows = [change(row) if place == 0 else row for place, row in enumerate(table.to_pylist())]
    pq.write_table(pa.Table.from_pylist([row for row in rows if row], schema=table.schema), path)


def test_a_release_has_no_faults(released: Released) -> None:
    check = verify_release(released.out)
    assert (check.images, check.masks, check.faults) == (6, 24, ())
    assert check.nbytes == sum(
        path.stat().st_size for path in released.out.rglob("*") if path.is_file() and path.name != "release.json"
    )


def test_a_changed_byte_anywhere_is_found(out: Path) -> None:
    rng = np.random.default_rng(0)
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name != "release.json"):
        data = path.read_bytes()
        for place in (0, *rng.integers(0, len(data), 4).tolist(), len(data) - 1):
            changed = bytearray(data)
            changed[place] ^= int(rng.integers(1, 256))
            path.write_bytes(changed)
            assert "wrong checksum" in kinds(out), (path, place)
        path.write_bytes(data)
    assert not kinds(out)


def test_missing_cut_and_unknown_files_are_found(out: Path) -> None:
    (out / "notes.txt").touch()
    (out / "holdout.txt").unlink()
    (out / TAR).write_bytes((out / TAR).read_bytes()[:1000])
    found = {fault.kind: fault for fault in verify_release(out).faults}
    assert {"unknown file", "missing file", "wrong size", "damaged tar", "wrong count"} <= set(found)
    assert found["unknown file"].first == "notes.txt"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"category": 1}, "wrong annotation file"),
        ({"area": 7}, "wrong annotation file"),
        ({"bbox": [0.0, 0.0, 1.0, 1.0]}, "wrong annotation file"),
        ({"segmentation": {"size": [48, 64], "counts": "0"}}, "wrong annotation file"),
        ({"point_coords": [[]]}, "wrong annotation file"),
        ({"segmentation": {"size": [48, 64], "counts": 7}}, "wrong annotation file"),
        ({"id": 9}, "wrong number of a mask"),
        ({"predicted_iou": 0.125}, "row of a mask"),
        ({"point_coords": [[1.0, 2.0]]}, "row of a mask"),
    ],
)
def test_an_annotation_against_the_rules_or_the_table_is_found(out: Path, change: dict[str, Any], kind: str) -> None:
    change_annotation(out, **change)
    assert kind in kinds(out)


def test_metadata_in_an_image_is_found(out: Path) -> None:
    change_tar(out, lambda name, data: photos.with_metadata(data) if name == "sa_2.jpg" else data)
    (fault,) = (each for each in verify_release(out).faults if each.kind == "metadata in an image")
    assert fault.count == 1
    assert fault.first.startswith("sa_000000.tar: sa_2.jpg: ffe1")


def test_an_image_of_another_size_and_a_broken_one_are_found(out: Path) -> None:
    changes = {"sa_1.jpg": b"no image", "sa_2.jpg": _small_jpeg()}
    change_tar(out, lambda name, data: changes.get(name, data))
    assert {"damaged image", "size of an image", "row of an image"} <= kinds(out)


def test_a_renamed_member_is_found(out: Path) -> None:
    data = (out / TAR).read_bytes()
    with tarfile.open(out / TAR) as old, tarfile.open(out / "new.tar", "w", format=tarfile.USTAR_FORMAT) as new:
        for member in old.getmembers():
            content = io.BytesIO(old.extractfile(member).read())
            member.name = member.name.replace("sa_3.", "sa_30.")
            new.addfile(member, content)
    (out / "new.tar").replace(out / TAR)
    assert data != (out / TAR).read_bytes()
    assert "wrong member" in kinds(out)


def test_rows_that_differ_are_lacking_or_too_many_are_found(out: Path) -> None:
    images, masks = (out / IMAGES).read_bytes(), (out / MASKS).read_bytes()
    change_table(out / IMAGES, lambda row: row | {"sha256": "0" * 64})
    assert "row of an image" in kinds(out)
    change_table(out / IMAGES, lambda row: row | {"license": "other"})
    assert {"wrong list", "wrong count"} <= kinds(out)
    (out / IMAGES).write_bytes(images)
    change_table(out / MASKS, lambda row: row | {"area": 1})
    assert "row of a mask" in kinds(out)
    (out / MASKS).write_bytes(masks)
    change_table(out / MASKS, lambda row: row | {"split": {"train": "holdout", "holdout": "train"}[row["split"]]})
    assert "row of a mask" in kinds(out)
    change_table(out / MASKS, lambda row: {})
    assert "row of a mask" in kinds(out)
    (out / MASKS).write_bytes(masks)
    shutil.copy(out / "masks/sa_000000.parquet", out / "masks/sa_000001.parquet")
    assert "row of nothing in the tar" in kinds(out)
    (out / MASKS).write_bytes(b"no table")
    assert "unreadable table" in kinds(out)


def test_a_folder_that_is_no_finished_release_is_refused(out: Path) -> None:
    manifest = (out / "release.json").read_bytes()
    (out / "release.json").write_bytes(manifest[:100])
    with pytest.raises(ValueError, match="damaged"):
        verify_release(out)
    (out / "release.json").write_text("{}")
    with pytest.raises(ValueError, match="is a required property"):
        verify_release(out)
    (out / "release.json").unlink()
    with pytest.raises(ValueError, match="no finished release"):
        verify_release(out)


def test_the_outside_reader_is_a_program_without_gigamask(released: Released, tmp_path: Path) -> None:
    program = Path(shutil.copy(ROOT / "tests/stages/release/outside_reader.py", tmp_path))
    command = [sys.executable, "-I", str(program), str(released.out)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "13 files, 6 images, 24 masks\n"), done.stderr


def _small_jpeg() -> bytes:
    buffer = io.BytesIO()
    photos.pixels(1).resize((8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()
