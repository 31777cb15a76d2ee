"""A small dataset to release, its snapshot, and a release of it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.release.choose import Choice, choose
from stages.release.config import ReleaseConfig
from stages.release.release import write_release
from storage.dataset import Dataset
from tests.stages.release.photos import make_dataset

CONFIG = ReleaseConfig(not_deidentified=True, images_per_tar=4, holdout_every=2)


@dataclass(frozen=True, kw_only=True)
class Released:
    """A release and where it came from."""

    dataset: Dataset
    snapshot: str
    choice: Choice
    out: Path

    def again(self, out: Path) -> Path:
        """Write the same release to another folder."""
        write_release(self.dataset, self.choice, out, CONFIG)
        return out


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """A release of six images in two tars; tests that change its files copy it first."""
    folder = tmp_path_factory.mktemp("released")
    dataset = make_dataset(folder / "dataset")
    snapshot = dataset.snapshot().snapshot_id
    choice = choose(dataset, snapshot, CONFIG)
    made = Released(dataset=dataset, snapshot=snapshot, choice=choice, out=folder / "release")
    made.again(made.out)
    return made
