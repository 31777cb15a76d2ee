"""`gigamask train-detector`, `evaluate-detector` and `verify-model`, as a person runs them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.detector.weights import load_detector
from engine.model.weights import load_model
from engine.verifier.verifier import load_verifier
from storage.dataset import Dataset
from tests.paths import PHOTOS
from tests.small_dataset import small_dataset

pytestmark = pytest.mark.slow


def gigamask(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)


def test_a_detector_trained_on_a_snapshot_is_named_by_its_id(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    snapshot = dataset.snapshot().snapshot_id
    here = ["--dataset", dataset.uri]
    quick = ["--windows", "16", "--passes", "6", "--held-out-every", "3", "--work", str(tmp_path / "work")]
    trained = gigamask("train-detector", *here, "--snapshot", snapshot, "--name", "mine", *quick, "--json")
    assert trained.returncode == 0, trained.stderr
    detector_id = json.loads(trained.stdout)["detector_id"]
    assert Dataset.open(dataset.uri).models.ids() == [detector_id]

    folder = tmp_path / "photos"
    shutil.copytree(PHOTOS / "nuclei", folder / "nuclei")
    measured = gigamask(
        "evaluate-detector", "--data", str(folder), *here, "--detector", detector_id, "--beside", "none", "--json"
    )
    assert measured.returncode == 0, measured.stderr
    content = json.loads(measured.stdout)
    assert content["detector"]["name"] == detector_id
    assert set(content["detector"]["domains"]) == {"nuclei"}
    assert "beside" not in content

    as_sam = gigamask("train", *here, "--snapshot", snapshot, "--from", detector_id)
    assert as_sam.returncode == 1
    assert "got the card of a detector, expected that of a SAM" in as_sam.stderr


def test_the_shipped_detector_is_measured_beside_felzenszwalbs_boxes(tmp_path: Path) -> None:
    shutil.copytree(PHOTOS / "nuclei", tmp_path / "photos" / "nuclei")
    shown = gigamask("evaluate-detector", "--data", str(tmp_path / "photos"), "--json")
    assert shown.returncode == 0, shown.stderr
    content = json.loads(shown.stdout)
    detector = load_detector("seed-detector", load_model("seed"))
    assert content["detector"]["name"] == detector.detector_id
    assert content["beside"]["name"] == "felzenszwalb"
    ours, theirs = (content[method]["overall"] for method in ("detector", "beside"))
    assert ours["recall_10"] <= ours["recall_30"] <= ours["recall_100"]
    change = content["difference"]["overall"]["recall_30"]
    assert change == pytest.approx(ours["recall_30"] - theirs["recall_30"], abs=1e-4)
    table = gigamask("evaluate-detector", "--data", str(tmp_path / "photos"), "--max-images", "1", "--beside", "none")
    assert "| all | seed-detector-" in table.stdout


def test_a_verifier_is_trained_on_labelled_photographs_and_its_gate_is_said(tmp_path: Path) -> None:
    dataset, folder = Dataset.create(tmp_path / "dataset"), tmp_path / "photos"
    for domain in ("nuclei", "nuts"):
        shutil.copytree(PHOTOS / domain, folder / domain)
    shown = gigamask(
        "verify-model", "--data", str(folder), "--dataset", dataset.uri, "--work", str(tmp_path / "work"), "--json"
    )
    assert shown.returncode == 0, shown.stderr
    content = json.loads(shown.stdout)
    assert dataset.models.ids() == [content["verifier_id"]]
    assert content["gate"].startswith("open" if content["gate_open"] else "closed")
    assert content["gate"] in shown.stderr.replace("\n", " ")
    assert content["auroc"] > 0.5
    verifier = load_verifier(dataset.models.fetch(content["verifier_id"], tmp_path / "copies"))
    assert verifier.card.gate.is_open == content["gate_open"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train-detector", "--snapshot", "s"], 2, "--snapshot and --dataset belong together"),
        (["train-detector", "--model", "best"], 1, "unknown model 'best'"),
        (["evaluate-detector", "--data", "nowhere"], 1, "nowhere: no such folder"),
        (["evaluate-detector", "--data", str(PHOTOS), "--beside", "x"], 2, "expected felzenszwalb or none"),
        (["evaluate-detector", "--data", str(PHOTOS), "--detector", "x"], 1, "unknown detector 'x'"),
        (["verify-model"], 2, "got neither --data nor --dataset"),
        (["verify-model", "--data", str(PHOTOS), "--image-ids", "some"], 2, "expected all, even or odd"),
    ],
)
def test_wrong_use_is_refused(arguments: list[str], code: int, message: str) -> None:
    refused = gigamask(*arguments)
    assert refused.returncode == code, refused.stderr
    assert message in " ".join(refused.stderr.split())


def test_a_dataset_without_reviews_is_refused(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "dataset")
    refused = gigamask("verify-model", "--dataset", dataset.uri, "--work", str(tmp_path))
    assert refused.returncode == 1
    assert "workspace.sqlite: no such workspace" in refused.stderr
