import hashlib
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from engine.images import decode
from stages.ingest.config import IngestConfig
from stages.ingest.ingest import IngestProgress, IngestReport, ingest_photos
from storage.dataset import Dataset
from storage.records import ImageRecord, image_id_of

SMALL_SHARDS = IngestConfig(images_per_shard=3, threads=2)


def stored(dataset: Dataset) -> dict[str, tuple[ImageRecord, bytes]]:
    """source -> record and bytes, of every committed image."""
    images = [image for shard in dataset.image_shards() for image in dataset.read_images(shard)]
    return {record.source: (record, data) for record, data in images}


def repeatable(report: IngestReport) -> IngestReport:
    return replace(report, new_shards=0, seconds=0.0)


def test_photographs_arrive_with_their_pixels_and_their_records(dataset: Dataset, photo_folder: Path) -> None:
    report = ingest_photos([photo_folder], dataset, IngestConfig(license="CC0-1.0", country="CH"))
    assert (report.images, report.rejects, report.other_files, report.new_shards) == (8, (), 0, 1)
    images = stored(dataset)
    assert sorted(images) == [f"photos/{number}.png" for number in range(8)]
    for source, (record, data) in images.items():
        original = photo_folder.parent / source
        np.testing.assert_array_equal(decode(data), np.asarray(Image.open(original)))
        assert record.source_sha256 == hashlib.sha256(original.read_bytes()).hexdigest()
        assert record.stored_sha256 == hashlib.sha256(data).hexdigest()
        assert (record.height, record.width, record.nbytes) == (64, 96, len(data))
        assert (record.license, record.country, record.format) == ("CC0-1.0", "CH", "png")
    assert report.shards[0].stats == {
        "photos": 8,
        "unchanged": 0,
        "of_earlier_settings": 0,
        "stored_as_they_came": 8,
    }


def test_bad_files_become_rejects_and_the_others_go_on(
    dataset: Dataset, photo_folder: Path, pictures: SimpleNamespace
) -> None:
    jpeg = pictures.encode(pictures.draw(20), "JPEG")
    (photo_folder / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (photo_folder / "nothing.jpg").touch()
    (photo_folder / "letter.jpg").write_text("Dear reader")
    (photo_folder / "line.png").write_bytes(pictures.encode(pictures.draw(21, height=500, width=1), "PNG"))
    frames = [pictures.draw(seed) for seed in (22, 23)]
    (photo_folder / "wave.gif").write_bytes(pictures.encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    (photo_folder / "copy.png").write_bytes((photo_folder / "3.png").read_bytes())
    (photo_folder / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(photo_folder / "pipe.jpg")
    (photo_folder / "folder.jpg").mkdir()
    (photo_folder / "notes.txt").write_text("no photograph")
    report = ingest_photos([photo_folder], dataset)
    assert (report.images, report.other_files) == (8, 1)
    reasons = {reject.source.removeprefix("photos/"): reject.reason for reject in report.rejects}
    assert reasons == {
        "copy.png": "duplicate",
        "cut.jpg": "truncated",
        "folder.jpg": "unreadable",
        "gone.jpg": "unreadable",
        "letter.jpg": "not_an_image",
        "line.png": "too_small",
        "nothing.jpg": "empty",
        "pipe.jpg": "unreadable",
        "wave.gif": "animated",
    }
    assert report.reasons() == {
        "unreadable": 3,
        **dict.fromkeys(("animated", "duplicate", "empty", "not_an_image", "too_small", "truncated"), 1),
    }
    dataset.fold()
    rows = dataset.query("SELECT source, reason FROM rejects").to_pylist()
    assert {row["source"].removeprefix("photos/"): row["reason"] for row in rows} == reasons


def test_a_photograph_that_a_library_chokes_on_does_not_end_the_others_work(
    dataset: Dataset, photo_folder: Path, pictures: SimpleNamespace
) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("transparency", "a text where Pillow expects a colour")
    (photo_folder / "odd.png").write_bytes(pictures.encode(pictures.draw(24), "PNG", pnginfo=info))
    report = ingest_photos([photo_folder], dataset)
    assert (report.images, report.reasons()) == (8, {"failed": 1})
    assert "TypeError" in report.rejects[0].detail


def test_a_folder_of_nothing_but_bad_files_is_a_shard_of_rejects(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    report = ingest_photos([tmp_path / "a.jpg"], dataset)
    assert (report.images, report.reasons()) == (0, {"empty": 1})
    assert repeatable(ingest_photos([tmp_path / "a.jpg"], dataset)) == repeatable(report)


def test_the_same_command_again_does_nothing_and_says_the_same(dataset: Dataset, photo_folder: Path) -> None:
    (photo_folder / "empty.jpg").touch()
    first = ingest_photos([photo_folder], dataset, SMALL_SHARDS)
    seen: list[IngestProgress] = []
    again = ingest_photos([photo_folder], dataset, SMALL_SHARDS, seen.append)
    assert (first.new_shards, again.new_shards, seen) == (3, 0, [])
    assert repeatable(again) == repeatable(first)
    assert len(dataset.plans()) == 1


def test_only_what_is_new_in_a_folder_is_planned(
    dataset: Dataset, photo_folder: Path, pictures: SimpleNamespace
) -> None:
    ingest_photos([photo_folder], dataset)
    (photo_folder / "00 new.png").write_bytes(pictures.encode(pictures.draw(30), "PNG"))
    seen: list[IngestProgress] = []
    report = ingest_photos([photo_folder], dataset, progress=seen.append)
    assert seen == [IngestProgress(done=1, total=1, images=1, rejects=0)]
    assert (report.images, report.new_shards, len(report.shards)) == (9, 1, 2)


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


def test_settings_that_take_more_photographs_add_them(dataset: Dataset, photo_folder: Path) -> None:
    narrow = ingest_photos([photo_folder], dataset, IngestConfig(min_side_px=100))
    wide = ingest_photos([photo_folder], dataset)
    assert (narrow.images, narrow.reasons(), wide.images) == (0, {"too_small": 8}, 8)


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


def test_shards_hold_at_most_so_many_images_and_bytes(dataset: Dataset, photo_folder: Path) -> None:
    largest = max(path.stat().st_size for path in photo_folder.iterdir())
    by_count = ingest_photos([photo_folder], dataset, IngestConfig(images_per_shard=3))
    assert [commit.images for commit in by_count.shards] == [3, 3, 2]
    other = Dataset.create(photo_folder.parent / "other")
    by_bytes = ingest_photos([photo_folder], other, IngestConfig(shard_bytes=2 * largest))
    assert len(by_bytes.shards) >= 4
    assert sum(commit.images for commit in by_bytes.shards) == 8


def test_the_number_of_threads_changes_no_byte(tmp_path: Path, photo_folder: Path) -> None:
    (photo_folder / "copy.png").write_bytes((photo_folder / "3.png").read_bytes())
    parts = []
    for threads in (1, 7):
        dataset = Dataset.create(tmp_path / f"dataset-{threads}")
        report = ingest_photos([photo_folder], dataset, IngestConfig(images_per_shard=3, threads=threads))
        parts.append([(part.role, part.sha256) for commit in report.shards for part in commit.tars()])
        assert report.reasons() == {"duplicate": 1}
    assert parts[0] == parts[1]


KILLED_AFTER_FIVE = """
import os, sys
from stages.ingest.config import IngestConfig
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
def progress(now):
    if now.done == 5:
        os._exit(9)
ingest_photos([sys.argv[1]], Dataset.open(sys.argv[2]), IngestConfig(images_per_shard=3, threads=2), progress)
"""


def test_a_run_that_was_killed_goes_on(tmp_path: Path, dataset: Dataset, photo_folder: Path) -> None:
    (photo_folder / "copy.png").write_bytes((photo_folder / "1.png").read_bytes())
    command = [sys.executable, "-c", KILLED_AFTER_FIVE, str(photo_folder), str(tmp_path / "dataset")]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}).returncode == 9
    assert len(dataset.image_shards()) == 1
    report = ingest_photos([photo_folder], dataset, SMALL_SHARDS)
    assert (report.images, report.reasons(), report.new_shards, len(report.shards)) == (8, {"duplicate": 1}, 2, 3)
    whole = Dataset.create(tmp_path / "whole")
    ingest_photos([photo_folder], whole, SMALL_SHARDS)
    assert [commit.tars()[0].sha256 for commit in whole.image_shards()] == [
        commit.tars()[0].sha256 for commit in dataset.image_shards()
    ]


def test_a_photograph_that_went_away_after_planning_is_a_reject(dataset: Dataset, photo_folder: Path) -> None:
    class Interrupted(Exception): ...

    def interrupt(now: IngestProgress) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        ingest_photos([photo_folder], dataset, SMALL_SHARDS, interrupt)
    (photo_folder / "4.png").unlink()
    report = ingest_photos([photo_folder], dataset, SMALL_SHARDS)
    assert (report.images, report.reasons()) == (7, {"unreadable": 1})
    assert not any(thread.name.startswith("ingest") for thread in threading.enumerate())


class Stopped(Exception):
    """As Ctrl-C ends an ingest."""


def stop(now: IngestProgress) -> None:
    raise Stopped


@pytest.fixture
def two_folders(tmp_path: Path, photo_folder: Path) -> tuple[Path, Path]:
    """Eight photos in two folders, which sort into common shards."""
    first, second = tmp_path / "A", tmp_path / "B"
    for folder in (first, second):
        folder.mkdir()
    for number, photo in enumerate(sorted(photo_folder.iterdir())):
        photo.rename((first, second)[number % 2] / photo.name)
    return first, second


def test_an_ingest_of_two_folders_goes_on_with_one_and_loses_no_photo_of_the_other(
    dataset: Dataset, two_folders: tuple[Path, Path]
) -> None:
    first, second = two_folders
    with pytest.raises(Stopped):
        ingest_photos([first, second], dataset, IngestConfig(images_per_shard=8), stop)

    report = ingest_photos([first], dataset, IngestConfig(images_per_shard=8))
    assert (report.images, report.rejects) == (4, ())
    report = ingest_photos([second], dataset, IngestConfig(images_per_shard=8))
    assert (report.images, report.rejects) == (4, ())

    report = ingest_photos([first, second], dataset, IngestConfig(images_per_shard=8))
    assert (report.rejects, report.unchanged) == ((), 8)
    dataset.fold()
    assert dataset.query("SELECT count(*) AS images FROM images").to_pylist() == [{"images": 8}]
    assert all(status.missing == () for status in dataset.status())


def test_photos_of_shards_that_were_given_up_are_ingested_again(dataset: Dataset, photo_folder: Path) -> None:
    with pytest.raises(Stopped):
        ingest_photos([photo_folder], dataset, SMALL_SHARDS, stop)
    (plan,) = dataset.plans()
    dataset.maintenance.close(plan)

    report = ingest_photos([photo_folder], dataset, SMALL_SHARDS)
    assert (report.images, report.rejects, report.unchanged) == (8, (), 0)
    again = ingest_photos([photo_folder], dataset, SMALL_SHARDS)
    assert (again.images, again.new_shards) == (8, 0)
    dataset.fold()
    assert dataset.query("SELECT count(*) AS images FROM images").to_pylist() == [{"images": 8}]
    assert dataset.maintenance.verify().faults == ()


def test_a_lost_shard_is_made_again_from_its_photos_by_a_redo(dataset: Dataset, photo_folder: Path) -> None:
    ingest_photos([photo_folder], dataset, SMALL_SHARDS)
    dataset.fold()
    (plan,) = dataset.plans()
    lost, *_ = dataset.image_shards()
    before = dict(dataset.known_image_ids())
    for part in lost.parts:
        dataset.store.delete(part.key)

    dataset.maintenance.plan_redo(plan, [lost.shard])
    report = ingest_photos([photo_folder], dataset, SMALL_SHARDS)
    dataset.fold()
    assert (report.images, report.rejects, report.unchanged) == (8, (), 0)
    assert dataset.known_image_ids() == before
    assert sum(1 for shard in dataset.image_shards() for _ in dataset.read_images(shard)) == 8


@pytest.fixture
def cards(tmp_path: Path, pictures: SimpleNamespace) -> list[Path]:
    """Two folders of one name, each with another photograph of the same name, size and time."""
    folders = [tmp_path / number / "card" for number in "12"]
    for seed, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "0001.jpg").write_bytes(pictures.encode(pictures.draw(seed), "JPEG").ljust(9_000, b"\0"))
        os.utime(folder / "0001.jpg", (1, 1))
    return folders


def test_two_folders_of_one_name_keep_all_their_photographs(dataset: Dataset, cards: list[Path]) -> None:
    report = ingest_photos(cards, dataset)
    assert (report.images, report.rejects) == (2, ())
    assert repeatable(ingest_photos(cards, dataset)) == repeatable(report)


def test_a_second_folder_of_the_same_name_is_new_in_a_later_run(dataset: Dataset, cards: list[Path]) -> None:
    reports = [ingest_photos([folder], dataset) for folder in cards]
    assert [(report.images, report.new_shards, report.rejects) for report in reports] == [(1, 1, ())] * 2
    assert len(dataset.image_shards()) == 2
    again = ingest_photos(cards, dataset)
    assert (again.images, again.new_shards, len(again.shards)) == (2, 0, 2)


@pytest.mark.parametrize("changed", [0, 1])
def test_of_two_folders_of_one_name_a_changed_photograph_is_found_in_its_own(
    dataset: Dataset, cards: list[Path], changed: int
) -> None:
    class Interrupted(Exception): ...

    def interrupt(now: IngestProgress) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        ingest_photos(cards, dataset, None, interrupt)
    os.utime(cards[changed] / "0001.jpg", (2, 2))
    report = ingest_photos(cards, dataset)
    assert (report.images, report.unchanged, report.rejects) == (2, 1, ())


def test_a_folder_that_moved_is_looked_at_again_and_nothing_stored_twice(dataset: Dataset, photo_folder: Path) -> None:
    ingest_photos([photo_folder], dataset)
    (photo_folder.parent / "elsewhere").mkdir()
    moved = photo_folder.rename(photo_folder.parent / "elsewhere" / "photos")
    report = ingest_photos([moved], dataset)
    assert (report.images, report.unchanged, report.rejects) == (0, 8, ())
