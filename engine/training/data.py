"""Training samples: windows cut from labelled pictures, each with masks to ask for and a first prompt on every mask.

Everything about a sample follows from (seed, step, position in the global batch): which picture, which window, which
masks, which random numbers its later clicks use. So a resumed run sees the same data, and so does the same run spread
over more processes.

Samples are made on the host, in numpy, by a thread or by processes; pixels and masks travel as bytes and become numbers
on the device that trains.

B pictures of this process, P = B * prompts per picture, S window side in px, L = S / cell_px cells of a low-resolution
mask, R correction rounds.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from engine.training.annotator import CENTRED_SHARE, first_click, noisy_box

CELL_PX = 2
"""Window pixels per cell of the low-resolution masks: a quarter of the hybrid encoder's stride 8. A ViT's are 4."""
BATCHES_PER_WORKER = 2
"""That may wait, made, for the training; one of 128 windows of 256 px with 12 masks has 50 MB."""

Samples = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """What windows look like during one part of the training."""

    side_px: int
    """Side of the square window the encoder sees; a multiple of 16."""
    zoom: tuple[float, float] = (0.7, 1.4)
    """Range of window pixels per picture pixel, drawn log-uniformly (less zoom where the picture is too small)."""
    aspects: tuple[float, ...] = (1.0,)
    """Shorter over longer side of the content; below 1 the rest of the window is padding at the bottom or right."""
    min_mask_px: int = 56
    """Smaller masks are not asked for: 0.1 % of a 320 x 213 px picture has 68."""
    max_mask_share: float = 0.9
    """Nor are masks over this share of the content."""
    large_scale_jitter: tuple[float, float] | None = None
    """Photographs are scaled by an even draw from this range, where 1 fills the window with the longer side, then cut
    or padded to the window (Ghiasi et al. 2021, [0.1, 2.0]); `zoom` and `aspects` then count for scenes alone.
    """


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One window of one picture."""

    image_HW3: np.ndarray
    """uint8 RGB, the content only, at most side_px x side_px."""
    masks_NHW: np.ndarray
    """uint8 {0, 1}: the masks asked for, one per prompt."""


class Source(Protocol):
    """Labelled pictures that windows can be cut from."""

    def cut(self, rng: Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
        """Draw a picture, a window of it and `prompts` masks; the same for the same generator state and step."""

    def prepare(self, step: int) -> None:
        """Make what the cuts of a step draw from and is not there yet. Asked in the training process, which has the
        device; cuts may be drawn in others, which have none.
        """


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one process trains on in one step."""

    pixels_B3SS: Tensor
    """float32, normalised, zero where padded."""
    targets_PLL: Tensor
    """float32 in [0, 1]: share of each cell that the mask covers."""
    clicks_P2: Tensor
    """float32 (x, y), window pixels."""
    boxes_P4: Tensor
    """float32 (x0, y0, x1, y1), window pixels, noisy."""
    is_box_P: Tensor
    """bool: the first prompt is the box, else the click."""
    uniforms_RP3: Tensor
    """float32 in [0, 1): random numbers of each correction click."""

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def parts(self, pictures: int) -> "list[Batch]":
        """The batch in parts of at most so many pictures."""
        count = len(self.pixels_B3SS)
        prompts = len(self.clicks_P2) // count
        return [self._part(first, min(first + pictures, count), prompts) for first in range(0, count, pictures)]

    def _part(self, first: int, last: int, prompts: int) -> "Batch":
        rows = slice(first * prompts, last * prompts)
        return Batch(
            pixels_B3SS=self.pixels_B3SS[first:last],
            targets_PLL=self.targets_PLL[rows],
            clicks_P2=self.clicks_P2[rows],
            boxes_P4=self.boxes_P4[rows],
            is_box_P=self.is_box_P[rows],
            uniforms_RP3=self.uniforms_RP3[:, rows],
        )


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How batches are put together."""

    seed: int
    prompts: int
    """Masks asked for per picture."""
    box_share: float = 0.2
    """Share of first prompts that are boxes; half in the paper."""
    centred_share: float = CENTRED_SHARE
    """Share of first clicks near the point farthest from the boundary, the others fall anywhere; 0 in the paper."""
    most_corrections: int = 3
    """Clicks that may follow the first prompt; 8 in the paper."""
    colour_jitter: bool = True
    """Change the colours of a part of the pictures; the paper's last stages do not."""
    pixel_mean: tuple[float, float, float]
    """RGB, on the 0..255 scale, as the model's preprocessing has it."""
    pixel_std: tuple[float, float, float]


def make_batch(
    source: Source,
    config: BatchConfig,
    window: WindowConfig,
    *,
    step: int,
    positions: range,
    cell_px: int = CELL_PX,
    device: torch.device | str = "cpu",
) -> Batch:
    """The samples at `positions` of the global batch of `step`, on `device`."""
    samples = make_samples(source, config, window, step=step, positions=positions, cell_px=cell_px)
    return batch_of(samples, config, torch.device(device))


def make_samples(
    source: Source, config: BatchConfig, window: WindowConfig, *, step: int, positions: range, cell_px: int
) -> Samples:
    """What `batch_of` makes a batch of: a few arrays, bytes where they are large."""
    samples = [_make_sample(source, config, window, step, position, cell_px) for position in positions]
    stacked = {name: [sample[name] for sample in samples] for name in samples[0]}
    return {
        "pixels_BSS3": np.stack(stacked["pixels"]),
        "content_B2": np.stack(stacked["content"]),
        "covered_PLL": np.concatenate(stacked["covered"]),
        "cell_area": np.array(cell_px**2),
        "clicks_P2": np.concatenate(stacked["clicks"]),
        "boxes_P4": np.concatenate(stacked["boxes"]),
        "is_box_P": np.concatenate(stacked["is_box"]),
        "uniforms_RP3": np.concatenate(stacked["uniforms"], 1),
    }


def batch_of(samples: Samples, config: BatchConfig, device: torch.device) -> Batch:
    """Samples as a batch on `device`: pixels normalised and zero where padded, masks as shares of their cells."""
    here = {name: _to_device(array, device) for name, array in samples.items() if name != "cell_area"}
    mean_3, std_3 = (torch.tensor(values, device=device) for values in (config.pixel_mean, config.pixel_std))
    pixels_BSS3 = here["pixels_BSS3"]
    axis_S = torch.arange(pixels_BSS3.shape[1], device=device)
    within_BS, within_BT = (axis_S < side_B1 for side_B1 in here["content_B2"].unsqueeze(2).unbind(1))
    normalised_BSS3 = (pixels_BSS3.float() - mean_3) / std_3
    padded_BSS3 = torch.where((within_BS[:, :, None] & within_BT[:, None, :])[..., None], normalised_BSS3, 0.0)
    return Batch(
        pixels_B3SS=padded_BSS3.permute(0, 3, 1, 2),  # which is channels-last in memory
        targets_PLL=here["covered_PLL"].float() / int(samples["cell_area"]),
        clicks_P2=here["clicks_P2"],
        boxes_P4=here["boxes_P4"],
        is_box_P=here["is_box_P"],
        uniforms_RP3=here["uniforms_RP3"],
    )


def prefetch_batches(
    source: Source,
    config: BatchConfig,
    windows: Iterator[WindowConfig],
    *,
    first_step: int,
    positions: range,
    cell_px: int = CELL_PX,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Iterator[Batch]:
    """Batches from `first_step` on, one window config each, on `device`.

    They are made one step ahead in a thread, or, with workers, further ahead in that many processes, into each of which
    the source is pickled.
    """
    ahead = 1 + BATCHES_PER_WORKER * workers
    waiting: deque[Callable[[], Batch]] = deque()
    with _makers(source, workers) as pool:
        for step, window in enumerate(windows, first_step):
            if workers:
                source.prepare(step)
                made = pool.submit(_make_in_worker, config, window, step, positions, cell_px)
                waiting.append(partial(_receive, made, config, device))
            else:
                make = partial(make_batch, step=step, positions=positions, cell_px=cell_px, device=device)
                waiting.append(pool.submit(make, source, config, window).result)
            if len(waiting) > ahead:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()


@contextmanager
def _makers(source: Source, workers: int) -> Iterator[Executor]:
    if workers:  # spawned: a fork would copy the locks of whatever threads the training process runs
        context = multiprocessing.get_context("spawn")
        pool: Executor = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(source,))
    else:
        pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _receive(made: Future[Samples], config: BatchConfig, device: torch.device | str) -> Batch:
    return batch_of(made.result(), config, torch.device(device))


_worker_source: Source


def _start_worker(source: Source) -> None:
    global _worker_source
    _worker_source = source
    cv2.setNumThreads(1)


def _make_in_worker(config: BatchConfig, window: WindowConfig, step: int, positions: range, cell_px: int) -> Samples:
    return make_samples(_worker_source, config, window, step=step, positions=positions, cell_px=cell_px)


class MixedSource:
    """Several sources drawn from by weight."""

    def __init__(self, sources: list[tuple[Source, float]]) -> None:
        if not sources or any(weight <= 0 for _, weight in sources):
            raise ValueError(f"got weights {[weight for _, weight in sources]}: expected at least one, all above 0")
        self._sources = [source for source, _ in sources]
        weights = np.array([weight for _, weight in sources])
        self._shares = weights / weights.sum()

    def cut(self, rng: Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
        """A cut of one of the sources."""
        chosen = rng.choice(len(self._sources), p=self._shares)
        return self._sources[chosen].cut(rng, step, window, prompts)

    def prepare(self, step: int) -> None:
        """Prepare each of them."""
        for source in self._sources:
            source.prepare(step)


def content_size(window: WindowConfig, rng: Generator) -> tuple[int, int]:
    """Height and width of the window's content in px: the longer side fills the window."""
    aspect = window.aspects[rng.integers(len(window.aspects))]
    short = int(window.side_px * aspect + 0.5)
    return (short, window.side_px) if rng.random() < 0.6 else (window.side_px, short)


def crop_of(
    picture_hw: tuple[int, int], content_hw: tuple[int, int], zoom: tuple[float, float], rng: Generator
) -> tuple[slice, slice]:
    """Rows and columns of the picture that become the content, zoomed as far as the picture reaches."""
    least = max(content / picture for content, picture in zip(content_hw, picture_hw, strict=True))
    low, high = max(zoom[0], least), max(zoom[1], least)
    factor = np.exp(rng.uniform(np.log(low), np.log(high)))
    height, width = (
        min(int(content / factor + 0.5), side) for content, side in zip(content_hw, picture_hw, strict=True)
    )
    top = int(rng.integers(picture_hw[0] - height + 1))
    left = int(rng.integers(picture_hw[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def jitter_scale(
    picture_hw: tuple[int, int], window: WindowConfig, rng: Generator
) -> tuple[slice, slice, tuple[int, int]]:
    """Large-scale jitter: rows and columns of the picture, and the (height, width) of the content they become."""
    assert window.large_scale_jitter is not None
    factor = rng.uniform(*window.large_scale_jitter) * window.side_px / max(picture_hw)
    content_hw = tuple(max(1, min(window.side_px, int(side * factor + 0.5))) for side in picture_hw)
    taken = [
        max(1, min(side, int(content / factor + 0.5))) for side, content in zip(picture_hw, content_hw, strict=True)
    ]
    top, left = (int(rng.integers(side - part + 1)) for side, part in zip(picture_hw, taken, strict=True))
    return slice(top, top + taken[0]), slice(left, left + taken[1]), (content_hw[0], content_hw[1])


def scale(image_HWC: np.ndarray, size_hw: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    """Resize to (height, width): averaging when shrinking, bilinear when growing, or nearest for labels."""
    shrinks = size_hw[0] < image_HWC.shape[0]
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image_HWC), size_hw[::-1], interpolation=method)


def jitter_colours(image_HW3: np.ndarray, rng: Generator) -> np.ndarray:
    """Swap channels, scale and shift them, bend the curve, or drop the colour, each in a part of the pictures."""
    if rng.random() < 0.3:
        image_HW3 = image_HW3[..., rng.permutation(3)]
    levels_256_3: np.ndarray = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, 1)
    if rng.random() < 0.5:
        levels_256_3 = levels_256_3 * rng.uniform(0.6, 1.4) + rng.normal(size=3) * 12
    if rng.random() < 0.3:
        levels_256_3 = 255 * (np.clip(levels_256_3, 0, 255) / 255) ** rng.uniform(0.6, 1.6)
    table_256_3 = np.clip(levels_256_3 + 0.5, 0, 255).astype(np.uint8)
    image_HW3 = np.stack([table_256_3[image_HW3[..., c], c] for c in range(3)], -1)
    if rng.random() < 0.07:
        image_HW3 = np.repeat(image_HW3.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    return image_HW3


def _make_sample(
    source: Source, config: BatchConfig, window: WindowConfig, step: int, position: int, cell_px: int
) -> Samples:
    rng = np.random.default_rng([config.seed, step, position])
    cut = source.cut(rng, step, window, config.prompts)
    side, cells = window.side_px, window.side_px // cell_px
    height, width = cut.image_HW3.shape[:2]
    pixels_SS3 = np.zeros((side, side, 3), np.uint8)
    pixels_SS3[:height, :width] = jitter_colours(cut.image_HW3, rng) if config.colour_jitter else cut.image_HW3
    masks_PSS = np.zeros((config.prompts, side, side), np.uint8)
    masks_PSS[:, :height, :width] = cut.masks_NHW
    return {
        "pixels": pixels_SS3,
        "content": np.array([height, width]),
        "covered": masks_PSS.reshape(config.prompts, cells, cell_px, cells, cell_px).sum((2, 4), dtype=np.uint8),
        "clicks": np.stack([first_click(mask, rng, config.centred_share) for mask in cut.masks_NHW]),
        "boxes": np.stack([noisy_box(mask, rng) for mask in cut.masks_NHW]),
        "is_box": rng.random(config.prompts) < config.box_share,
        "uniforms": rng.random((config.most_corrections, config.prompts, 3), dtype=np.float32),
    }


def _to_device(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
