import pickle
from functools import partial
from pathlib import Path

import pytest

from engine.generate import GenerateConfig
from engine.model.weights import load_model
from stages.fully_automatic import MaskedImage, ShardFailed, ShardWorker, plan_masks
from stages.ingest import ingest_photos
from stages.isolated import run_isolated
from storage.dataset import Dataset
from storage.records import Reject

CONFIG = GenerateConfig(points_per_side=3, predicted_iou_threshold=-100.0, min_region_px=0, max_area_fraction=None)


def test_a_shard_made_in_a_child_process_is_the_same(tmp_path: Path, photo_folder: Path, tiny_model: Path) -> None:
    parts = []
    for name in ("plain", "isolated"):
        dataset = Dataset.create(tmp_path / name)
        ingest_photos([photo_folder], dataset)
        (plan,) = plan_masks(dataset, load_model(tiny_model), CONFIG, images_per_shard=8)
        heard: list[MaskedImage | Reject] = []
        make_worker = partial(ShardWorker, tiny_model, CONFIG, dataset.uri)
        if name == "plain":
            result = make_worker().run(plan.plan_id, "000000", heard.append)
        else:
            result = run_isolated(pickle.dumps(make_worker), dataset, plan.plan_id, "000000", heard.append)
            assert not run_isolated(pickle.dumps(make_worker), dataset, plan.plan_id, "000000").made
        assert (result.images, result.made, len(heard)) == (8, True, 8)
        parts.append([part.sha256 for commit in dataset.commits(plan) for part in commit.tars()])
    assert parts[0] == parts[1]


def test_a_child_that_cannot_start_writes_nothing(dataset: Dataset, photo_folder: Path, tiny_model: Path) -> None:
    ingest_photos([photo_folder], dataset)
    (plan,) = plan_masks(dataset, load_model(tiny_model), CONFIG)
    make_worker = pickle.dumps(partial(ShardWorker, tiny_model, CONFIG, dataset.uri + "-gone"))
    with pytest.raises(ShardFailed, match="a child process died while starting: exit code 1"):
        run_isolated(make_worker, dataset, plan.plan_id, plan.shards[0].name)
    assert dataset.commits(plan) == []
