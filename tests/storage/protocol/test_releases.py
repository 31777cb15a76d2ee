"""Releases that were made: recorded once, found by the images that they hold, and checked."""

from pathlib import Path

import numpy as np
import pytest

from storage.dataset import Dataset
from storage.errors import Corrupt
from storage.protocol.releases import Release

FIRST, SECOND = "0123456789abcdef", "fedcba9876543210"


def recorded(dataset: Dataset, release_id: str, image_ids: list[int], out: str = "/out") -> Release:
    ids = np.array(image_ids, np.int64)
    return dataset.releases.record(release_id, ids, snapshot_id="s1", title="Nuts", masks=9, out=out)


def test_a_release_is_recorded_once_and_found_by_its_images(dataset: Dataset) -> None:
    assert dataset.releases.with_images([3]) == []
    first = recorded(dataset, FIRST, [7, 3, 2**62])
    assert recorded(dataset, FIRST, [7, 3, 2**62]) == first
    copy = recorded(dataset, FIRST, [7, 3, 2**62], out="/elsewhere")
    second = recorded(dataset, SECOND, [3])
    assert dataset.releases.read_all() == [first, copy, second]
    assert dataset.releases.image_ids(first).tolist() == [3, 7, 2**62]
    assert dataset.releases.with_images([2**62, 3, 5]) == [(first, 2), (copy, 2), (second, 1)]
    assert dataset.releases.with_images([5]) == []
    assert dataset.maintenance.verify().faults == ()


def test_damage_to_the_ids_of_a_release_is_noticed(dataset: Dataset) -> None:
    release = recorded(dataset, FIRST, [7, 3])
    path = Path(dataset.uri) / f"releases/{FIRST}.images"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:8])
    with pytest.raises(Corrupt, match="not the ids of the 2 images of release 0123456789abcdef"):
        dataset.releases.image_ids(release)
    (fault,) = dataset.maintenance.verify().faults
    assert "releases/" in str(fault)
