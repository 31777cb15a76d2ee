"""A dataset of ten small images, and a workspace beside it with two annotators."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.dataset import Dataset
from storage.workspace.workspace import Workspace
from tests.small_dataset import small_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    opened = small_dataset(tmp_path / "dataset")
    opened.fold()
    return opened


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace.sqlite", max_held=100) as opened:
        for name in ("ann", "bob", "cyd"):
            opened.users.add(name, "annotator")
        yield opened
