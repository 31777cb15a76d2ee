"""A worker's totals as Ray counts them, and at the address that Prometheus reads: the real endpoint of a node."""

import importlib.util
import re
import socket
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from engine.automatic.config import GenerateConfig
from engine.model.weights import load_model
from stages.cluster import meters
from stages.cluster.pool import PoolConfig
from stages.cluster.run import run_plan
from stages.cluster.session import ray_session
from stages.fully_automatic.outcomes import ShardResult
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.records import Reject

CONFIG = GenerateConfig(points_per_side=3, predicted_iou_threshold=-100.0, min_region_px=0, max_area_fraction=None)


@pytest.mark.skipif(importlib.util.find_spec("opencensus") is None, reason="Ray exports metrics with ray[default] only")
def test_a_workers_totals_are_exported_as_ray_metrics(dataset: Dataset, photo_folder: Path, tiny_model: Path) -> None:
    ingest_photos([photo_folder], dataset)
    (plan,) = plan_masks(dataset, load_model(tiny_model).identity, CONFIG, images_per_shard=2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    one = PoolConfig(workers=1, threads=1)
    with ray_session(one, num_cpus=1, num_gpus=0, _metrics_export_port=port):
        result = run_plan(dataset, plan, partial(ShardWorker, tiny_model, CONFIG, dataset.uri), one)
        expected = {"images": result.new_images, "masks": result.masks, "shards": result.new_shards}
        deadline = time.monotonic() + 240
        while (got := totals(port, plan.plan_id)) != expected:
            assert time.monotonic() < deadline, got
            time.sleep(1)


def totals(port: int, plan_id: str) -> dict[str, int]:
    """The plan's sums over processes, by name."""
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    except OSError:
        return {}
    found: dict[str, int] = {}
    for name, labels, value in re.findall(r"^ray_gigamask_(\w+?)(?:_total)?\{(.*)\} (\S+)$", text, re.MULTILINE):
        if f'plan="{plan_id}"' in labels and name in ("images", "masks", "shards"):
            found[name] = found.get(name, 0) + int(float(value))
    return found


class Totals:
    """Stands in for Ray's counters, whose totals only its agent can read."""

    all: ClassVar[dict[tuple[str, ...], float]] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.tag_keys = name, tag_keys

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0
        key = (self.name, *(tags[tag] for tag in self.tag_keys))
        self.all[key] = self.all.get(key, 0) + value


def test_a_workers_meters_count_by_plan_and_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "Counter", Totals)
    worker = meters.RayMeters()
    worker.count_image("p", Reject(source="", source_sha256="", reason="failed", detail="", stage=""))
    parts = {"read": 1.5, "wait": 0.0, "mask": 4.0}
    for shard in "ab":
        worker.count_shard(
            ShardResult(
                plan_id="p", shard=shard, images=0, masks=0, rejects=1, seconds=1, is_new=True, seconds_by_part=parts
            )
        )
    assert Totals.all == {
        ("gigamask_images", "p"): 1,
        ("gigamask_rejects", "p"): 1,
        ("gigamask_shards", "p"): 2,
        ("gigamask_seconds", "p", "read"): 3.0,
        ("gigamask_seconds", "p", "mask"): 8.0,
    }
