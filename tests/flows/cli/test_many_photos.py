"""Thousands of photos named one by one, as a shell does with `*.jpg`."""

from pathlib import Path

import pytest

from storage.dataset import Dataset
from tests.conftest import Gigamask


@pytest.mark.slow
def test_seven_thousand_names_are_no_reason_to_refuse(gigamask: Gigamask, tmp_path: Path) -> None:
    """Their text is longer than what a Prefect server takes as parameters."""
    names = [f"{number:05}-{'a photo with a long name ' * 3}.jpg" for number in range(7000)]
    for name in names:
        (tmp_path / name).write_text(name)  # no photo, which is quicker to tell than a photo is to store
    done = gigamask("ingest", *names, "--dataset", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = Dataset.open(tmp_path / "data").query("SELECT count(*) AS rejects FROM rejects").to_pylist()
    assert row["rejects"] == len(names)
