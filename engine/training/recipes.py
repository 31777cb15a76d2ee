"""Recipes for training a model further: the seed's, and the paper's for the networks of the original release."""

from dataclasses import replace

from engine.model.config import SamConfig, VitConfig
from engine.model.sam import PIXEL_MEAN, PIXEL_STD
from engine.training.batches import BatchConfig
from engine.training.sources import WindowConfig
from engine.training.step import Objective
from engine.training.train import Phase, TrainConfig

LARGE_SCALE_JITTER = (0.1, 2.0)
"""Range of the scale of photos, from Ghiasi et al. 2021. "Segment Anything" (appendix A) uses it for the models of the
first two stages of annotation.
"""
PAPER_RATES = {768: (8e-4, 0.6, 0.6), 1024: (4e-4, 0.8, 0.4), 1280: (8e-4, 0.8, 0.4)}
"""Learning rate, layer decay and drop path of ViT-B, ViT-L and ViT-H, by the width of the network (appendix A)."""
MIN_STEPS, MAX_STEPS, STEPS_PER_MASK = 60, 300, 1.25
"""Least and greatest number of steps of a retraining where nobody gives one, and their number for each new mask."""
DRAWN_FROM = 20_000_000
"""Seed of the batches' random numbers."""


def seed_recipe(sam: SamConfig, steps: int = 300) -> TrainConfig:
    """Make a short version of the seed model's training, to train a network further.

    The training has whole images, few corrections and the Muon optimizer. Photos are scaled to between 0.6 times and
    twice the window. The learning rate is a third of the rate from scratch.
    """
    window = WindowConfig(
        side_px=sam.input_side, zoom=(0.83, 1.3), aspects=(0.667, 0.75, 1.0), large_scale_jitter=(0.6, 2.0)
    )
    return TrainConfig(
        batch=BatchConfig(seed=DRAWN_FROM, prompts=8, pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD),
        phases=(Phase(until_fraction=1.0, window=window, correction_fractions=(0.6, 0.2, 0.12, 0.08)),),
        total_steps=steps,
        batch_size=8,
        learning_rate=3e-4,
        warmup_steps=min(20, steps),
        flat_fraction=0.2,
        last_rate=0.05,
        ema_decay=0.98,
        checkpoint_every_s=60.0,
    )


def retraining_steps(masks: int) -> int:
    """Choose the number of steps of a retraining by the number of new masks: 60 for 48 or fewer, 300 from 240 on.

    On 48 masks of four photos of nuclei, 120 steps taught no more than 60.
    """
    return min(MAX_STEPS, max(MIN_STEPS, round(STEPS_PER_MASK * masks)))


def retraining_recipe(sam: SamConfig, steps: int = MAX_STEPS) -> TrainConfig:
    """Make the training of a promoted model on the masks of new rounds.

    It differs from `seed_recipe` in what a few photos need. The encoder stays as it is, and embeddings with it; batch
    norms keep their statistics. AdamW at a low rate stays near the weights that the model has; Muon takes steps of a
    fixed size in every direction, also in those of which few photos say nothing. Windows are those of the end of the
    seed's training, down to a quarter of a photo, and nine steps in ten have corrections.
    """
    recipe = seed_recipe(sam, steps)
    window = replace(
        recipe.phases[0].window, zoom=(0.83, 1.6), aspects=(0.667, 0.667, 0.75, 1.0), large_scale_jitter=(0.9, 4.0)
    )
    return replace(
        recipe,
        phases=(Phase(until_fraction=1.0, window=window, correction_fractions=(0.1, 0.3, 0.3, 0.3)),),
        batch_size=4,
        learning_rate=3e-4,
        warmup_steps=min(10, steps),
        optimizer="adamw",
        trains_encoder=False,
        keeps_statistics=True,
    )


def paper_recipe(sam: SamConfig, steps: int = 90_000) -> TrainConfig:
    """Make the SAM paper's training (appendix A): AdamW, rate drops, layer decay, drop path, 11 rounds per mask.

    The batch of 256 images is computed in parts of 64 masks. The moving average of the weights is this project's
    addition. Networks other than ViTs have no layer decay and no drop path.
    """
    vit = sam.image_encoder if isinstance(sam.image_encoder, VitConfig) else None
    rate, layer_decay, drop_path = PAPER_RATES.get(vit.width, PAPER_RATES[1280]) if vit else (8e-4, 1.0, 0.0)
    window = WindowConfig(side_px=sam.input_side, zoom=(0.83, 1.3), large_scale_jitter=LARGE_SCALE_JITTER)
    return TrainConfig(
        batch=BatchConfig(
            seed=DRAWN_FROM,
            prompts=64,
            box_fraction=0.5,
            centred_fraction=0.0,
            max_corrections=8,
            colour_jitter=False,
            pixel_mean=PIXEL_MEAN,
            pixel_std=PIXEL_STD,
        ),
        phases=(Phase(until_fraction=1.0, window=window, correction_fractions=(0.0,) * 8 + (1.0,)),),
        total_steps=steps,
        batch_size=256,
        learning_rate=rate,
        warmup_steps=min(250, steps),
        rate_drops_at=(2 / 3, 26 / 27),
        optimizer="adamw",
        layer_decay=layer_decay,
        weight_decay=0.1,
        betas=(0.9, 0.999),
        drop_path=drop_path,
        recomputes_blocks=vit is not None,
        repeats_mask=True,
        objective=Objective(
            idle_mask_fraction=0.0, iou_weight=1.0, single_mask_weight=0.0, corrected_every=1, density_power=0
        ),
        masks_per_device=64,
        ema_decay=0.999,
    )


RECIPES = {"seed": seed_recipe, "retraining": retraining_recipe, "paper": paper_recipe}
