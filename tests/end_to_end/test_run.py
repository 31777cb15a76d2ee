"""`gigamask run` on real photographs: real Ray, real Prefect, the seed model, and everything a person then looks at."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from flows.fully_automatic import report as write_report
from flows.report.state import is_current
from flows.schedules.prefect_server import serving_prefect
from storage.dataset import Dataset
from tests.paths import PHOTOS, ROOT

SETTINGS = ["--set", "generate.points_per_side=8", "--set", "ingest.images_per_shard=4"]


Gigamask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, bad files among them, and the dataset one run made of it."""
    home = tmp_path_factory.mktemp("home")
    photos = home / "photos"
    shutil.copytree(PHOTOS, photos)
    first = sorted(photos.rglob("*.jpg"))[0]
    shutil.copy(first, photos / "copy.jpg")
    (photos / "cut.jpg").write_bytes(first.read_bytes()[:5000])
    (photos / "empty.jpg").touch()
    (photos / "<script>alert(1)</script>.jpg".replace("/", "_")).write_text("a text file")
    return home


@pytest.fixture(scope="module")
def run(home: Path, gigamask: Gigamask) -> dict[str, object]:
    done = gigamask("run", "photos", "--dataset", "data", "--json", *SETTINGS, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return dict(json.loads(done.stdout), stderr=done.stderr)


def query(gigamask: Gigamask, home: Path, sql: str) -> list[dict[str, object]]:
    done = gigamask("query", "--dataset", "data", "--format", "json", sql, cwd=home)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_every_photograph_is_an_image_or_a_reject(gigamask: Gigamask, home: Path, run: dict[str, object]) -> None:
    photographs = [path for path in PHOTOS.rglob("*") if path.suffix in (".jpg", ".png")]
    assert run["images"] == len(photographs)
    rows = query(gigamask, home, "SELECT source, reason FROM rejects")
    rejects = {Path(str(row["source"])).name: row["reason"] for row in rows}
    assert run["rejects"] == len(rejects) == 4
    assert rejects["empty.jpg"] == "empty"
    assert rejects["cut.jpg"] == "truncated"
    assert "duplicate" in rejects.values()


def test_the_tables_count_what_the_command_printed(gigamask: Gigamask, home: Path, run: dict[str, object]) -> None:
    counted = query(gigamask, home, "SELECT count(*) AS masks, count(DISTINCT image_id) AS images FROM masks")[0]
    assert counted["masks"] == run["masks"]
    assert int(str(run["masks"])) > 0
    assert query(gigamask, home, "SELECT count(*) AS n FROM images")[0]["n"] == run["images"]


def test_the_masks_are_sa_1b_annotations_that_pycocotools_reads(home: Path, run: dict[str, object]) -> None:
    import tarfile

    seen = 0
    for path in (home / "data" / "data").glob("masks-*/*/*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                record = json.load(tar.extractfile(member))
                for annotation in record["annotations"]:
                    mask = coco.decode(annotation["segmentation"])
                    assert mask.shape == (record["image"]["height"], record["image"]["width"])
                    assert int(mask.sum()) == annotation["area"]
                    assert np.allclose(coco.toBbox(annotation["segmentation"]), annotation["bbox"])
                    seen += 1
    assert seen == run["masks"]


def test_a_named_prefect_server_records_the_flow_and_its_tasks_and_none_of_the_photos(
    gigamask: Gigamask, home: Path, run: dict[str, object]
) -> None:
    with serving_prefect(home / "prefect") as url:
        done = gigamask("run", "photos", "--dataset", "data", "--prefect-url", url, "--json", *SETTINGS, cwd=home)
        assert done.returncode == 0, done.stderr
        flows, tasks = (ask(f"{url}/{kind}_runs/filter") for kind in ("flow", "task"))
    assert [run["state_name"] for run in flows] == ["Completed"]
    assert list(flows[0]["parameters"]) == ["arguments"]
    assert sorted((task["name"].rsplit("-", 1)[0], task["state_name"]) for task in tasks) == [
        (name, "Completed") for name in ("fold", "ingest", "masks", "report")
    ]


def ask(url: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return list(json.load(answer))


def test_the_report_is_there_and_escapes_what_files_are_called(home: Path, run: dict[str, object]) -> None:
    page = (home / str(run["report"])).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "copy.jpg" in page


def test_running_again_makes_nothing_new_and_answers_the_same(
    gigamask: Gigamask, home: Path, run: dict[str, object]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (home / "data" / "data").rglob("*") if path.is_file()}
    done = gigamask("run", "photos", "--dataset", "data", "--json", *SETTINGS, cwd=home)
    again = json.loads(done.stdout)
    assert {path: path.stat().st_mtime_ns for path in (home / "data" / "data").rglob("*") if path.is_file()} == before
    assert all(again[name] == run[name] for name in ("images", "rejects", "masks", "shards"))


HEAVY = """
import sys
from flows.cli.main import app
app(sys.argv[1:], standalone_mode=False)
print([name for name in ("torch", "ray", "prefect", "matplotlib") if name in sys.modules])
"""


def test_with_nothing_to_do_nothing_heavy_is_imported_and_the_report_is_left(
    home: Path, run: dict[str, object]
) -> None:
    report = home / str(run["report"])
    written = report.stat().st_mtime_ns
    arguments = ["run", "photos", "--dataset", "data", *SETTINGS]
    command = [sys.executable, "-c", HEAVY, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "shows the newest state" in done.stderr
    assert report.stat().st_mtime_ns == written


def test_a_report_that_is_missing_or_older_than_the_dataset_is_written(home: Path, run: dict[str, object]) -> None:
    copy = home / "copied"
    shutil.copytree(home / "data", copy)
    dataset = Dataset.open(copy)
    assert is_current(Path(write_report(str(copy))), dataset)  # the copy's own name is on its page
    mask = dataset.query("SELECT image_id, mask_id FROM masks LIMIT 1").to_pylist()[0]
    dataset.withdraw([(mask["image_id"], mask["mask_id"])], "a test")
    dataset.fold()
    assert not is_current(copy / "report.html", dataset)
    assert is_current(Path(write_report(str(copy))), dataset)
    (copy / "report.html").unlink()
    assert is_current(Path(write_report(str(copy))), dataset)


def test_the_dataset_verifies(gigamask: Gigamask, home: Path, run: dict[str, object]) -> None:
    done = gigamask("verify", "--dataset", "data", "--json", cwd=home)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["faults"] == []
