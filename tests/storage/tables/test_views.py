"""Views tell what was done to the copy of an image that the table `images` has."""

from types import SimpleNamespace
from typing import Any

import pytest

from storage.dataset import Dataset
from storage.protocol.plans import PlannedShard
from tests.image_records import photo_key

VIEWS = ("privacy_searches", "privacy_regions")


def store(dataset: Dataset, samples: SimpleNamespace, place: str, settings: dict[str, Any], *, searched: bool) -> None:
    """Commits an image shard with image 0."""
    image, data = samples.make_image(0)
    stats: dict[str, object] = {}
    if searched:
        stats["privacy_searches"] = f"{image.image_id} faces finder-01"
        stats["privacy_regions"] = f"{image.image_id} faces finder-01 1 2 3 4 0.7500"
    plan = dataset.new_plan("images", [PlannedShard.from_inputs(photo_key(place))], settings)
    dataset.write_images(plan, plan.shards[0], [(image, data)], stats=stats)
    dataset.fold()


def count_rows(dataset: Dataset) -> list[int]:
    return [dataset.query(f"SELECT * FROM {view}").num_rows for view in VIEWS]


@pytest.mark.parametrize(
    ("other_place", "other_settings"), [("here", {"faces": "finder"}), ("there", {})], ids=["settings", "shard"]
)
def test_a_search_of_a_copy_that_stays_out_of_the_tables_is_no_search_of_the_image(
    dataset: Dataset, samples: SimpleNamespace, other_place: str, other_settings: dict[str, Any]
) -> None:
    store(dataset, samples, "here", {}, searched=False)
    store(dataset, samples, other_place, other_settings, searched=True)
    assert dataset.query("SELECT * FROM shards").num_rows == 2
    assert dataset.query("SELECT * FROM images").num_rows == 1
    assert count_rows(dataset) == [0, 0]


def test_a_search_of_the_image_counts_beside_a_copy_that_was_not_searched(
    dataset: Dataset, samples: SimpleNamespace
) -> None:
    store(dataset, samples, "here", {}, searched=True)
    store(dataset, samples, "there", {}, searched=False)
    assert count_rows(dataset) == [1, 1]
    assert dataset.query("SELECT * FROM privacy_regions").to_pylist() == [
        {
            "image_id": samples.make_image(0)[0].image_id,
            "kind": "faces",
            "detector": "finder-01",
            "x0": 1,
            "y0": 2,
            "x1": 3,
            "y1": 4,
            "score": 0.75,
        }
    ]


def test_where_a_copy_becomes_the_owner_its_search_counts(dataset: Dataset, samples: SimpleNamespace) -> None:
    store(dataset, samples, "here", {}, searched=False)
    store(dataset, samples, "there", {}, searched=True)
    (plan,) = (plan for plan in dataset.plans() if plan.shards[0].inputs == (photo_key("here"),))
    redo = dataset.maintenance.plan_redo(plan, [plan.shards[0].name])
    dataset.write_images(redo, redo.shards[0], [samples.make_image(1)])
    dataset.fold()
    assert dataset.query("SELECT * FROM images").num_rows == 2
    assert count_rows(dataset) == [1, 1]
