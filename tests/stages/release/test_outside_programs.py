"""A release read by mlcroissant and Hugging Face `datasets`, in an environment of their own: `make release-readers`."""

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stages.release.choose import choose
from stages.release.release import write_release
from tests.paths import ROOT
from tests.stages.release.conftest import CONFIG, Released
from tests.stages.release.photos import HEIGHT, WIDTH

PYTHON = os.environ.get("GIGAMASK_READERS_PYTHON")


@pytest.mark.skipif(
    PYTHON is None, reason="mlcroissant and datasets have an environment of their own: make release-readers"
)
def test_mlcroissant_warns_of_nothing_and_both_read_every_image_and_mask(released: Released, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, creator="Ada", url="https://example.org/birds")
    out = tmp_path / "out"
    write_release(released.dataset, choose(released.dataset, released.snapshot, config), out, config)
    environment = os.environ | {"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [str(PYTHON), str(ROOT / "tests/stages/release/outside_programs.py"), str(out)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["issues"] == []
    assert found["records"] == {"images": 6, "masks": 24, "pictures": 6, "splits": 2}
    assert found["picture_sizes"] == found["hub_picture_sizes"] == [[WIDTH, HEIGHT]]
    assert found["hub_names"] == [f"sa_{number}" for number in range(1, 7)]
    assert found["hub_masks"] == 24
    assert found["counts"] == found["hub_counts"] == sorted(pq.read_table(out / "masks")["counts"].to_pylist())
