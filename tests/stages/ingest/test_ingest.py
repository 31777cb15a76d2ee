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
from stages.ingest.ingest import IngestProgress, ingest_photos
from stages.ingest.one_photo import ReadPhoto, image_of
from storage.dataset import Dataset
from storage.records import ImageRecord
from tests.stages.ingesting import SMALL_SHARDS, repeatable, stored


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


def test_portions_of_new_photographs_make_the_images_of_one_call(dataset: Dataset, photo_folder: Path) -> None:
    new = [ingest_photos([photo_folder], dataset, max_new=3) for _ in range(4)]
    assert [report.images for report in new] == [3, 6, 8, 8]
    assert [report.new_shards for report in new] == [1, 1, 1, 0]
    assert new[-1].rejects == ()
    assert sorted(stored(dataset)) == [f"photos/{number}.png" for number in range(8)]


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


def test_after_a_given_up_ingest_of_two_folders_one_of_them_is_ingested(
    dataset: Dataset, two_folders: tuple[Path, Path]
) -> None:
    first, second = two_folders
    with pytest.raises(Stopped):
        ingest_photos([first, second], dataset, IngestConfig(images_per_shard=8), stop)
    dataset.maintenance.close(dataset.plans()[0])
    report = ingest_photos([first], dataset, IngestConfig(images_per_shard=8))
    assert (report.images, report.rejects) == (4, ())


def test_a_photo_that_another_ingest_commits_meanwhile_is_stored_once(
    dataset: Dataset, two_folders: tuple[Path, Path]
) -> None:
    first, second = two_folders
    met: list[int] = []

    def meet(now: IngestProgress) -> None:
        if not met:
            met.append(now.done)
            ingest_photos([first], dataset, IngestConfig(images_per_shard=8))

    ingest_photos([first, second], dataset, IngestConfig(images_per_shard=8), meet)
    dataset.fold()
    (row,) = dataset.query("SELECT count(*) AS images, count(DISTINCT image_id) AS ids FROM images").to_pylist()
    assert row == {"images": 8, "ids": 8}


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


def break_on(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Let this program's own code fall over one photo, as a mistake in it would."""
    real = image_of

    def broken(read: ReadPhoto, config: IngestConfig) -> tuple[ImageRecord, bytes]:
        if read.source == source:
            raise KeyError("a mistake")
        return real(read, config)

    monkeypatch.setattr("stages.ingest.ingest.image_of", broken)


def test_a_mistake_of_ours_fails_its_shard_alone_and_blames_no_photo(
    dataset: Dataset, photo_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (photo_folder / "copy.png").write_bytes((photo_folder / "1.png").read_bytes())  # in a later shard than 1.png
    with monkeypatch.context() as patch:
        break_on(patch, "photos/0.png")
        report = ingest_photos([photo_folder], dataset, SMALL_SHARDS)
    plan = dataset.plans()[0]
    assert report.failed == {f"{plan.plan_id}/{plan.shards[0].name}": "KeyError: 'a mistake'"}
    assert "Traceback" in caplog.text
    assert (report.images, report.rejects, report.new_shards) == (6, (), 2)
    again = ingest_photos([photo_folder], dataset, SMALL_SHARDS)
    assert (again.images, again.reasons(), again.failed, again.new_shards) == (8, {"duplicate": 1}, {}, 1)
    assert [reject.source for reject in again.rejects] == ["photos/1.png"]  # its copy was stored in the meantime


def test_a_folder_whose_disk_is_not_mounted_is_one_clear_error_and_nothing_is_committed(
    dataset: Dataset, two_folders: tuple[Path, Path]
) -> None:
    first, second = two_folders
    with pytest.raises(Stopped):
        ingest_photos([first, second], dataset, SMALL_SHARDS, stop)
    disk = second.rename(second.with_name("disk"))
    second.mkdir()
    with pytest.raises(ValueError, match=r"B is empty, but plan .* has photos of it .* is its disk mounted\?"):
        ingest_photos([first, second], dataset, SMALL_SHARDS)
    assert dataset.image_addresses() == []
    second.rmdir()
    disk.rename(second)
    report = ingest_photos([first, second], dataset, SMALL_SHARDS)
    assert (report.images, report.rejects) == (8, ())


def test_more_than_half_of_a_shard_gone_is_one_clear_error_unless_allowed(dataset: Dataset, photo_folder: Path) -> None:
    with pytest.raises(Stopped):
        ingest_photos([photo_folder], dataset, SMALL_SHARDS, stop)
    for number in (3, 4):
        (photo_folder / f"{number}.png").unlink()
    with pytest.raises(ValueError, match=r"2 of 3 photos of shard .* are gone, the first is photos/3.png"):
        ingest_photos([photo_folder], dataset, SMALL_SHARDS)
    assert dataset.image_addresses() == []
    report = ingest_photos([photo_folder], dataset, replace(SMALL_SHARDS, max_gone_fraction=1.0))
    assert (report.images, report.reasons()) == (6, {"unreadable": 2})
    assert len(dataset.plans()) == 1


def test_the_photo_of_an_erased_image_is_a_reject_for_good(dataset: Dataset, photo_folder: Path) -> None:
    ingest_photos([photo_folder], dataset)
    record, data = stored(dataset)["photos/2.png"]
    dataset.erase([record.image_id], "a person's wish")
    (photo_folder / "again.png").write_bytes((photo_folder / "2.png").read_bytes())
    report = ingest_photos([photo_folder], dataset)
    (reject,) = report.rejects
    assert (reject.source, reject.reason, reject.stage) == ("photos/again.png", "erased", "ingest")
    assert reject.detail.endswith("because: a person's wish")

    # Nor does the redo of the shard that held it bring it back
    dataset.maintenance.plan_redo(dataset.plans()[0], [dataset.plans()[0].shards[0].name])
    report = ingest_photos([photo_folder], dataset)
    assert (report.images, report.unchanged) == (8, 0)
    assert sorted(reject.source for reject in report.rejects) == ["photos/2.png", "photos/again.png"]
    assert {reject.reason for reject in report.rejects} == {"erased"}
    dataset.fold()
    assert "photos/2.png" not in stored(dataset)
    assert len(dataset.query("SELECT key FROM images")) == 7
    assert not [path for path in Path(dataset.uri).rglob("*.*") if path.is_file() and data in path.read_bytes()]
    assert dataset.maintenance.verify().faults == ()
