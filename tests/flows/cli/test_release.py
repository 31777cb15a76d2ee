"""`gigamask release`, as a user calls it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from storage.dataset import Dataset
from tests.conftest import Gigamask
from tests.stages.release.outside_reader import check_checksums, read_folder
from tests.stages.release.photos import make_dataset


def test_a_release_is_written_checked_and_found_damaged(tmp_path: Path, gigamask: Gigamask) -> None:
    snapshot = make_dataset(tmp_path / "data").snapshot().snapshot_id
    options = ["--dataset", "data", "--snapshot", snapshot, "--json"]
    refused = gigamask("release", "out", *options, cwd=tmp_path)
    assert (refused.returncode, (tmp_path / "out").exists()) == (1, False)
    assert "error: 6 of the 6 images to release were not searched for faces: ingest" in refused.stderr
    options.append("--not-deidentified")
    done = gigamask("release", "out", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["images"], result["masks"], result["tars"], result["deidentified"]) == (6, 24, 1, False)
    assert result["left_out"] == ["1 images: no licence", "4 masks: no licence"]
    assert "faces and licence plates in these images were not blurred" in done.stderr
    assert len(list(read_folder(tmp_path / "out"))) == 6
    assert check_checksums(tmp_path / "out")

    # An image to be taken down is in it, unless it had no licence
    query = "SELECT key, trim(license) = '' AS unlicensed FROM images ORDER BY unlicensed, key"
    images = Dataset.open(tmp_path / "data").query(query).to_pylist()
    erase = ["erase", "--dataset", str(tmp_path / "data"), "--reason", "a wish", "--dry-run", "--json", "--image"]
    found = [json.loads(CliRunner().invoke(app, [*erase, images[at]["key"]]).stdout)["releases"] for at in (0, -1)]
    assert found[1] == []
    (held,) = found[0]
    assert held.startswith(f"{result['release_id']} (Images and masks) of ")
    assert held.endswith(f"written to {tmp_path / 'out'}, holds 1 of them")

    checked = CliRunner().invoke(app, ["release", "--verify", str(tmp_path / "out")])
    assert checked.exit_code == 0, checked.output
    (tmp_path / "out" / "holdout.txt").write_text("sa_9.jpg\n" * 9)  # more than the six images
    checked = CliRunner().invoke(app, ["release", "--verify", str(tmp_path / "out"), "--json"])
    assert checked.exit_code == 1
    faults = json.loads(checked.stdout)["faults"]
    assert "wrong size" in {fault["kind"] for fault in faults}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["out", "--not-deidentified"], "--snapshot is missing"),
        (["s3://bucket/out", "--snapshot", "s1", "--not-deidentified"], "written to a folder of this machine"),
        (["out", "--snapshot", "s1", "--not-deidentified", "--dataset", "none"], "no dataset"),
        (["--verify", "none"], "none: no such folder"),
    ],
)
def test_wrong_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["release", *arguments])
    assert result.exit_code == 1
    assert reason in str(result.exception)
    assert not list(tmp_path.iterdir())
