import pickle
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from ray import cloudpickle

from engine.automatic.config import GenerateConfig
from engine.model.weights import load_model
from stages.fully_automatic import isolated
from stages.fully_automatic.isolated import mask_shard_isolated
from stages.fully_automatic.outcomes import MaskedImage
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardFailed, ShardWorker
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, Reject

pytestmark = pytest.mark.slow

CONFIG = GenerateConfig(points_per_side=3, predicted_iou_threshold=-100.0, min_region_px=0, max_area_fraction=None)

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers below reach the child by their code


class Hanging(ShardWorker):
    """Never comes back from one photograph."""

    def mask_image(self, plan: Plan, shard: PlannedShard, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        while image.source == "photos/3.png":
            time.sleep(1)
        return super().mask_image(plan, shard, image, data)


class NeverReady(ShardWorker):
    """Never gets as far as a photograph."""

    def check(self) -> None:
        time.sleep(1000)


class Mistaken(ShardWorker):
    """Has a mistake in its code."""

    def mask_image(self, plan: Plan, shard: PlannedShard, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        raise KeyError("a mistake")


def test_a_shard_made_in_a_child_process_is_the_same(tmp_path: Path, photo_folder: Path, tiny_model: Path) -> None:
    parts = []
    for name in ("plain", "isolated"):
        dataset = Dataset.create(tmp_path / name)
        ingest_photos([photo_folder], dataset)
        (plan,) = plan_masks(dataset, load_model(tiny_model).identity, CONFIG, images_per_shard=8)
        heard: list[MaskedImage | Reject] = []
        make_worker = partial(ShardWorker, tiny_model, CONFIG, dataset.uri)
        if name == "plain":
            result = make_worker().mask_shard(plan.plan_id, plan.shards[0].name, heard.append)
        else:
            result = mask_shard_isolated(
                pickle.dumps(make_worker), dataset, plan.plan_id, plan.shards[0].name, heard.append
            )
            assert not mask_shard_isolated(pickle.dumps(make_worker), dataset, plan.plan_id, plan.shards[0].name).is_new
        assert (result.images, result.is_new, len(heard)) == (8, True, 8)
        parts.append([part.sha256 for commit in dataset.commits(plan) for part in commit.tars()])
    assert parts[0] == parts[1]


def test_a_child_that_cannot_start_writes_nothing(dataset: Dataset, photo_folder: Path, tiny_model: Path) -> None:
    ingest_photos([photo_folder], dataset)
    (plan,) = plan_masks(dataset, load_model(tiny_model).identity, CONFIG)
    make_worker = pickle.dumps(partial(ShardWorker, tiny_model, CONFIG, dataset.uri + "-gone"))
    with pytest.raises(ShardFailed, match="a child process died while starting: exit code 1"):
        mask_shard_isolated(make_worker, dataset, plan.plan_id, plan.shards[0].name)
    assert dataset.commits(plan) == []


def test_a_photograph_that_hangs_is_a_reject_and_the_others_go_on(
    dataset: Dataset, photo_folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "IMAGE_LIMIT_S", 5.0)
    ingest_photos([photo_folder], dataset)
    (plan,) = plan_masks(dataset, load_model(tiny_model).identity, CONFIG, images_per_shard=8)
    make_worker = cloudpickle.dumps(partial(Hanging, tiny_model, CONFIG, dataset.uri))
    result = mask_shard_isolated(make_worker, dataset, plan.plan_id, plan.shards[0].name)
    assert (result.images, result.rejects) == (7, 1)
    ((reject,),) = [commit.rejects for commit in dataset.commits(plan)]
    assert (reject.source, reject.reason) == ("photos/3.png", "timed_out")
    assert reject.detail == "not masked after 5 s; its process was killed"


def test_a_child_that_hangs_before_its_first_photograph_blames_none(
    dataset: Dataset, photo_folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "START_LIMIT_S", 5.0)
    ingest_photos([photo_folder], dataset)
    (plan,) = plan_masks(dataset, load_model(tiny_model).identity, CONFIG)
    make_worker = cloudpickle.dumps(partial(NeverReady, tiny_model, CONFIG, dataset.uri))
    with pytest.raises(ShardFailed, match="a child process was not ready after 5 s"):
        mask_shard_isolated(make_worker, dataset, plan.plan_id, plan.shards[0].name)
    assert dataset.commits(plan) == []


def test_a_mistake_of_ours_in_a_child_fails_the_shard_with_its_traceback(
    dataset: Dataset, photo_folder: Path, tiny_model: Path
) -> None:
    ingest_photos([photo_folder], dataset)
    (plan,) = plan_masks(dataset, load_model(tiny_model).identity, CONFIG, images_per_shard=8)
    make_worker = cloudpickle.dumps(partial(Mistaken, tiny_model, CONFIG, dataset.uri))
    with pytest.raises(KeyError, match="a mistake") as caught:
        mask_shard_isolated(make_worker, dataset, plan.plan_id, plan.shards[0].name)
    assert "in mask_image" in "".join(caught.value.__notes__)
    assert dataset.commits(plan) == []
