"""Documents of a release: they say what is so, and give programs what they need."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.release.choose import choose
from stages.release.config import ReleaseConfig
from stages.release.documents.words import NOT_DEIDENTIFIED
from stages.release.release import write_release
from tests.stages.release.conftest import CONFIG, Released


def front_matter(out: Path) -> dict[str, Any]:
    _, front, _ = (out / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front)


def croissant(out: Path) -> dict[str, Any]:
    return json.loads((out / "croissant.json").read_bytes())


def test_every_document_says_that_nothing_was_blurred(released: Released) -> None:
    for name in ("README.md", "DATASHEET.md", "croissant.json"):
        assert NOT_DEIDENTIFIED in (released.out / name).read_text(), name


def test_the_card_gives_features_sizes_and_licences(released: Released) -> None:
    front = front_matter(released.out)
    assert front["license"] == ["cc-by-4.0", "cc0-1.0"]
    assert front["annotations_creators"] == ["machine-generated", "other"]
    (info,) = front["dataset_info"]
    (split,) = info["splits"]
    assert split["num_examples"] == 6
    assert split["num_bytes"] == sum(path.stat().st_size for path in released.out.glob("*.tar"))
    document = next(each for each in info["features"] if each["name"] == "json")
    annotations = next(each for each in document["struct"] if each["name"] == "annotations")
    with_names = {each["name"] for each in annotations["list"]}
    assert with_names == {
        *("id", "segmentation", "bbox", "area", "predicted_iou", "stability_score", "crop_box", "point_coords")
    }


def test_the_card_does_not_name_a_licence_that_some_images_lack(released: Released, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, allow_unlicensed=True)
    write_release(released.dataset, choose(released.dataset, released.snapshot, config), tmp_path / "out", config)
    front = front_matter(tmp_path / "out")
    assert (front["license"], front["license_link"]) == ("other", "LICENSES.md")
    assert "| none given | 1 |" in (tmp_path / "out" / "LICENSES.md").read_text()
    assert croissant(tmp_path / "out")["license"] == ["CC-BY-4.0", "CC0-1.0"]


def test_croissant_describes_every_tar_and_table_and_refers_to_nothing_else(released: Released) -> None:
    found = croissant(released.out)
    files = {each["@id"]: each for each in found["distribution"] if each["@type"] == "cr:FileObject"}
    on_disk = {path.relative_to(released.out).as_posix() for path in released.out.rglob("sa_*")}
    assert set(files) == on_disk
    for name, file in files.items():
        assert file["sha256"] == hashlib.sha256((released.out / name).read_bytes()).hexdigest()
    sets = {each["@id"] for each in found["distribution"] if each["@type"] == "cr:FileSet"}
    for record_set in found["recordSet"]:
        for field in record_set["field"]:
            assert field["@id"].startswith(f"{record_set['@id']}/")
            assert "source" not in field or field["source"]["fileSet"]["@id"] in sets
    assert sum(name.startswith("rai:") for name in found) == 18
    assert not {"creator", "url"} & set(found)  # nobody gave them


def test_what_the_maker_says_is_in_every_document(released: Released, tmp_path: Path) -> None:
    about = {
        "title": "Birds | of prey",
        "creator": "Ada",
        "url": "https://example.org/birds",
        "contact": "a@example.org",
    }
    config = dataclasses.replace(CONFIG, **about)
    write_release(released.dataset, choose(released.dataset, released.snapshot, config), tmp_path / "out", config)
    found = croissant(tmp_path / "out")
    assert (found["name"], found["creator"]["name"], found["url"]) == ("birds-of-prey", "Ada", about["url"])
    datasheet = (tmp_path / "out" / "DATASHEET.md").read_text()
    assert all(text in datasheet for text in about.values())
    assert front_matter(tmp_path / "out")["pretty_name"] == about["title"]
    assert about["contact"] in (tmp_path / "out" / "README.md").read_text()


def test_a_title_of_two_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="one line of printable text"):
        ReleaseConfig(not_deidentified=True, title="one\ntwo")
    with pytest.raises(ValueError, match="the title is empty"):
        ReleaseConfig(not_deidentified=True, title=" ")


@pytest.mark.parametrize("name", ["DATASHEET.md", "croissant.json"])
def test_the_side_of_an_image_is_said_to_follow_from_its_id_in_the_dataset(released: Released, name: str) -> None:
    text = " ".join((released.out / name).read_text().split())
    assert "by the image's id in the dataset" in text or "follows from its id in the dataset" in text
