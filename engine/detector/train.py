"""Training of the detector's network on encoded windows, on one device.

windows of scenes and labelled images -> encode once -> head -> loss -> weights

The seed decides everything: the windows, the initial weights and the order of the batches. A training that was killed
starts again with the windows it had encoded; the passes over them take minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from engine.detector.config import DetectorConfig
from engine.detector.head import DetectorHead, cells_of
from engine.detector.targets import detector_loss
from engine.detector.windows import EncodedWindows
from engine.training.sources import WindowConfig


@dataclass(frozen=True, kw_only=True)
class DetectorTraining:
    """Settings of a detector's training."""

    windows: int = 3000
    """Number of windows, each encoded once."""
    passes: int = 4
    """Number of passes over the windows."""
    batch_size: int = 8
    """Number of windows in a step."""
    learning_rate: float = 2e-3
    """Largest learning rate of AdamW; it rises over the first steps, then falls as a cosine to 0."""
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    """Largest norm of the gradient of all weights."""
    seed: int = 40_000_000
    """Seed of the windows, the initial weights and the order of the batches."""
    zoom: tuple[float, float] = (0.7, 1.4)
    """Range of the zoom of windows of scenes, in window pixels per scene pixel."""
    photo_scale: tuple[float, float] = (1.0, 3.2)
    """Range of the scale of windows of labelled images, at least 1; 1 fits the image's longer side to the window."""
    min_mask_px: int = 50
    """Area of the smallest mask that counts as an object, in window pixels."""

    def __post_init__(self) -> None:
        least = min(self.windows, self.passes, self.batch_size, self.min_mask_px)
        if least < 1 or self.learning_rate <= 0 or self.photo_scale[0] < 1 or self.windows < self.batch_size:
            raise ValueError(
                f"{self}: expected whole numbers of at least 1, at least a batch of windows, a learning rate above 0 "
                "and a photo_scale of at least 1"
            )

    def window(self, side_px: int) -> WindowConfig:
        """Make the settings of the training windows of a SAM with this input side."""
        return WindowConfig(
            side_px=side_px,
            zoom=self.zoom,
            aspects=(0.667, 0.75, 1.0),
            min_mask_px=self.min_mask_px,
            large_scale_jitter=self.photo_scale,
        )

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole training; the last windows of a pass that fill no batch wait for the next."""
        return self.passes * (self.windows // self.batch_size)


@dataclass(kw_only=True)
class Losses:
    """Losses of the steps of a training."""

    of_steps: list[float] = field(default_factory=list)

    def mean_of_last(self, steps: int) -> float:
        """Compute the mean loss of the last `steps` steps."""
        return float(np.mean(self.of_steps[-steps:]))


WARMUP_STEPS = 50


def train_head(
    sizes: DetectorConfig,
    config: DetectorTraining,
    windows: EncodedWindows,
    *,
    device: str = "cpu",
    on_step: Callable[[int, Losses], None] = lambda step, losses: None,
) -> DetectorHead:
    """Train a head with fresh weights on encoded windows; return it in evaluation mode, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        head = DetectorHead(sizes)
    head.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    cells, losses = cells_of(sizes, device), Losses()
    step = 0
    for number in range(config.passes):
        order = np.random.default_rng([config.seed, number]).permutation(len(windows))
        for first in range(0, len(order) - config.batch_size + 1, config.batch_size):
            numbers = order[first : first + config.batch_size]
            rate = config.learning_rate * _rate_factor(step, config.total_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            predictions = head(windows.embeddings(numbers).to(device, memory_format=torch.channels_last))
            loss = detector_loss(predictions, cells, [boxes.to(device) for boxes in windows.boxes(numbers)])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), config.clip_norm)
            optimizer.step()
            losses.of_steps.append(float(loss.detach()))
            on_step(step, losses)
            step += 1
    return head.cpu().eval()


def _rate_factor(step: int, total: int) -> float:
    warm = min(1.0, (step + 1) / min(WARMUP_STEPS, total))
    return warm * 0.5 * (1 + float(np.cos(np.pi * step / total)))
