"""The fully automatic stage (section 4 of "Segment Anything"): image shards in, mask shards out. Plain Python, no Ray.

plan_masks:  image shards -> a plan of mask shards, each a run of images of one image shard
ShardWorker: read images -> decode -> generate masks -> mask shard -> commit

A photograph that cannot be masked is a reject of its shard, and the shard goes on. Out of memory halves the batch of
points and tries again. A shard that is committed already is not made again, whoever asks.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.automatic.config import GenerateConfig
from engine.automatic.generate import Generated, generate_masks
from engine.automatic.overlap import overlapped
from engine.device import best_device
from engine.images import decode
from engine.model.weights import Model, load_model
from stages.fully_automatic.outcomes import (
    MaskedImage,
    ShardResult,
    committed,
    read_photographs,
    reject,
    result_of,
    write_outcomes,
)
from stages.fully_automatic.plan import BATCHES, STAGE, plan_settings
from storage.dataset import Dataset
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, Reject, mask_id_of

GPU_BATCHES = {"points_per_batch": 256, "crops_per_batch": 21}
"""What a GPU gets where the settings leave the processor's sizes. Not tuned: this has not run on a GPU yet."""


class ShardFailed(RuntimeError):
    """The fault is the set-up's, not a photograph's: the worker cannot mask a picture it knows; nothing is written."""


class ShardWorker:
    """Holds the model and turns planned shards into committed ones.

    `run` may be called from two threads: one computes while the other reads or writes.
    """

    def __init__(
        self,
        model: str | Path,
        config: GenerateConfig,
        dataset_uri: str,
        *,
        models_folder: str | Path | None = None,
        device: str | None = None,
        photographs_at_once: int | None = None,
    ) -> None:
        """`device` None: the first CUDA device this process sees, else the CPU.

        `photographs_at_once` None: 3 on a GPU, so that decoding and clean-up of one run beside the network on another;
        1 on a CPU, whose cores the network has.
        """
        self.device = device or best_device()
        on_gpu = self.device.startswith("cuda")
        self.config = config_for_gpu(config) if on_gpu else config
        self.photographs_at_once = photographs_at_once or (3 if on_gpu else 1)
        self.dataset = Dataset.open(dataset_uri)
        self.model = load_model(model, folder=models_folder, device=self.device)
        self._computing = threading.Lock()

    def run(
        self, plan_id: str, shard_name: str, on_image: Callable[[MaskedImage | Reject], None] | None = None
    ) -> ShardResult:
        """Makes one shard. `on_image` hears of each photograph.

        Raises ValueError where the plan is another model's or config's, ShardFailed, Corrupt, StoreError.
        """
        clock = _Clock()
        plan = self.plan(plan_id)
        shard = plan.shard(shard_name)
        done = committed(self.dataset, plan, shard)
        if done:
            return result_of(done, made=False)
        photographs = read_photographs(self.dataset, plan, shard)
        clock.end("read")
        with self._computing:
            clock.end("wait")
            outcomes = []
            for outcome in self._masked(plan, shard, photographs):
                outcomes.append(outcome)
                if on_image:
                    on_image(outcome)
        clock.end("mask")
        seconds = clock.seconds["read"] + clock.seconds["mask"]  # waiting for the other call is no work
        result = write_outcomes(self.dataset, plan, shard, outcomes, seconds=seconds)
        clock.end("write")
        return replace(result, seconds_by_part=clock.seconds)

    def _masked(
        self, plan: Plan, shard: PlannedShard, photographs: Iterable[tuple[ImageRecord, bytes]]
    ) -> Iterator[MaskedImage | Reject]:
        """What becomes of each photograph, in their order; several are under way at a time."""
        if self.photographs_at_once == 1:
            return (self.mask(plan, shard, image, data) for image, data in photographs)
        return overlapped(
            lambda photograph: self.mask(plan, shard, *photograph),
            photographs,
            threads=self.photographs_at_once,
            device=self.device,
        )

    def plan(self, plan_id: str) -> Plan:
        """The plan, if it is one for this model and config. Raises ValueError."""
        plan = self.dataset.plan(plan_id)
        mine = plan_settings(self.model, self.config)
        if plan.settings != mine:
            raise ValueError(f"plan {plan_id} is for {dict(plan.settings)}, this worker was made for {mine}")
        return plan

    def mask(self, plan: Plan, shard: PlannedShard, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        """All masks of one photograph, or why there are none to be had. Raises ShardFailed where none could be."""
        began = time.perf_counter()
        try:
            generated = self.generate(image, data)
        except Exception as error:  # whatever one photograph does to decoder and network, the others go on
            self.check()
            return _reject_of(image, error)
        provenance = Provenance(
            stage=STAGE, model_id=self.model.model_id, plan_id=plan.plan_id, config_hash=plan.settings_hash
        )
        return MaskedImage(
            image=image,
            masks=_records(generated, plan, shard, image, provenance),
            diagnostics=generated.diagnostics,
            seconds=time.perf_counter() - began,
        )

    def check(self) -> None:
        """Masks a picture of squares, before a photograph is blamed. Raises ShardFailed."""
        squares = np.kron(np.indices((4, 4)).sum(0) % 2 * 255, np.ones((16, 16))).astype(np.uint8)
        simple = replace(self.config, points_per_side=1, crop_layers=0, points_per_batch=1)
        try:
            generate_masks(self.model, np.dstack([squares] * 3), simple)
        except Exception as error:
            raise ShardFailed(f"the worker masks nothing: {type(error).__name__}: {error}") from error

    def generate(self, image: ImageRecord, data: bytes) -> Generated:
        """The generator on one stored photograph; where memory runs out, again with batches of half the size."""
        image_HW3 = decode(data)
        if image_HW3.shape[:2] != (image.height, image.width):
            raise ValueError(f"its pixels are {image_HW3.shape[:2]}, its record says {(image.height, image.width)}")
        config = self.config
        while True:
            try:
                return generate_masks(self.model, image_HW3, config)
            except Exception as error:
                if not is_out_of_memory(error) or config.points_per_batch == config.crops_per_batch == 1:
                    raise
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            config = replace(config, **{name: max(1, getattr(config, name) // 2) for name in BATCHES})


class _Clock:
    """Seconds of one part of the work after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def end(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part], self._began = now - self._began, now


def _records(
    generated: Generated, plan: Plan, shard: PlannedShard, image: ImageRecord, provenance: Provenance
) -> list[MaskRecord]:
    return [
        MaskRecord(
            mask_id=mask_id_of(plan.home, shard.name, shard.generation, image.image_id, ordinal),
            image_id=image.image_id,
            rle=mask.rle,
            box_xyxy=mask.box_xyxy,
            area_px=mask.area_px,
            predicted_iou=mask.predicted_iou,
            stability_score=mask.stability_score,
            point_xy=mask.point_xy,
            crop_xyxy=mask.crop_xyxy,
            provenance=provenance,
        )
        for ordinal, mask in enumerate(generated.masks)
    ]


def _reject_of(image: ImageRecord, error: Exception) -> Reject:
    reason = "out_of_memory" if is_out_of_memory(error) else "failed"
    message = " ".join(str(error).split()) or "no message"
    return reject(image, reason, f"{type(error).__name__}: {message[:300]}")


def config_for_gpu(config: GenerateConfig) -> GenerateConfig:
    """Batches for a GPU where the settings leave them at what a CPU's caches like; masks do not depend on them."""
    left = {field.name: field.default for field in fields(GenerateConfig) if field.name in BATCHES}
    mine: dict[str, Any] = {
        name: GPU_BATCHES[name] for name, default in left.items() if getattr(config, name) == default
    }
    return replace(config, **mine)


def expected_memory_bytes(model: Model) -> int:
    """A generous guess at what a worker needs on a CPU: 1 GiB, and the weights thrice, for loading and activations."""
    weights = sum(value.numel() * value.element_size() for value in model.sam.state_dict().values())
    return int(2**30 + 3 * weights)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU, in PyTorch's CPU allocator, in NumPy or in OpenCV."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, Exception)
        and any(sign in words for sign in ("not enough memory", "can't allocate memory", "Insufficient memory"))
    )
