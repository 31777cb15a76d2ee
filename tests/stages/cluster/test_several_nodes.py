"""Several Ray nodes on one machine: a pool that grows with its cluster and outlives a node."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ray import cloudpickle
from ray.cluster_utils import Cluster

from engine.automatic.config import GenerateConfig
from engine.model.weights import load_model
from stages.cluster import run as actors
from stages.cluster.pool import PoolConfig
from stages.cluster.progress import PlanProgress
from stages.cluster.run import run_plan
from stages.fully_automatic.outcomes import MaskedImage
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, Reject

CONFIG = GenerateConfig(points_per_side=3, predicted_iou_threshold=-100.0, min_region_px=0, max_area_fraction=None)
MIB = 2**20

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker below reaches its actor by its code


class Held(ShardWorker):
    """Makes the shard that it computes first, whichever of its two calls that is, and others once it is let go."""

    gate: Path

    def mask_image(self, plan: Plan, shard: PlannedShard, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        first = self.gate.with_name("first")
        with suppress(FileExistsError):
            first.symlink_to(shard.name)
        while str(first.readlink()) != shard.name and not self.gate.exists():
            time.sleep(0.05)
        return super().mask_image(plan, shard, image, data)


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head without cores, so that every worker lives on another node."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "object_store_memory": 80 * MIB},
    )
    yield cluster
    cluster.shutdown()


@pytest.mark.timeout(900)  # 20 s alone; two workers that import torch on a busy machine took minutes
def test_a_run_grows_with_its_cluster_and_outlives_a_node(
    nodes: Cluster,
    dataset: Dataset,
    photo_folder: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actors, "GROWTH_EVERY_S", 1.0)
    ingest_photos([photo_folder], dataset)
    (plan,) = plan_masks(dataset, load_model(tiny_model).identity, CONFIG, images_per_shard=2)
    one_core = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * MIB}
    first = nodes.add_node(**one_core)
    told: list[PlanProgress] = []
    added: list[object] = []
    removed: list[object] = []

    def make_worker() -> ShardWorker:
        worker = Held(tiny_model, CONFIG, dataset.uri)
        worker.gate = tmp_path / "gate"
        return worker

    def on_progress(now: PlanProgress) -> None:
        told.append(now)
        if now.shards and not added:
            added.append(nodes.add_node(**one_core))
        if now.workers == 2 and not removed:
            removed.append(first)
            nodes.remove_node(first, allow_graceful=False)  # its processes are killed, with shards in hand
        if now.deaths:  # not sooner: a worker outlives its node for a moment, in which it could end its shards
            (tmp_path / "gate").touch()

    result = run_plan(dataset, plan, make_worker, PoolConfig(address=nodes.address), on_progress)
    assert (result.images, result.new_shards, result.failed, result.rejects) == (8, 4, {}, ())
    assert (told[0].workers, result.workers) == (0, 2)
    assert {len(now.by_worker) for now in told} >= {1, 2}
    assert result.deaths >= 1
    assert len({each.place for now in told for each in now.by_worker}) == 2
    shards = Counter(commit.shard for commit in result.commits)
    assert shards == Counter(shard.name for shard in plan.shards)
    assert dataset.maintenance.verify().faults == ()
