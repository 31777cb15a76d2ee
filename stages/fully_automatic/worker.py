"""The fully automatic stage (section 4 of "Segment Anything"): image shards in, mask shards out. Plain Python, no Ray.

plan_masks:  image shards -> a plan of mask shards, each a run of images of one image shard
ShardWorker: read images -> decode -> generate masks -> mask shard -> commit

A photograph that cannot be masked is a reject of its shard, and the shard goes on. Out of memory halves the batch of
points and tries again. A shard that is committed already is not made again, whoever asks.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from engine.automatic.config import GenerateConfig
from engine.automatic.diagnostics import Diagnostics
from engine.automatic.generate import Generated, generate_masks
from engine.automatic.overlap import overlapped
from engine.images import decode
from engine.model.weights import Model, load_model
from storage.dataset import Dataset
from storage.objects.stores import NotFound
from storage.protocol.commits import Commit
from storage.protocol.plans import Plan, PlannedShard, address_of
from storage.records import ImageRecord, MaskRecord, Provenance, Reject, mask_id_of
from storage.tables.contents import read_image_run

STAGE = "fully_automatic"
SHARDS_OF_A_RUN = 64
"""A plan aims at so many shards: enough for a dozen workers to end together."""
MAX_IMAGES = 256
"""Of a mask shard; a lost worker loses no more."""
BATCHES = ("points_per_batch", "crops_per_batch")
"""Settings of the generator that change its speed and memory, not its masks."""
GPU_BATCHES = {"points_per_batch": 256, "crops_per_batch": 21}
"""What a GPU gets where the settings leave the processor's sizes. Not tuned: this has not run on a GPU yet."""
MAX_WITHOUT_MASKS = 12
"""Photographs of a shard whose want of masks its record explains: as many as a report shows in all."""


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What became of a shard. `made`: by this call; else it was there when the call began."""

    plan_id: str
    shard: str
    images: int
    masks: int
    rejects: int
    seconds: float
    made: bool
    seconds_by_part: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Where the time of a shard made here went: "read", "wait" (for the worker's other shard), "mask", "write"."""


class ShardFailed(RuntimeError):
    """The fault is the set-up's, not a photograph's: the worker cannot mask a picture it knows; nothing is written."""


def plan_masks(
    dataset: Dataset, model: Model, config: GenerateConfig, *, images_per_shard: int | None = None
) -> list[Plan]:
    """The plans that mask every image shard of the dataset with this model and config, oldest first.

    Plans that are there are kept, so that the same command goes on with them; image shards that none of them covers
    get a new one. A mask shard is a run of images of one image shard. Its length depends on the number of images alone,
    never on the machine, so that a run can be continued elsewhere: 20 photographs make 20 shards, 1,000 make 63 of 16,
    16,384 and more make shards of 256.
    """
    settings = plan_settings(model, config)
    plans = [plan for plan in dataset.plans() if plan.kind == "masks" and plan.settings == settings]
    fresh = _uncovered(dataset, plans)
    if fresh:
        total = sum(len(images) for _, images in fresh)
        length = images_per_shard or min(MAX_IMAGES, math.ceil(total / SHARDS_OF_A_RUN))
        runs = [(address, run) for address, images in fresh for run in _runs(images, length)]
        shards = [
            PlannedShard(name=f"{number:06d}", inputs=(address, f"{run.start}:{run.stop}"))
            for number, (address, run) in enumerate(runs)
        ]
        plans.append(dataset.new_plan("masks", shards, settings))
    return plans


def _uncovered(dataset: Dataset, plans: Sequence[Plan]) -> list[tuple[str, range]]:
    """Addresses of image shards, with the images that none of the plans masks.

    A redone image shard keeps its images and their places, new ones come behind: only those are uncovered.
    """
    covered: dict[str, int] = {}
    for shard in (shard for plan in plans for shard in plan.shards):
        name = _without_generation(shard.inputs[0])
        covered[name] = max(covered.get(name, 0), _run_of(shard).stop)
    all_images = [
        (commit.address, range(covered.get(_without_generation(commit.address), 0), commit.images))
        for commit in dataset.image_shards()
    ]
    return [(address, images) for address, images in all_images if images]


def _without_generation(address: str) -> str:
    return address.rpartition(".g")[0]


def plan_settings(model: Model, config: GenerateConfig) -> dict[str, object]:
    """What decides over the masks, as a plan records it: the model, and the generator's settings with its thresholds.

    How many points and crops are computed together is no part of it: it changes speed and memory, not masks.
    """
    card = model.card
    decided = replace(
        config,
        predicted_iou_threshold=_first(config.predicted_iou_threshold, card.predicted_iou_threshold),
        stability_threshold=_first(config.stability_threshold, card.stability_threshold),
    )
    generate = {name: value for name, value in asdict(decided).items() if name not in BATCHES}
    return {"stage": STAGE, "model_id": model.model_id, "generate": generate}


def _first(given: float | None, default: float) -> float:
    return default if given is None else given


def _runs(images: range, length: int) -> list[range]:
    """The images cut in runs of nearly equal length, at most `length` each."""
    count = math.ceil(len(images) / length)
    bounds = [images.start + len(images) * i // count for i in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(bounds)]


@dataclass(frozen=True, kw_only=True)
class MaskedImage:
    """One photograph with its masks."""

    image: ImageRecord
    masks: list[MaskRecord]
    diagnostics: Diagnostics
    seconds: float


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
        self.device = device or default_device()
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


def config_for_gpu(config: GenerateConfig) -> GenerateConfig:
    """Batches for a GPU where the settings leave them at what a CPU's caches like; masks do not depend on them."""
    left = {field.name: field.default for field in fields(GenerateConfig) if field.name in BATCHES}
    mine: dict[str, Any] = {
        name: GPU_BATCHES[name] for name, default in left.items() if getattr(config, name) == default
    }
    return replace(config, **mine)


def default_device() -> str:
    """The device that computing goes to unless told otherwise."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def expected_memory_bytes(model: Model) -> int:
    """A generous guess at what a worker needs on a CPU: 1 GiB, and the weights thrice, for loading and activations."""
    weights = sum(value.numel() * value.element_size() for value in model.sam.state_dict().values())
    return 2**30 + 3 * weights


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU, in PyTorch's CPU allocator, in NumPy or in OpenCV."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, Exception)
        and any(sign in words for sign in ("not enough memory", "can't allocate memory", "Insufficient memory"))
    )


def committed(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit | None:
    """The shard's record, where it has one."""
    try:
        return dataset.commit_of(plan.address(shard))
    except NotFound:
        return None


def result_of(commit: Commit, *, made: bool) -> ShardResult:
    """What a record says, as a result."""
    return ShardResult(
        plan_id=commit.plan_id,
        shard=commit.shard,
        images=commit.images,
        masks=commit.masks,
        rejects=len(commit.rejects),
        seconds=commit.seconds,
        made=made,
    )


def read_photographs(dataset: Dataset, plan: Plan, shard: PlannedShard) -> list[tuple[ImageRecord, bytes]]:
    """The run of images that a mask shard is made from; in a redo, those that `kept_of` has not."""
    address, _ = shard.inputs
    run = _run_of(shard)
    kept = kept_of(dataset, plan, shard)
    rejected = {reject.source_sha256 for reject in kept.rejects} if kept else set()
    images = read_image_run(dataset.store, dataset.commit_of(address), run)
    return [(image, data) for image, data in images if not kept or image.source_sha256 in rejected]


def kept_of(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit | None:
    """The record whose masks a redo keeps: one with rejects, made with the same settings. Only those are tried again.

    A shard without rejects is redone as a whole.
    """
    if not plan.redoes:
        return None
    previous = dataset.commit_of(address_of(plan.home, shard.name, shard.generation - 1))
    same = dataset.plan(previous.made_by).settings == plan.settings
    return previous if same and previous.rejects else None


def images_of(shard: PlannedShard) -> int:
    """How many photographs a planned mask shard has."""
    return len(_run_of(shard))


def _run_of(shard: PlannedShard) -> range:
    start, stop = shard.inputs[1].split(":")
    return range(int(start), int(stop))


def write_outcomes(
    dataset: Dataset, plan: Plan, shard: PlannedShard, outcomes: Sequence[MaskedImage | Reject], *, seconds: float
) -> ShardResult:
    """Commits a shard's masks, rejects and statistics; in a redo, beside the masks that are kept."""
    kept = kept_of(dataset, plan, shard)
    masked = [outcome for outcome in outcomes if isinstance(outcome, MaskedImage)]
    rejects = [outcome for outcome in outcomes if isinstance(outcome, Reject)]
    commit = dataset.write_masks(
        plan,
        shard,
        [(outcome.image, outcome.masks) for outcome in masked],
        rejects,
        _stats(masked, kept),
        model_id=str(plan.settings["model_id"]),
        seconds=seconds,
        inherited=kept,
    )
    return result_of(commit, made=True)


def _stats(masked: Sequence[MaskedImage], kept: Commit | None) -> dict[str, object]:
    """The shard's diagnostics: summed, and of the first few photographs without masks why they have none."""
    before = _stats_of(kept) if kept else {"diagnostics": {}, "without_masks": {}}
    new = sum((outcome.diagnostics for outcome in masked), Diagnostics()).to_json()
    none = {outcome.image.key: outcome.diagnostics.to_json() for outcome in masked if not outcome.masks}
    return {
        "diagnostics": {name: count + before["diagnostics"].get(name, 0) for name, count in new.items()},
        "without_masks": dict(islice((before["without_masks"] | none).items(), MAX_WITHOUT_MASKS)),
    }


def _stats_of(commit: Commit) -> dict[str, dict[str, Any]]:
    """What `_stats` wrote into a record."""
    return cast("dict[str, dict[str, Any]]", commit.stats)


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


def reject(image: ImageRecord, reason: str, detail: str) -> Reject:
    """A photograph of the dataset that this stage could not mask."""
    return Reject(source=image.source, source_sha256=image.source_sha256, reason=reason, detail=detail, stage=STAGE)


def _reject_of(image: ImageRecord, error: Exception) -> Reject:
    reason = "out_of_memory" if is_out_of_memory(error) else "failed"
    message = " ".join(str(error).split()) or "no message"
    return reject(image, reason, f"{type(error).__name__}: {message[:300]}")
