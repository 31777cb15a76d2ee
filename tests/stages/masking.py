"""Masking with the tiny network, as the tests of several stages do it."""

import numpy as np
import pytest

from engine.automatic.config import GenerateConfig
from engine.automatic.generate import Generated, generate_masks
from engine.model.weights import Model
from stages.fully_automatic import worker as worker_module
from stages.fully_automatic.outcomes import MaskedImage, ShardResult
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker
from storage.records import Reject

CONFIG = GenerateConfig(points_per_side=3, predicted_iou_threshold=-100.0, min_region_px=0, max_area_fraction=None)


def mask_all(worker: ShardWorker) -> list[ShardResult]:
    plans = plan_masks(worker.dataset, worker.model.identity, worker.config)
    return [worker.mask_shard(plan.plan_id, shard.name) for plan in plans for shard in plan.shards]


def mask_one_shard(worker: ShardWorker) -> list[MaskedImage | Reject]:
    heard: list[MaskedImage | Reject] = []
    plan = plan_masks(worker.dataset, worker.model.identity, worker.config, images_per_shard=5)[0]
    worker.mask_shard(plan.plan_id, plan.shards[0].name, heard.append)
    assert len(heard) == 5
    return heard


def poison(monkeypatch: pytest.MonkeyPatch, *, call: int) -> None:
    """Lets the generator fail on the photograph of one call."""
    shown: list[np.ndarray] = []

    def poisoned(model: Model, image_HW3: np.ndarray, config: GenerateConfig) -> Generated:
        if config.points_per_side == CONFIG.points_per_side:  # else it is the worker that checks itself
            shown.append(image_HW3)
            if len(shown) == call:
                raise RuntimeError("the kernel fell over")
        return generate_masks(model, image_HW3, config)

    monkeypatch.setattr(worker_module, "generate_masks", poisoned)
