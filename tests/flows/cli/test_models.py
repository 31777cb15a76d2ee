"""`gigamask models promote`, `rollback` and `history`, as a person runs them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from storage.dataset import Dataset
from tests.paths import PHOTOS


def gigamask(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_a_promotion_is_decided_recorded_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.create(tmp_path / "dataset")
    frozen = tmp_path / "nuclei"
    frozen.mkdir()
    for path in (PHOTOS / "nuclei").glob("nuc_670ebd9d674b.*"):
        shutil.copy(path, frozen)
    common = ["--dataset", dataset.uri]

    # The seed is what is promoted before anything was
    promoted = gigamask(tmp_path, "models", "promote", "seed", "--data", str(frozen), "--by", "ann", *common, "--json")
    assert promoted.returncode == 0, promoted.stderr
    told = json.loads(promoted.stdout)
    assert (told["generation"], told["decision"], told["checks"]) == (1, "start", [])
    assert "is promoted already, by generation 1" in promoted.stderr

    listed = gigamask(tmp_path, "models", "history", *common)
    assert "the model that ships with gigamask" in listed.stdout
    (entry,) = json.loads(gigamask(tmp_path, "models", "history", *common, "--json").stdout)
    assert entry["promoted"] == told["promoted"]

    refused = gigamask(tmp_path, "models", "rollback", *common)
    assert refused.returncode == 1
    assert "there is no earlier model to roll back to" in refused.stderr
    unknown = gigamask(tmp_path, "models", "promote", "nobody", "--data", str(frozen), *common)
    assert unknown.returncode == 1
    assert f"models of {dataset.uri}: {told['promoted']}" in unknown.stderr
