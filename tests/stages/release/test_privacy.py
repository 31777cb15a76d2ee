import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stages.release.choose import choose
from stages.release.config import ReleaseConfig
from stages.release.documents.words import NOT_DEIDENTIFIED, deidentification, stages
from stages.release.release import write_release
from stages.release.verification.verify import verify_release
from tests.stages.release.photos import add_images, make_dataset, stored_images

COLUMNS = {
    "images": [
        "image_id",
        "file_name",
        "tar",
        "split",
        "height",
        "width",
        "nbytes",
        "sha256",
        "masks",
        "license",
        "source",
        "country",
        "change",
    ],
    "masks": [
        "image_id",
        "id",
        "file_name",
        "tar",
        "split",
        "height",
        "width",
        "counts",
        "bbox",
        "area",
        "predicted_iou",
        "stability_score",
        "point_x",
        "point_y",
        "crop_box",
        "stage",
        "model_id",
    ],
}
"""Columns of each table of a release: none of them says where a face was found."""


def test_images_searched_for_faces_leave_once_people_have_looked_for_plates(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", searched=["faces"])
    snapshot = dataset.snapshot().snapshot_id
    with pytest.raises(
        ValueError,
        match=r"^6 of the 6 images to release were not searched for licence plates: let people look for them and give "
        "--plates-reviewed, .*, or, after looking at the images, give --not-deidentified",
    ):
        choose(dataset, snapshot, ReleaseConfig())

    config = ReleaseConfig(plates_reviewed=True)
    manifest = write_release(dataset, choose(dataset, snapshot, config), tmp_path / "out", config)
    assert manifest["deidentified"] is True
    assert manifest["deidentification"] == {
        "unsearched": {"faces": 0, "plates": 6},
        "detectors": {"faces": {"faces-finder-0123": 6}, "plates": {}},
        "regions": {"faces": 6, "plates": 0},
    }
    assert verify_release(tmp_path / "out").faults == ()
    for name in ("README.md", "DATASHEET.md", "croissant.json"):
        text = (tmp_path / "out" / name).read_text()
        assert "6 of 6 images were searched for faces by faces-finder-0123 (6); 6 were blurred." in text, name
        assert "people looked for licence plates in the 6 images that no detector searched for them" in text, name
        assert NOT_DEIDENTIFIED not in text, name


def test_no_box_and_no_score_leaves(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", searched=["faces", "plates"])
    snapshot = dataset.snapshot().snapshot_id
    config = ReleaseConfig()
    manifest = write_release(dataset, choose(dataset, snapshot, config), tmp_path / "out", config)
    assert manifest["deidentified"] is True
    tables = {path.parent.name: pq.read_schema(path).names for path in (tmp_path / "out").rglob("*.parquet")}
    assert tables == COLUMNS
    assert len(list((tmp_path / "out").rglob("*.parquet"))) == len(COLUMNS)
    done = json.loads((tmp_path / "out" / "release.json").read_bytes())["deidentification"]
    assert manifest["deidentification"] == done
    assert done == {
        "unsearched": {"faces": 0, "plates": 0},
        "detectors": {kind: {f"{kind}-finder-0123": 6} for kind in ("faces", "plates")},
        "regions": {"faces": 6, "plates": 6},
    }
    assert b"1 2 3 4 0.75" in dataset.query("SELECT stats FROM shards").column(0)[0].as_py().encode()


def test_images_searched_for_plates_alone_are_refused_and_the_card_tells_both_kinds(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", searched=["plates"], images=slice(2))
    snapshot = dataset.snapshot().snapshot_id
    with pytest.raises(ValueError, match="2 of the 2 images to release were not searched for faces"):
        choose(dataset, snapshot, ReleaseConfig())
    config = ReleaseConfig(not_deidentified=True)
    manifest = write_release(dataset, choose(dataset, snapshot, config), tmp_path / "out", config)
    assert manifest["deidentified"] is False
    card = (tmp_path / "out" / "README.md").read_text()
    assert "No image was searched for faces by a detector. 2 of 2 images were searched for licence plates by" in card


def test_one_unsearched_image_beside_searched_ones_stops_the_release(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", searched=["faces", "plates"], images=slice(3))
    add_images(dataset, stored_images()[3:4])
    snapshot = dataset.snapshot().snapshot_id
    with pytest.raises(ValueError, match=r"^1 of the 4 images to release were not searched for faces"):
        choose(dataset, snapshot, ReleaseConfig(plates_reviewed=True))
    config = ReleaseConfig(not_deidentified=True)
    manifest = write_release(dataset, choose(dataset, snapshot, config), tmp_path / "out", config)
    assert manifest["deidentified"] is False
    assert manifest["deidentification"]["unsearched"] == {"faces": 1, "plates": 1}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "3 of 4 images were searched for faces by faces-finder-0123 (3); 3 were blurred." in card


def test_a_search_of_a_copy_does_not_let_the_unsearched_image_leave(tmp_path: Path) -> None:
    """Two ingests of one folder at once store the same photos, and the one without a search is folded first."""
    dataset = make_dataset(tmp_path / "dataset", images=slice(2))
    dataset.fold()
    add_images(dataset, stored_images()[:2], ["faces", "plates"])
    snapshot = dataset.snapshot().snapshot_id
    assert dataset.query("SELECT count(*) AS n FROM images").to_pylist() == [{"n": 2}]
    with pytest.raises(ValueError, match=r"^2 of the 2 images to release were not searched for faces"):
        choose(dataset, snapshot, ReleaseConfig())


def test_people_looked_only_in_images_that_no_detector_searched() -> None:
    def say(unsearched: int) -> str:
        done = {
            "unsearched": {"faces": 0, "plates": unsearched},
            "detectors": {"faces": {"a-01": 6}, "plates": {"b-02": 6 - unsearched}},
            "regions": {"faces": 0, "plates": 2},
        }
        return deidentification({"deidentification": done, "images": 6, "settings": {"plates_reviewed": True}})

    assert "people looked" not in say(0)
    assert "people looked for licence plates in the 1 image that no detector searched for them." in say(1)
    assert "people looked for licence plates in the 4 images that no detector searched for them." in say(4)


def test_the_documents_say_how_imported_masks_were_made() -> None:
    said = stages({"masks": 31, "counts": {"stages": {"imported": 28, "a_later_stage": 3}}})
    assert said == (
        "Of 31 masks 28 were made with another tool and imported (imported); "
        "3 were made in an unknown way (a_later_stage)."
    )
