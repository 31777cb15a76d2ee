"""Progress of a training: a line of log every few steps."""

import time
from collections.abc import Callable

import torch

from engine.training.step import StepScores
from engine.training.train import TrainConfig


class StepLines:
    """Callback for the `on_step` of `train`: logs mean scores of the latest steps, the pace and the time left."""

    def __init__(self, config: TrainConfig, log: Callable[[str], None]) -> None:
        self._config = config
        self._log = log
        self._recent: list[torch.Tensor] = []
        self._since = time.monotonic()

    def __call__(self, step: int, scores: StepScores) -> None:
        """Keep a step's scores; log the mean scores every `log_every` steps and at the last step."""
        self._recent.append(scores.stacked())
        if len(self._recent) < self._config.log_every and step + 1 < self._config.total_steps:
            return
        # The mean waits for a GPU, so that the time taken behind it is that of the steps.
        loss, best, chosen, error, corrected = torch.stack(self._recent).mean(0).tolist()
        seconds_a_step = (time.monotonic() - self._since) / len(self._recent)
        left = seconds_a_step * (self._config.total_steps - step - 1)
        self._log(
            f"step {step + 1} of {self._config.total_steps}: "
            f"{self._config.batch_size / seconds_a_step:.1f} images/s, "
            f"loss {loss:.3f}, best of 3 {best:.3f}, chosen {chosen:.3f}, IoU error {error:.3f}, "
            f"corrected {corrected:.3f}, {left / 60:.0f} min left"
        )
        self._recent.clear()
        self._since = time.monotonic()
