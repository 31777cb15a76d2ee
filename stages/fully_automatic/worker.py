"""Worker of the fully automatic stage (section 4 of "Segment Anything"), which masks one shard at a call, without Ray.

ShardWorker: read images -> decode -> generate masks -> mask shard -> commit

An image that cannot be masked becomes a reject, and its shard continues. When memory runs out, the image is tried again
with half as many points and crops at a time. A shard that is committed already is never masked again.
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
    PROGRAM_ERRORS,
    MaskedImage,
    ShardResult,
    find_commit,
    read_images,
    reject_image,
    write_outcomes,
)
from stages.fully_automatic.plan import BATCH_SETTINGS, plan_settings
from storage.dataset import Dataset
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, Reject, Stage, mask_id_of

GPU_BATCHES = {"points_per_batch": 256, "crops_per_batch": 21}
"""Batch settings on a GPU, used where the config has the defaults. They are not tuned: this has not run on a GPU yet.
"""


class CannotWork(ValueError):
    """Error of a worker that can mask no shard of a plan: there is no such model, or the plan is for another one."""


class ShardFailed(RuntimeError):
    """Error of a worker that cannot mask even a test image: the set-up is at fault, and nothing is committed."""


class ShardWorker:
    """Worker with a model and a dataset that masks and commits planned shards.

    Two threads may call `mask_shard` at a time: while one computes, the other reads or writes.
    """

    def __init__(
        self,
        model: str | Path,
        config: GenerateConfig,
        dataset_uri: str,
        *,
        models_folder: str | Path | None = None,
        device: str | None = None,
        images_at_once: int | None = None,
    ) -> None:
        """Load the model and open the dataset.

        Args:
            model: a model's name or the path of a weights file.
            config: settings of the mask generator.
            dataset_uri: URI of the dataset.
            models_folder: folder that models are looked for in. None: the default one.
            device: device of the model. None: the first CUDA device that this process sees, else the CPU.
            images_at_once: number of images in progress at a time. None: 3 on a GPU, so that one is decoded or cleaned
                up while the network computes another; 1 on a CPU, whose cores the network uses.
        """
        self.device = device or best_device()
        on_gpu = self.device.startswith("cuda")
        self.config = config_for_gpu(config) if on_gpu else config
        self.images_at_once = images_at_once or (3 if on_gpu else 1)
        self.dataset = Dataset.open(dataset_uri)
        self.model = load_model(model, folder=models_folder, device=self.device)
        self._computing = threading.Lock()

    def mask_shard(
        self, plan_id: str, shard_name: str, on_image: Callable[[MaskedImage | Reject], None] | None = None
    ) -> ShardResult:
        """Mask and commit one shard, unless it is committed already; `on_image` is called with each image's outcome.

        Raises:
            CannotWork: The plan is for another model or config.
            ShardFailed: The worker cannot mask even a known image.
            Corrupt, StoreError: The dataset cannot be read or written.
        """
        clock = _Clock()
        plan = self.open_plan(plan_id)
        shard = plan.shard(shard_name)
        done = find_commit(self.dataset, plan, shard)
        if done:
            return ShardResult.from_commit(done, is_new=False)

        # Read; this and writing run beside the masking of the worker's other shard
        images = read_images(self.dataset, plan, shard)
        clock.end("read")

        # Mask, one shard at a time
        with self._computing:
            clock.end("wait")
            outcomes = []
            for outcome in self._outcomes(plan, shard, images):
                outcomes.append(outcome)
                if on_image:
                    on_image(outcome)
        clock.end("mask")

        # Commit
        seconds = clock.seconds["read"] + clock.seconds["mask"]  # waiting for the other call is no work
        result = write_outcomes(self.dataset, plan, shard, outcomes, seconds=seconds)
        clock.end("write")
        return replace(result, seconds_by_part=clock.seconds)

    def _outcomes(
        self, plan: Plan, shard: PlannedShard, images: Iterable[tuple[ImageRecord, bytes]]
    ) -> Iterator[MaskedImage | Reject]:
        """Mask the images, several at a time, and yield their outcomes in order."""
        if self.images_at_once == 1:
            return (self.mask_image(plan, shard, image, data) for image, data in images)
        return overlapped(
            lambda image: self.mask_image(plan, shard, *image),
            images,
            threads=self.images_at_once,
            device=self.device,
        )

    def open_plan(self, plan_id: str) -> Plan:
        """Read a plan and check that it is for this worker's model and config.

        Raises:
            CannotWork: The plan is for another model or config.
        """
        plan = self.dataset.plan(plan_id)
        mine = plan_settings(self.model.identity, self.config)
        if plan.settings != mine:
            raise CannotWork(f"plan {plan_id} is for {dict(plan.settings)}, this worker was made for {mine}")
        return plan

    def mask_image(self, plan: Plan, shard: PlannedShard, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        """Generate all masks of one image, or make a reject that says why the image cannot be masked.

        Raises:
            ShardFailed: The worker cannot mask even a known image.
            PROGRAM_ERRORS: A fault of this program, which no image may be blamed for.
        """
        began = time.perf_counter()
        try:
            generated = self.generate(image, data)
        except Exception as error:  # whatever one image does to decoder and network, the others continue
            self.check()
            if isinstance(error, PROGRAM_ERRORS):
                raise
            return _reject_for(image, error)
        provenance = Provenance(
            stage=Stage.FULLY_AUTOMATIC,
            model_id=self.model.model_id,
            plan_id=plan.home,
            config_hash=plan.settings_hash,
        )
        return MaskedImage(
            image=image,
            masks=_records(generated, plan, shard, image, provenance),
            diagnostics=generated.diagnostics,
            seconds=time.perf_counter() - began,
        )

    def check(self) -> None:
        """Check the worker by masking a test image of squares, before a failure is blamed on an image of the dataset.

        Raises:
            ShardFailed: The test image cannot be masked.
        """
        squares = np.kron(np.indices((4, 4)).sum(0) % 2 * 255, np.ones((16, 16))).astype(np.uint8)
        simple = replace(self.config, points_per_side=1, crop_layers=0, points_per_batch=1)
        try:
            generate_masks(self.model, np.dstack([squares] * 3), simple)
        except Exception as error:
            raise ShardFailed(f"the worker masks nothing: {type(error).__name__}: {error}") from error

    def generate(self, image: ImageRecord, data: bytes) -> Generated:
        """Run the generator on one stored image; whenever memory runs out, run it again with half the batch size."""
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
            config = replace(config, **{name: max(1, getattr(config, name) // 2) for name in BATCH_SETTINGS})


class _Clock:
    """Clock that measures the seconds of consecutive parts of a job."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def end(self, part: str) -> None:
        """End the part that is running, record it under this name, and begin the next."""
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


def _reject_for(image: ImageRecord, error: Exception) -> Reject:
    """Make the reject that names the error an image caused."""
    reason = "out_of_memory" if is_out_of_memory(error) else "failed"
    message = " ".join(str(error).split()) or "no message"
    return reject_image(image, reason, f"{type(error).__name__}: {message[:300]}")


def config_for_gpu(config: GenerateConfig) -> GenerateConfig:
    """Enlarge the batch sizes that are at their defaults, which suit a CPU's caches; this does not change the masks."""
    defaults = {field.name: field.default for field in fields(GenerateConfig) if field.name in BATCH_SETTINGS}
    mine: dict[str, Any] = {
        name: GPU_BATCHES[name] for name, default in defaults.items() if getattr(config, name) == default
    }
    return replace(config, **mine)


def expected_memory_bytes(model: Model) -> int:
    """Estimate generously the memory that a worker needs on a CPU: 1 GiB plus three times the size of the weights."""
    weights = sum(value.numel() * value.element_size() for value in model.sam.state_dict().values())
    return 2**30 + 3 * int(weights)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on a GPU, in PyTorch's CPU allocator, in NumPy or in OpenCV."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, Exception)
        and any(sign in words for sign in ("not enough memory", "can't allocate memory", "Insufficient memory"))
    )
