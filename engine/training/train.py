"""Training of a SAM: the loop, its schedule and the state that it resumes from.

The configured seed and the step's number decide everything random. A training that is killed at any moment and resumed
from its last checkpoint therefore computes the same numbers as one that was never interrupted.
"""

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.model.image_encoder import ImageEncoder, draw_branch_factors
from engine.model.sam import Sam
from engine.training.batches import Batch, BatchConfig
from engine.training.checkpoint import History, TrainState, load_state, save_state
from engine.training.low_rank import add_low_rank, merge
from engine.training.optimizer import OptimizerKind, make_optimizers, set_rate
from engine.training.peers import Peers
from engine.training.prefetch import prefetch_batches
from engine.training.sources import Source, WindowConfig
from engine.training.step import Objective, StepScores, attention_on, forward_step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Part of a training in which all windows have the same settings."""

    until_fraction: float
    """Fraction of all steps at which the phase ends; 1 for the last phase."""
    window: WindowConfig
    correction_fractions: tuple[float, ...] = (1.0,)
    """Fractions of the phase's steps with 0, 1, 2, ... correction clicks."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training: steps, learning rates, optimizer, loss, and how batches are made (`batch`)."""

    batch: BatchConfig
    phases: tuple[Phase, ...]
    total_steps: int
    batch_size: int = 16
    """Number of images per step over all processes. Noise limits smaller batches: with 4 a higher rate taught nothing.
    """
    learning_rate: float = 1e-3
    warmup_steps: int = 150
    flat_fraction: float = 0.3
    """Fraction of the steps after which the learning rate falls, as a cosine, to `last_rate`."""
    last_rate: float = 0.02
    """Learning rate at the end, as a fraction of the highest rate."""
    rate_drops_at: tuple[float, ...] = ()
    """Fractions of the steps at which the learning rate falls to a tenth, instead of the cosine; 2/3 and 26/27 in the
    paper.
    """
    optimizer: OptimizerKind = "muon"
    """Optimizer: "muon" is Muon with AdamW, "adamw" is AdamW alone as in the paper."""
    layer_decay: float = 1.0
    """Learning rate of a ViT encoder's block as a fraction of the next block's; 0.8 for ViT-H and ViT-L, 0.6 for ViT-B
    in the paper.
    """
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    grad_clip: float = 5.0
    ema_decay: float = 0.998
    drop_path: float = 0.0
    """Probability that the last block of a ViT encoder is skipped. The probability falls evenly to 0 at the first
    block. The paper has 0.4 for ViT-H and ViT-L, 0.6 for ViT-B.
    """
    recomputes_blocks: bool = False
    """Whether to recompute a ViT encoder's blocks in the backward pass, which saves memory and changes no gradient."""
    repeats_mask: bool = False
    """Whether to add two rounds without a new click: one at a random place among the corrections, one at the end."""
    objective: Objective = field(default_factory=Objective)
    masks_per_device: int | None = None
    """Maximum number of masks computed at once; a larger batch is computed in parts. None: no limit; 64 in the paper.
    """
    trains_encoder: bool = True
    """Whether the image encoder is trained; if not, prompt encoder and mask decoder alone are, and the embeddings stay
    those of the model that the training begins with. With the seed, a step takes three quarters of the time then.
    """
    lora_rank: int = 0
    """Rank of updates of the encoder's attention that are trained where `trains_encoder` is false (LoRA, Hu et al.
    2021), such as 8. They cost little memory beside the encoder's own gradients. 0: none, and the embeddings stay.
    """
    keeps_statistics: bool = False
    """Whether batch norms use and keep the means and variances that they have, in place of those of each batch. The few
    images of a short training would move them away from the ones that the weights fit.
    """
    bf16: bool = True
    data_workers: int = 0
    """Number of processes that make batches; 0: a thread in the training process, which is enough for a CPU."""
    checkpoint_every_s: float = 180.0
    log_every: int = 20

    def __post_init__(self) -> None:
        ends = [phase.until_fraction for phase in self.phases]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0:
            raise ValueError(f"phases end at {ends} of the steps: expected ascending fractions, the last 1.0")
        if self.lora_rank < 0 or (self.lora_rank and self.trains_encoder):
            raise ValueError(
                f"lora_rank {self.lora_rank}, trains_encoder {self.trains_encoder}: expected a rank of at least 0, and "
                "one above 0 only where trains_encoder is false"
            )
        most = self.batch.max_corrections
        for phase in self.phases:
            shares = phase.correction_fractions
            if not 1 <= len(shares) <= most + 1 or abs(sum(shares) - 1) > 1e-6:
                raise ValueError(f"correction_fractions {shares}: expected 1 to {most + 1} numbers that sum to 1")
        if self.masks_per_device is not None and self.masks_per_device < self.batch.prompts:
            raise ValueError(
                f"masks_per_device {self.masks_per_device}: expected at least batch.prompts, {self.batch.prompts}; a "
                "image is not taken apart"
            )
        if not 0 <= self.drop_path < 1 or not 0 < self.layer_decay <= 1:
            raise ValueError(f"drop_path {self.drop_path}, layer_decay {self.layer_decay}: expected [0, 1) and (0, 1]")

    def phase_at(self, step: int) -> Phase:
        """Find the phase that a step belongs to."""
        return next(phase for phase in self.phases if step < phase.until_fraction * self.total_steps)

    def learning_rate_at(self, step: int) -> float:
        """Compute the learning rate: linear warm-up, a flat part, then a cosine to `last_rate` or drops to a tenth."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.rate_drops_at:
            return self.learning_rate * 0.1 ** sum(step >= share * self.total_steps for share in self.rate_drops_at)
        flat_steps = self.flat_fraction * self.total_steps
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
    """Train `sam` in place to the last step, starting from the checkpoint in `folder` if there is one.

    Args:
        on_step: called after every step with its number and the scores averaged over the processes.

    Returns:
        The model to use: a moving average of the weights, batch-norm statistics included.
    """
    # Begin, or resume from the checkpoint
    sam.to(peers.device)
    choose_weights(config, sam)
    state = start_state(config, sam, peers)
    resumed = load_state(folder, state)
    peers.check_same(state.step, f"the next step in {folder}")
    history = History(folder, from_step=state.step, writes=peers.rank == 0)
    logger.info("%s at step %d of %d", "resuming" if resumed else "starting", state.step, config.total_steps)

    # Make batches ahead
    positions = peers.positions_of(config.batch_size)
    batches = prefetch_batches(
        source,
        config.batch,
        _windows(config, state.step),
        first_step=state.step,
        positions=positions,
        cell_px=sam.config.embedding_stride // 4,
        device=peers.device,
        workers=config.data_workers,
    )

    saved_at = time.monotonic()
    for batch in batches:
        # Learn from this batch, together with the other processes
        rate = config.learning_rate_at(state.step)
        sam.train()
        sam.image_encoder.train(config.trains_encoder)
        if config.keeps_statistics:
            keep_statistics(sam)
        sam.zero_grad(set_to_none=True)
        scores = average_step(sam, learn_from(config, sam, batch, state.step, positions), peers)
        nn.utils.clip_grad_norm_(sam.parameters(), config.grad_clip)
        for optimizer in state.optimizers:
            set_rate(optimizer, rate)
            optimizer.step()

        # Keep the average and the history
        update_average(state.ema, sam, state.step, config.ema_decay)
        history.add(state.step, scores.stacked(), rate)
        if on_step is not None:
            on_step(state.step, scores)
        state.step += 1

        # Save a checkpoint from time to time
        if peers.rank == 0 and (
            state.step == config.total_steps or time.monotonic() - saved_at > config.checkpoint_every_s
        ):
            history.flush()
            save_state(folder, state)
            saved_at = time.monotonic()
    for network in (sam, state.ema):
        merge(network.image_encoder)
    return state.ema


def choose_weights(config: TrainConfig, sam: Sam) -> None:
    """Choose which weights of the encoder are trained, and how its blocks compute."""
    if config.drop_path or config.recomputes_blocks:
        vit_encoder(sam).recomputes_blocks = config.recomputes_blocks
    sam.image_encoder.requires_grad_(config.trains_encoder)
    if config.lora_rank:
        add_low_rank(sam.image_encoder, config.lora_rank, config.batch.seed)


def learn_from(config: TrainConfig, sam: Sam, batch: Batch, step: int, positions: range) -> StepScores:
    """Compute loss and gradients of this process's part of the batch, at most `masks_per_device` masks at a time."""
    corner_cells_xy, rounds = draw_step(config, sam, step)
    factors_L2B = _branch_factors(config, sam, step, positions)
    images = len(positions)
    if config.masks_per_device is not None:
        images = min(images, config.masks_per_device // config.batch.prompts)
    stacked = []
    for number, part in enumerate(batch.parts(images)):
        first, count = number * images, len(part.pixels_B3SS)
        loss, scores = forward_step(
            sam,
            part,
            corner_cells_xy=corner_cells_xy,
            rounds=rounds,
            bf16=config.bf16,
            objective=config.objective,
            branch_factors_L2B=None if factors_L2B is None else factors_L2B[..., first : first + count],
        )
        share = count / len(positions)
        with attention_on(batch.pixels_B3SS.device):
            (loss * share).backward()
        stacked.append(scores.stacked() * share)
    return _unstacked(torch.stack(stacked).sum(0))


def keep_statistics(sam: Sam) -> None:
    """Set the network's batch norms to use their means and variances, and not to change them."""
    for module in sam.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def vit_encoder(sam: Sam) -> ImageEncoder:
    """Return the network's ViT encoder.

    Raises:
        ValueError: The network has another kind of encoder.
    """
    if not isinstance(sam.image_encoder, ImageEncoder):
        raise ValueError(
            f"drop_path and recomputes_blocks: got a network with a {type(sam.image_encoder).__name__}, expected a "
            "ViT; leave them at 0 and false"
        )
    return sam.image_encoder


def start_state(config: TrainConfig, sam: Sam, peers: Peers) -> TrainState:
    """Make the state that a new training has before its first step."""
    optimizers = make_optimizers(
        sam,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=config.betas,
        peers=peers,
        kind=config.optimizer,
        layer_decay=config.layer_decay,
    )
    return TrainState(step=0, model=sam, ema=copy.deepcopy(sam).eval(), optimizers=optimizers)


def draw_step(config: TrainConfig, sam: Sam, step: int) -> tuple[tuple[int, int], tuple[bool, ...]]:
    """Draw where in the input frame (cells) a step's windows lie, and whether each correction round adds a click."""
    rng = np.random.default_rng([config.batch.seed, step])
    phase = config.phase_at(step)
    room = sam.config.embedding_side - phase.window.side_px // sam.config.embedding_stride
    left, top = (int(rng.integers(room + 1)) for _ in range(2))
    corrections = int(rng.choice(len(phase.correction_fractions), p=phase.correction_fractions))
    rounds = [True] * corrections
    if corrections and config.repeats_mask:
        rounds.insert(int(rng.integers(corrections + 1)), False)
        rounds.append(False)
    return (left, top), tuple(rounds)


def average_step(sam: Sam, scores: StepScores, peers: Peers) -> StepScores:
    """Average gradients, batch-norm statistics and scores over the processes, so that all processes stay equal."""
    gradients = [parameter.grad for parameter in sam.parameters() if parameter.grad is not None]
    statistics = [buffer for buffer in sam.buffers() if buffer.is_floating_point()]
    stacked = scores.stacked()
    peers.average([*gradients, *statistics, stacked])
    return _unstacked(stacked)


@torch.no_grad()
def update_average(ema: Sam, sam: Sam, step: int, decay: float) -> None:
    """Move the average model `ema` towards the weights and batch-norm statistics of `sam`; copy counters.

    The fraction of the move is 1 - `decay`, but larger in early steps.
    """
    share = 1 - min(decay, (step + 1) / (step + 20))
    averaged, current = ema.state_dict(), sam.state_dict()
    floating = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([averaged[name] for name in floating], [current[name] for name in floating], share)
    for name in averaged.keys() - set(floating):
        averaged[name].copy_(current[name])


def _windows(config: TrainConfig, first_step: int) -> Iterator[WindowConfig]:
    return (config.phase_at(step).window for step in range(first_step, config.total_steps))


def _unstacked(scores_5: Tensor) -> StepScores:
    return StepScores(**dict(zip([field.name for field in dataclasses.fields(StepScores)], scores_5, strict=True)))


def _branch_factors(config: TrainConfig, sam: Sam, step: int, positions: range) -> Tensor | None:
    """Draw the drop path of each image from the step and the image's position alone; float32 [L, 2, B]."""
    if not config.drop_path:
        return None
    depth = len(vit_encoder(sam).blocks)
    draws = [np.random.default_rng([config.batch.seed, step, position, 1]).random((depth, 2)) for position in positions]
    uniform_L2B = torch.tensor(np.stack(draws, -1), dtype=torch.float32, device=sam.device)
    return draw_branch_factors(depth, config.drop_path, uniform_L2B)
