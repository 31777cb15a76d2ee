"""Where training windows come from: what a window looks like, a cut, and the sources that cut one."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """What windows look like during one part of the training."""

    side_px: int
    """Side of the square window the encoder sees; a multiple of 16."""
    zoom: tuple[float, float] = (0.7, 1.4)
    """Range of window pixels per image pixel, drawn log-uniformly (less zoom where the image is too small)."""
    aspects: tuple[float, ...] = (1.0,)
    """Shorter over longer side of the content; below 1 the rest of the window is padding at the bottom or right."""
    min_mask_px: int = 56
    """Smallest mask to train on, in window pixels; 0.1 % of a 320 x 213 px image has 68."""
    max_mask_fraction: float = 0.9
    """Largest mask to train on, as a fraction of the window's content."""
    large_scale_jitter: tuple[float, float] | None = None
    """Range that the scale of photos is drawn from evenly, where 1 fits the longer side to the window; photos are then
    cut or padded (Ghiasi et al. 2021, [0.1, 2.0]), and `zoom` and `aspects` count for scenes alone. None: no jitter.
    """


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One window of one image."""

    image_HW3: np.ndarray
    """uint8 RGB, the content only, at most side_px x side_px."""
    masks_NHW: np.ndarray
    """uint8 {0, 1}: the ground truth, one mask per prompt."""


class Source(Protocol):
    """Labelled images that windows can be cut from."""

    def cut(self, rng: Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
        """Draw an image, a window of it and `prompts` masks; the same for the same generator state and step."""

    def prepare(self, step: int) -> None:
        """Make what the cuts of a step draw from, where it is missing.

        Called in the training process, which has the device; cuts may be drawn in processes that have none.
        """


class MixedSource:
    """Several sources drawn from by weight."""

    def __init__(self, sources: list[tuple[Source, float]]) -> None:
        if not sources or any(weight <= 0 for _, weight in sources):
            raise ValueError(f"got weights {[weight for _, weight in sources]}: expected at least one, all above 0")
        self._sources = [source for source, _ in sources]
        weights = np.array([weight for _, weight in sources])
        self._shares = weights / weights.sum()

    def cut(self, rng: Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
        """Draw a source by weight, and a cut of it."""
        chosen = rng.choice(len(self._sources), p=self._shares)
        return self._sources[chosen].cut(rng, step, window, prompts)

    def prepare(self, step: int) -> None:
        """Prepare each source."""
        for source in self._sources:
            source.prepare(step)
