"""Fully automatic stage in this process, one shard after the other, without Ray and without a server."""

from pathlib import Path

from engine.automatic.config import PRESETS, GenerateConfig
from stages.fully_automatic.outcomes import ShardResult
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker
from storage.dataset import Dataset


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
        StoreError: The dataset cannot be read or written.
    """
    worker = ShardWorker(model, config, dataset.uri, device=device)
    results = [
        worker.mask_shard(plan.plan_id, shard.name)
        for plan in plan_masks(dataset, worker.model, worker.config)
        for shard in dataset.missing(plan)
    ]
    dataset.fold()
    return results
