"""Training samples: windows cut from labelled pictures, each with masks to ask for and a first prompt on every mask.

Everything about a sample follows from (seed, step, position in the global batch): which picture, which window, which
masks, which random numbers its later clicks use. So a resumed run sees the same data, and so does the same run spread
over more processes.

B pictures of this process, P = B * prompts per picture, S window side in px, L = S / 2 cells of a low-resolution mask.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from engine.training.simulation import first_click, noisy_box

LOGIT_STRIDE = 2
"""Window pixels per cell of the low-resolution masks: a quarter of the embedding's stride 8."""
MAX_CORRECTIONS = 3


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


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How batches are put together."""

    seed: int
    prompts: int
    """Masks asked for per picture."""
    box_share: float = 0.2
    """Share of first prompts that are boxes."""
    pixel_mean: tuple[float, float, float]
    """RGB, on the 0..255 scale, as the model's preprocessing has it."""
    pixel_std: tuple[float, float, float]


def make_batch(source: Source, config: BatchConfig, window: WindowConfig, *, step: int, positions: range) -> Batch:
    """The samples at `positions` of the global batch of `step`."""
    samples = [_make_sample(source, config, window, step, position) for position in positions]
    stacked = {name: [sample[name] for sample in samples] for name in samples[0]}
    return Batch(
        pixels_B3SS=torch.from_numpy(np.stack(stacked["pixels"])).contiguous(memory_format=torch.channels_last),
        targets_PLL=torch.from_numpy(np.concatenate(stacked["targets"])),
        clicks_P2=torch.from_numpy(np.concatenate(stacked["clicks"])),
        boxes_P4=torch.from_numpy(np.concatenate(stacked["boxes"])),
        is_box_P=torch.from_numpy(np.concatenate(stacked["is_box"])),
        uniforms_RP3=torch.from_numpy(np.concatenate(stacked["uniforms"], 1)),
    )


def prefetch_batches(
    source: Source, config: BatchConfig, windows: Iterator[WindowConfig], *, first_step: int, positions: range
) -> Iterator[Batch]:
    """Batches from `first_step` on, one window config each, made one step ahead in a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        pending = None
        for step, window in enumerate(windows, first_step):
            upcoming = pool.submit(make_batch, source, config, window, step=step, positions=positions)
            if pending is not None:
                yield pending.result()
            pending = upcoming
        if pending is not None:
            yield pending.result()


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
    source: Source, config: BatchConfig, window: WindowConfig, step: int, position: int
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([config.seed, step, position])
    cut = source.cut(rng, step, window, config.prompts)
    side, cells = window.side_px, window.side_px // LOGIT_STRIDE
    height, width = cut.image_HW3.shape[:2]
    pixels = np.zeros((side, side, 3), np.float32)
    pixels[:height, :width] = (jitter_colours(cut.image_HW3, rng) - np.array(config.pixel_mean, np.float32)) / np.array(
        config.pixel_std, np.float32
    )
    masks_PSS = np.zeros((config.prompts, side, side), np.uint8)
    masks_PSS[:, :height, :width] = cut.masks_NHW
    covered = masks_PSS.reshape(config.prompts, cells, LOGIT_STRIDE, cells, LOGIT_STRIDE).sum((2, 4), dtype=np.uint8)
    return {
        "pixels": np.ascontiguousarray(pixels.transpose(2, 0, 1)),
        "targets": covered.astype(np.float32) / LOGIT_STRIDE**2,
        "clicks": np.stack([first_click(mask, rng) for mask in cut.masks_NHW]),
        "boxes": np.stack([noisy_box(mask, rng) for mask in cut.masks_NHW]),
        "is_box": rng.random(config.prompts) < config.box_share,
        "uniforms": rng.random((MAX_CORRECTIONS, config.prompts, 3), dtype=np.float32),
    }
