import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.ingest.config import IngestConfig
from stages.ingest.ingest import IngestProgress, ingest_photos
from storage.dataset import Dataset
from tests.stages.ingesting import repeatable


@pytest.fixture
def cards(tmp_path: Path, pictures: SimpleNamespace) -> list[Path]:
    """Two folders of one name, each with another photograph of the same name, size and time."""
    folders = [tmp_path / number / "card" for number in "12"]
    for seed, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "0001.jpg").write_bytes(pictures.encode(pictures.draw(seed), "JPEG").ljust(9_000, b"\0"))
        os.utime(folder / "0001.jpg", (1, 1))
    return folders


def test_only_what_is_new_in_a_folder_is_planned(
    dataset: Dataset, photo_folder: Path, pictures: SimpleNamespace
) -> None:
    ingest_photos([photo_folder], dataset)
    (photo_folder / "00 new.png").write_bytes(pictures.encode(pictures.draw(30), "PNG"))
    seen: list[IngestProgress] = []
    report = ingest_photos([photo_folder], dataset, progress=seen.append)
    assert seen == [IngestProgress(done=1, total=1, images=1, rejects=0)]
    assert (report.images, report.new_shards, len(report.shards)) == (9, 1, 2)


def test_settings_that_take_more_photographs_add_them(dataset: Dataset, photo_folder: Path) -> None:
    narrow = ingest_photos([photo_folder], dataset, IngestConfig(min_side_px=100))
    wide = ingest_photos([photo_folder], dataset)
    assert (narrow.images, narrow.reasons(), wide.images) == (0, {"too_small": 8}, 8)


def test_shards_hold_at_most_so_many_images_and_bytes(dataset: Dataset, photo_folder: Path) -> None:
    largest = max(path.stat().st_size for path in photo_folder.iterdir())
    by_count = ingest_photos([photo_folder], dataset, IngestConfig(images_per_shard=3))
    assert [commit.images for commit in by_count.shards] == [3, 3, 2]
    other = Dataset.create(photo_folder.parent / "other")
    by_bytes = ingest_photos([photo_folder], other, IngestConfig(shard_bytes=2 * largest))
    assert len(by_bytes.shards) >= 4
    assert sum(commit.images for commit in by_bytes.shards) == 8


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
