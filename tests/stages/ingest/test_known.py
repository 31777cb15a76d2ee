import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.ingest.config import IngestConfig
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.records import image_id_of
from tests.stages.ingesting import repeatable, stored


def test_a_photograph_with_a_new_time_is_unchanged_and_one_under_another_name_a_duplicate(
    dataset: Dataset, photo_folder: Path
) -> None:
    ingest_photos([photo_folder], dataset)
    os.utime(photo_folder / "0.png", (1, 1))
    (photo_folder / "1.png").rename(photo_folder / "other.png")
    report = ingest_photos([photo_folder], dataset)
    assert (report.images, report.unchanged, report.reasons()) == (8, 1, {"duplicate": 1})
    assert len(stored(dataset)) == 8


def test_other_settings_store_no_photograph_twice(dataset: Dataset, photo_folder: Path) -> None:
    ingest_photos([photo_folder], dataset)
    report = ingest_photos([photo_folder], dataset, IngestConfig(shortest_side_px=32))
    assert (report.images, report.unchanged, report.rejects) == (0, 8, ())
    assert len(stored(dataset)) == 8


def test_photographs_kept_as_earlier_settings_made_them_are_counted(
    dataset: Dataset, photo_folder: Path, pictures: SimpleNamespace
) -> None:
    assert ingest_photos([photo_folder], dataset).stored_with_other_settings == 0
    os.utime(photo_folder / "0.png", (1, 1))
    touched = ingest_photos([photo_folder], dataset)
    assert (touched.unchanged, touched.stored_with_other_settings) == (1, 0)
    (photo_folder / "new.png").write_bytes(pictures.encode(pictures.draw(30), "PNG"))
    licensed = IngestConfig(license="CC0-1.0")
    report = ingest_photos([photo_folder], dataset, licensed)
    assert (report.images, report.unchanged, report.stored_with_other_settings) == (1, 8, 8)
    assert repeatable(ingest_photos([photo_folder], dataset, licensed)) == repeatable(report)
    assert ingest_photos([photo_folder], dataset).stored_with_other_settings == 1  # new.png, stored with a license


def test_a_redo_still_counts_photographs_of_earlier_settings(dataset: Dataset, photo_folder: Path) -> None:
    ingest_photos([photo_folder], dataset)
    licensed = IngestConfig(license="CC0-1.0")
    (photo_folder / "mended.png").touch()
    assert ingest_photos([photo_folder], dataset, licensed).reasons() == {"empty": 1}
    (plan,) = (plan for plan in dataset.plans() if plan.settings == licensed.settings())
    dataset.maintenance.plan_redo(plan)
    report = ingest_photos([photo_folder], dataset, licensed)
    assert (report.new_shards, report.unchanged, report.stored_with_other_settings) == (1, 8, 8)


def test_an_id_that_two_photographs_share_is_a_reject(
    dataset: Dataset, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256((photo_folder / "5.png").read_bytes()).hexdigest()
    alike = sha256[:16] + "0" * 48  # no two files are known whose first 63 bits agree
    monkeypatch.setattr(Dataset, "known_image_ids", lambda _: {image_id_of(alike): bytes.fromhex(alike)})
    report = ingest_photos([photo_folder], dataset)
    assert (report.images, report.reasons()) == (7, {"id_clash": 1})
    assert report.rejects[0].source == "photos/5.png"
    assert alike in report.rejects[0].detail


def test_a_folder_that_moved_is_looked_at_again_and_nothing_stored_twice(dataset: Dataset, photo_folder: Path) -> None:
    ingest_photos([photo_folder], dataset)
    (photo_folder.parent / "elsewhere").mkdir()
    moved = photo_folder.rename(photo_folder.parent / "elsewhere" / "photos")
    report = ingest_photos([moved], dataset)
    assert (report.images, report.unchanged, report.rejects) == (0, 8, ())
