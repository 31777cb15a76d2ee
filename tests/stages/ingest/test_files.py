import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.ingest.files import find_photos, read_file
from stages.ingest.normalise import Unusable
from storage.protocol.inputs import PhotoKey


def sources(*paths: Path) -> list[str]:
    return [photo.source for photo in find_photos(paths)[0]]


def test_photographs_are_found_below_a_folder_in_order_by_ending_or_content(
    tmp_path: Path, pictures: SimpleNamespace
) -> None:
    folder = tmp_path / "holiday"
    (folder / "day 1").mkdir(parents=True)
    jpeg = pictures.encode(pictures.draw(1), "JPEG")
    for name in ("b.JPG", "a.tiff", "day 1/IMG_0001", "notes.txt", "day 1/data.json", ".DS_Store", "._b.jpg"):
        (folder / name).write_bytes(jpeg if name == "day 1/IMG_0001" else b"text")
    found, other_files = find_photos([folder])
    assert [photo.source for photo in found] == ["holiday/a.tiff", "holiday/b.JPG", "holiday/day 1/IMG_0001"]
    assert other_files == 4


def test_a_file_given_by_name_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    (tmp_path / "scan.dat").write_bytes(b"text")
    assert sources(tmp_path / "scan.dat") == ["scan.dat"]


def test_the_same_folder_given_twice_counts_once(photo_folder: Path) -> None:
    assert len(sources(photo_folder, photo_folder)) == 8


def test_a_file_reached_by_two_ways_counts_once(photo_folder: Path) -> None:
    (photo_folder.parent / "link").symlink_to(photo_folder)
    (photo_folder / "same.png").symlink_to(photo_folder / "0.png")
    below = photo_folder / "below"
    below.mkdir()
    (photo_folder / "7.png").rename(below / "7.png")
    assert len(sources(photo_folder, below, photo_folder.parent / "link", photo_folder / "1.png")) == 8


def test_files_of_one_name_size_and_time_in_two_folders_of_one_name_are_two(tmp_path: Path) -> None:
    folders = []
    for number in (1, 2):
        folders.append(tmp_path / str(number) / "card")
        folders[-1].mkdir(parents=True)
        (folders[-1] / "0001.jpg").write_text(f"photograph {number}")
        os.utime(folders[-1] / "0001.jpg", (1, 1))
    found, _ = find_photos(folders)
    assert [photo.source for photo in found] == ["card/0001.jpg"] * 2
    assert {photo.path.read_text() for photo in found} == {"photograph 1", "photograph 2"}
    assert {photo.key for photo in found} == {find_photos([folder])[0][0].key for folder in folders}
    assert len({photo.key for photo in found}) == 2


def test_links_in_a_circle_end(photo_folder: Path) -> None:
    (photo_folder / "again").symlink_to(photo_folder)
    (photo_folder / "below").mkdir()
    (photo_folder / "below" / "up").symlink_to("..")
    assert len(sources(photo_folder)) == 8


def test_a_name_that_is_no_utf8_is_spelled_out(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9\t1.jpg"
    with open(path, "wb") as file:
        file.write(b"x")
    (photo,) = find_photos([tmp_path])[0]
    assert photo.source.endswith("/caf\\xe9\t1.jpg")
    assert PhotoKey.parse(str(photo.key)) == photo.key
    assert photo.key.name_and_size == (photo.source, 1)
    assert photo.key.source_and_place == (photo.source, photo.place)
    assert read_file(photo.path, 10) == b"x"


@pytest.mark.parametrize("content", [[], ["notes.txt", "data.csv"]])
def test_a_folder_without_photographs_is_one_clear_error(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).write_text("text")
    with pytest.raises(ValueError, match=rf"none in .*\({len(content)} other files\); expected JPEG"):
        find_photos([tmp_path])


def test_a_path_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere does not exist; give a folder or image files"):
        find_photos([tmp_path / "nowhere"])


def test_pipes_links_to_nowhere_folders_and_huge_files_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "large.jpg").write_bytes(bytes(100))
    reasons = {}
    for photo in find_photos([tmp_path])[0]:
        with pytest.raises(Unusable) as caught:
            read_file(photo.path, 99)
        reasons[photo.path.name] = caught.value.reason
    assert reasons == {
        "pipe.jpg": "unreadable",
        "dangling.jpg": "unreadable",
        "folder.jpg": "unreadable",
        "large.jpg": "too_large",
    }
