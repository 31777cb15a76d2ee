"""What a command says when a shard cannot be made because of a mistake in this program."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from storage.dataset import Dataset
from tests.paths import ROOT

MISTAKEN = """
import sys
from stages.ingest import ingest
real = ingest.image_of
def broken(read, config):
    if read.source == "photos/0.png":
        raise KeyError("a mistake")
    return real(read, config)
ingest.image_of = broken
from flows.cli.main import main
main()
"""


def test_ingest_ends_with_status_1_and_names_the_shard_after_the_others(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), np.full((32, 32, 3), number, np.uint8))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = ["ingest", "photos", "--dataset", "data", "--set", "ingest.images_per_shard=1"]
    command = [sys.executable, "-c", MISTAKEN, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=280)
    dataset = Dataset.open(tmp_path / "data")
    (status,) = dataset.status()
    assert done.returncode == 1, done
    assert done.stdout == ""
    (missing,) = status.missing
    assert f"error: 1 image shards failed ({status.plan_id}/{missing}: KeyError: 'a mistake')" in done.stderr
    assert "Traceback" in done.stderr
    assert dataset.query("SELECT source, reason FROM rejects").num_rows == 0
    assert dataset.query("SELECT count(*) AS n FROM images").to_pylist() == [{"n": 2}]
