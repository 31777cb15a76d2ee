"""`gigamask import` and `gigamask export`, as a user calls them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from storage.dataset import Dataset
from tests.stages.formats.labelled import photos_of_nuclei, write_coco


def test_labels_are_imported_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    file = write_coco(tmp_path, extra=[{"image_id": 9, "segmentation": [[0, 0, 9, 0, 9, 9]]}])
    command = ["import", str(file), "--format", "coco", "--dataset", str(tmp_path / "data")]
    command += ["--set", "ingest.country=DE"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    masks = sum(image.num_masks for image in photos_of_nuclei()) + 3
    assert (result["masks"], result["new_masks"], result["categories"]) == (masks, masks, {"nucleus": masks})
    assert result["masks_left_out"] == {"no_photo": 1}

    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert "new_masks" in again.stdout
    assert f"left out: annotation {100 + masks} (no_photo): its image_id 9 is none of the file's" in again.stderr
    assert "masks have no category in a dataset" in again.stderr

    data = Dataset.open(tmp_path / "data")
    assert data.query("SELECT DISTINCT country, license FROM images").to_pylist() == [
        {"country": "DE", "license": "CC0-1.0"}
    ]
    snapshot = data.snapshot().snapshot_id
    export = ["export", str(tmp_path / "out"), "--dataset", str(tmp_path / "data"), "--snapshot", snapshot]
    exported = CliRunner().invoke(app, [*export, "--format", "coco", "--json"])
    assert exported.exit_code == 0, exported.output
    assert json.loads(exported.stdout)["masks"] == masks
    assert len(json.loads((tmp_path / "out" / "instances.json").read_text())["annotations"]) == masks


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["import", "none.json", "--format", "coco"], "none.json: no such file or folder"),
        (["import", "a.json", "--format", "coco", "--photos", "none"], "--photos none: no such folder"),
        (
            ["import", "a.json", "--format", "coco", "--set", "ingest.shortest_side_px=100"],
            "an import keeps the size of photos",
        ),
        (["export", "s3://b/out", "--format", "coco", "--snapshot", "s1"], "written to a folder of this machine"),
        (["export", "out", "--format", "coco", "--snapshot", "s1"], "no dataset"),
        (["import", "a.json", "--format", "coco"], "a.json: expected COCO's instances: a list 'images'"),
    ],
)
def test_wrong_use_is_refused_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert reason in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
