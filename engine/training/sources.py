"""Sources of training windows: settings of windows, the cut of one window, and the sources that make cuts."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Settings of windows during one phase of a training."""

    side_px: int
    """Side in px of the square window that the encoder sees; a multiple of 16."""
    zoom: tuple[float, float] = (0.7, 1.4)
    """Range of the zoom in window pixels per image pixel, drawn log-uniformly; an image too small to fill the window is
    zoomed in more.
    """
    aspects: tuple[float, ...] = (1.0,)
    """Ratios of the shorter to the longer side of the content; below 1 the window is padded at the bottom or right."""
    min_mask_px: int = 56
    """Area of the smallest mask to train on, in window pixels; 0.1 % of an image of 320 x 213 px is 68 pixels."""
    max_mask_fraction: float = 0.9
    """Area of the largest mask to train on, as a fraction of the window's content."""
    large_scale_jitter: tuple[float, float] | None = None
    """Range of the scale of photos, drawn evenly; scale 1 fits the longer side to the window. Photos are then cut or
    padded (Ghiasi et al. 2021, [0.1, 2.0]), while `zoom` and `aspects` apply to scenes alone. None: photos are cut like
    scenes, without jitter.
    """


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Content of one window, cut from one image, with masks."""

    image_HW3: np.ndarray
    """Pixels of the content without padding, uint8 RGB, at most side_px x side_px."""
    masks_NHW: np.ndarray
    """Ground truth, uint8 {0, 1}: one mask per prompt, or every mask of the window (`Source.cut_all`)."""
    weights_N: np.ndarray | None = None
    """Weight of each mask in the losses of predicted masks, float32; None means 1 for each. A rejected mask has 0."""
    rejected_N: np.ndarray | None = None
    """Whether people rejected each mask, bool, so that it is no ground truth; None means that they rejected none."""


class Source(Protocol):
    """Source of training windows: labelled images that windows can be cut from."""

    def cut(self, rng: Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
        """Draw an image, a window of the image and `prompts` masks; equal `rng` states and steps give equal cuts."""

    def cut_all(self, rng: Generator, step: int, window: WindowConfig) -> Cut:
        """Draw an image and a window of the image, with every mask of a size to train on that the window shows.

        A detector needs this: for it, a mask left out would be background.
        """

    def prepare(self, step: int) -> None:
        """Make the missing data that the cuts of a step need.

        The training process calls this method, because it has the device. Other processes, without a device, may call
        `cut`.
        """


class MixedSource:
    """Mixture of several sources, of which one is drawn by weight for each cut."""

    def __init__(self, sources: list[tuple[Source, float]]) -> None:
        if not sources or any(weight <= 0 for _, weight in sources):
            raise ValueError(f"got weights {[weight for _, weight in sources]}: expected at least one, all above 0")
        self._sources = [source for source, _ in sources]
        weights = np.array([weight for _, weight in sources])
        self._shares = weights / weights.sum()

    def cut(self, rng: Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
        """Draw a source by weight, and let it make a cut."""
        return self._draw(rng).cut(rng, step, window, prompts)

    def cut_all(self, rng: Generator, step: int, window: WindowConfig) -> Cut:
        """Draw a source by weight, and let it make a cut with every mask."""
        return self._draw(rng).cut_all(rng, step, window)

    def prepare(self, step: int) -> None:
        """Prepare each source."""
        for source in self._sources:
            source.prepare(step)

    def _draw(self, rng: Generator) -> Source:
        return self._sources[rng.choice(len(self._sources), p=self._shares)]
