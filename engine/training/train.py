"""Training a SAM: the loop, its schedule and the state it resumes from.

Everything random follows from the configured seed and the step's number, so that a run killed at any moment and resumed
from its last checkpoint goes through the very same numbers as one left alone.
"""

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engine.model.sam import Sam
from engine.training.checkpoint import History, TrainState, load_state, save_state
from engine.training.data import MAX_CORRECTIONS, BatchConfig, Source, WindowConfig, prefetch_batches
from engine.training.optimizer import make_optimizers
from engine.training.peers import Peers
from engine.training.step import StepScores, forward_step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of the training with windows of one kind."""

    until_share: float
    """Share of all steps at which it ends; that of the last phase is 1."""
    window: WindowConfig
    correction_shares: tuple[float, ...] = (1.0,)
    """Share of steps with 0, 1, 2, 3 correction clicks."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained; the batch's own settings are in `batch`."""

    batch: BatchConfig
    phases: tuple[Phase, ...]
    total_steps: int
    batch_size: int = 16
    """Pictures per step over all processes. Smaller ones are limited by noise: with 4 a higher rate taught nothing."""
    learning_rate: float = 1e-3
    warmup_steps: int = 150
    flat_share: float = 0.3
    """Share of the steps after which the rate falls, as a cosine, to `last_rate`."""
    last_rate: float = 0.02
    """Rate at the end as a share of the highest."""
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    grad_clip: float = 5.0
    ema_decay: float = 0.998
    bf16: bool = True
    checkpoint_every_s: float = 180.0
    log_every: int = 20

    def __post_init__(self) -> None:
        ends = [phase.until_share for phase in self.phases]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0:
            raise ValueError(f"phases end at {ends} of the steps: expected ascending shares, the last 1.0")
        for phase in self.phases:
            shares = phase.correction_shares
            if not 1 <= len(shares) <= MAX_CORRECTIONS + 1 or abs(sum(shares) - 1) > 1e-6:
                raise ValueError(
                    f"correction_shares {shares}: expected 1 to {MAX_CORRECTIONS + 1} numbers that sum to 1"
                )

    def phase_at(self, step: int) -> Phase:
        """The phase that a step belongs to."""
        return next(phase for phase in self.phases if step < phase.until_share * self.total_steps)

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, a flat stretch, then a cosine to `last_rate`."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        flat_steps = self.flat_share * self.total_steps
        progress = min(1.0, max(0.0, step - flat_steps) / max(1.0, self.total_steps - flat_steps))
        return self.learning_rate * (self.last_rate + (1 - self.last_rate) * 0.5 * (1 + math.cos(math.pi * progress)))


def train(
    config: TrainConfig,
    sam: Sam,
    source: Source,
    folder: Path,
    *,
    peers: Peers = Peers(),  # noqa: B008 - frozen
    on_step: Callable[[int, StepScores], None] | None = None,
) -> Sam:
    """Train `sam` in place to the last step, going on from the checkpoint in `folder` if there is one.

    Returns the moving average of the weights, batch-norm statistics included: that is the model to use.
    `on_step` is called after every step with its number and the scores averaged over the processes.
    """
    state = start_state(config, sam, peers)
    resumed = load_state(folder, state)
    history = History(folder, from_step=state.step, writes=peers.rank == 0)
    logger.info("%s at step %d of %d", "resuming" if resumed else "starting", state.step, config.total_steps)
    positions = peers.share_of(config.batch_size)
    batches = prefetch_batches(
        source, config.batch, _windows(config, state.step), first_step=state.step, positions=positions
    )
    saved_at = time.monotonic()
    for batch in batches:
        corner_cells_xy, corrections = draw_step(config, sam, state.step)
        _set_rate(state, config.learning_rate_at(state.step))
        sam.train()
        loss, scores = forward_step(
            sam, batch, corner_cells_xy=corner_cells_xy, corrections=corrections, bf16=config.bf16
        )
        sam.zero_grad(set_to_none=True)
        loss.backward()
        scores = average_step(sam, scores, peers)
        nn.utils.clip_grad_norm_(sam.parameters(), config.grad_clip)
        for optimizer in state.optimizers:
            optimizer.step()
        update_average(state.ema, sam, state.step, config.ema_decay)
        history.add(state.step, scores.stacked(), config.learning_rate_at(state.step))
        if on_step is not None:
            on_step(state.step, scores)
        state.step += 1
        if peers.rank == 0 and (
            state.step == config.total_steps or time.monotonic() - saved_at > config.checkpoint_every_s
        ):
            history.flush()
            save_state(folder, state)
            saved_at = time.monotonic()
    return state.ema


def start_state(config: TrainConfig, sam: Sam, peers: Peers) -> TrainState:
    """The state before the first step."""
    optimizers = make_optimizers(
        sam, lr=config.learning_rate, weight_decay=config.weight_decay, betas=config.betas, peers=peers
    )
    return TrainState(step=0, model=sam, ema=copy.deepcopy(sam).eval(), optimizers=optimizers)


def draw_step(config: TrainConfig, sam: Sam, step: int) -> tuple[tuple[int, int], int]:
    """Where in the input frame this step's windows lie (cells), and how many corrections it has.

    The same on every process; windows as large as the frame lie at its corner.
    """
    rng = np.random.default_rng([config.batch.seed, step])
    phase = config.phase_at(step)
    room = sam.config.embedding_side - phase.window.side_px // sam.config.embedding_stride
    left, top = (int(rng.integers(room + 1)) for _ in range(2))
    corrections = int(rng.choice(len(phase.correction_shares), p=phase.correction_shares))
    return (left, top), corrections


def average_step(sam: Sam, scores: StepScores, peers: Peers) -> StepScores:
    """Average gradients, batch-norm statistics and scores over the processes, so that all stay equal."""
    gradients = [parameter.grad for parameter in sam.parameters() if parameter.grad is not None]
    statistics = [buffer for buffer in sam.buffers() if buffer.is_floating_point()]
    stacked = scores.stacked()
    peers.average([*gradients, *statistics, stacked])
    return StepScores(**dict(zip([field.name for field in dataclasses.fields(StepScores)], stacked, strict=True)))


@torch.no_grad()
def update_average(ema: Sam, sam: Sam, step: int, decay: float) -> None:
    """Move the average towards the weights; statistics too, counters are copied. Early steps move it faster."""
    share = 1 - min(decay, (step + 1) / (step + 20))
    averaged, current = ema.state_dict(), sam.state_dict()
    floating = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([averaged[name] for name in floating], [current[name] for name in floating], share)
    for name in averaged.keys() - set(floating):
        averaged[name].copy_(current[name])


def _windows(config: TrainConfig, first_step: int) -> Iterator[WindowConfig]:
    return (config.phase_at(step).window for step in range(first_step, config.total_steps))


def _set_rate(state: TrainState, rate: float) -> None:
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
