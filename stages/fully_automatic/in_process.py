"""Fully automatic stage in this process, one shard after the other, without Ray and without a server."""

import logging
from pathlib import Path

from engine.automatic.config import PRESETS, GenerateConfig
from stages.fully_automatic.outcomes import ShardResult, ShardsFailed
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker
from storage.dataset import Dataset
from storage.errors import StoreError

logger = logging.getLogger(__name__)


def mask_images(
    dataset: Dataset,
    model: str | Path = "seed",
    config: GenerateConfig = PRESETS["grid"],
    *,
    device: str | None = None,
) -> list[ShardResult]:
    """Mask every image of the dataset and fold the tables; a second call continues where the first call stopped.

    The command `gigamask masks` makes the same plans and shards, in several processes or on several machines.

    Args:
        dataset: where images are read from and masks are written to.
        model: a model's name ("seed", "vit_b", ...) or the path of a weights file.
        config: settings of the mask generator.
        device: "cpu" or "cuda"; None: the GPU, where there is one.

    Returns:
        Shards made by this call.

    Raises:
        ValueError: There is no such model.
        ShardsFailed: Some shards could not be made; all others are made and folded.
        StoreError: The dataset cannot be read or written.
    """
    worker = ShardWorker(model, config, dataset.uri, device=device)
    results, failed = [], {}
    for plan in plan_masks(dataset, worker.model.identity, worker.config):
        for shard in dataset.missing(plan):
            try:
                results.append(worker.mask_shard(plan.plan_id, shard.name))
            except StoreError:
                raise
            except Exception as error:  # the other shards go on
                name = f"{plan.plan_id}/{shard.name}"
                logger.exception("masks: shard %s failed", name)
                failed[name] = f"{type(error).__name__}: {error}"
    dataset.fold()
    if failed:
        raise ShardsFailed(failed)
    return results
