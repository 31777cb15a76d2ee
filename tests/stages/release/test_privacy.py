import json
from pathlib import Path

import pytest

from stages.release.choose import choose
from stages.release.config import ReleaseConfig
from stages.release.documents.words import NOT_DEIDENTIFIED
from stages.release.release import write_release
from stages.release.verification.verify import verify_release
from tests.stages.release.photos import make_dataset


def test_images_searched_for_faces_leave_once_people_have_looked_for_plates(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", searched=["faces"])
    snapshot = dataset.snapshot().snapshot_id
    with pytest.raises(
        ValueError, match="needs --plates-reviewed: 6 of the 6 images to release were not searched for l"
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
        assert "people looked for licence plates" in text, name
        assert NOT_DEIDENTIFIED not in text, name


def test_no_box_and_no_score_leaves(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", searched=["faces", "plates"])
    snapshot = dataset.snapshot().snapshot_id
    config = ReleaseConfig()
    manifest = write_release(dataset, choose(dataset, snapshot, config), tmp_path / "out", config)
    assert manifest["deidentified"] is True
    texts = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(b"privacy_regions" in text or b"faces-finder-0123 1 2 3 4" in text for text in texts)
    assert b"1 2 3 4 0.75" in dataset.query("SELECT stats FROM shards").column(0)[0].as_py().encode()
    assert json.loads((tmp_path / "out" / "release.json").read_bytes())["deidentification"]["regions"]["plates"] == 6


def test_images_of_which_some_were_not_searched_are_counted(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", searched=["plates"], images=slice(2))
    snapshot = dataset.snapshot().snapshot_id
    with pytest.raises(ValueError, match="2 of the 2 images to release were not searched for faces"):
        choose(dataset, snapshot, ReleaseConfig())
    config = ReleaseConfig(not_deidentified=True)
    manifest = write_release(dataset, choose(dataset, snapshot, config), tmp_path / "out", config)
    assert manifest["deidentified"] is False
    card = (tmp_path / "out" / "README.md").read_text()
    assert "No image was searched for faces by a detector. 2 of 2 images were searched for licence plates by" in card
