"""examples/rounds.sh as its first lines say: two rounds by commands, answered by simulated annotators over HTTP."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from storage.dataset import Dataset
from storage.workspace.workspace import Workspace
from tests.paths import PHOTOS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the script filled, and what it printed."""
    home = tmp_path_factory.mktemp("rounds")
    for domain in ("nuclei", "nuts"):
        shutil.copytree(PHOTOS / domain, home / "photos" / domain)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["sh", str(ROOT / "examples" / "rounds.sh"), "photos", "out"]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "out", done.stdout


def test_the_sql_at_the_end_tells_seconds_masks_per_image_and_agreement(ran: tuple[Path, str]) -> None:
    _, printed = ran
    seconds = dict(
        re.findall(r"^(?:assisted_manual|semi_automatic) +(\w+) +True +\d+ +(\S+) *$", printed, re.MULTILINE)
    )
    assert {"made", "prefill_rejected"} <= seconds.keys()
    assert all(float(each) > 0 for each in seconds.values())
    answers = re.findall(
        r"^(assisted_manual|semi_automatic) +(True|False) +(\d+) +(\S+) +(\S+) *$", printed, re.MULTILINE
    )
    assert [(stage, prefilled, int(count)) for stage, prefilled, count, _, _ in answers] == [
        ("assisted_manual", "False", 6),
        ("semi_automatic", "False", 1),
        ("semi_automatic", "True", 1),
    ]
    assert all(0 < float(masks) <= 4 for *_, masks in answers)
    (images, agreement, iou), *others = re.findall(
        r"^assisted_manual +(\d) +(\d\S*) +(0\.\d+) *$", printed, re.MULTILINE
    )
    assert others == []
    assert int(images) == 3
    assert 0.5 <= float(agreement) <= 1
    assert 0.5 <= float(iou) <= 1


def test_masks_say_who_made_them_and_that_their_seconds_are_simulated(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    dataset = Dataset.open(folder / "dataset")
    masks = dataset.query("SELECT annotator_id, stage FROM masks").to_pylist()
    views = dataset.query("SELECT DISTINCT annotator_id FROM annotations").to_pylist()
    assert {row["annotator_id"] for row in views} == {"simulated-1", "simulated-2"}
    made_by = {row["annotator_id"] for row in masks}  # of each image the first view is stored, and one may be faster
    assert made_by
    assert made_by <= {"simulated-1", "simulated-2"}
    assert {row["stage"] for row in masks} == {"assisted_manual", "semi_automatic"}
    assert dataset.query("SELECT count(*) AS n FROM annotations WHERE NOT simulated").to_pylist() == [{"n": 0}]
    assert dataset.maintenance.verify().faults == ()


def test_the_report_sets_prefilled_and_empty_images_side_by_side(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    report = json.loads((folder / "semi_automatic.json").read_text())
    assert report["total"]["simulated"] is True
    assert report["prefilled"]["answers"] == report["empty"]["answers"] == 1
    assert report["empty"]["prefill_accepted"] == report["empty"]["prefill_rejected"] == 0
    assert min(report[kind]["seconds_per_image"] for kind in ("prefilled", "empty")) > 0
    for stage in ("assisted_manual", "semi_automatic"):
        assert "Seconds on this page are simulated" in (folder / f"{stage}.html").read_text()


def test_the_server_ends_with_the_script_and_its_accounts_are_closed(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen((folder / "url").read_text().strip(), timeout=5)
    with Workspace.open(folder / "dataset" / "workspace.sqlite") as workspace:
        assert {user.name: user.disabled for user in workspace.users.read_all()} == {
            "lead": False,
            "simulated-1": True,
            "simulated-2": True,
        }
