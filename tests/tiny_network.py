"""Tiny networks with random weights, and their cards, for the tests of several packages."""

from pathlib import Path

import torch

from engine.model.card import ModelCard
from engine.model.config import SamConfig, VitConfig
from engine.model.sam import build_sam
from engine.model.weights import Model, save_model

TINY = SamConfig(
    image_encoder=VitConfig(width=16, depth=1, heads=2, global_blocks=(0,), window_side=4),
    input_side=64,
    embedding_stride=16,
    width=16,
    mask_prompt_channels=4,
    decoder_heads=2,
    decoder_mlp_width=16,
    iou_head_width=16,
)


def tiny_card(
    config: SamConfig = TINY,
    *,
    predicted_iou_threshold: float = 0.0,
    stability_threshold: float = 0.0,
    zooms_in: bool = False,
) -> ModelCard:
    """Make the card of a network with random weights; by default its thresholds let every mask pass."""
    return ModelCard(
        name="tiny",
        config=config,
        predicted_iou_threshold=predicted_iou_threshold,
        stability_threshold=stability_threshold,
        parent="",
        training={},
        metrics={},
        license="CC0-1.0",
        notes="random weights",
        zooms_in=zooms_in,
    )


def tiny_model(*, zooms_in: bool) -> Model:
    """Make a model with random weights and SAM's usual windows of attention, small enough for a test."""
    encoder = VitConfig(width=32, depth=1, heads=2, global_blocks=(0,))
    config = SamConfig(image_encoder=encoder, input_side=128, width=32, decoder_heads=4, decoder_mlp_width=64)
    torch.manual_seed(0)
    card = tiny_card(config, predicted_iou_threshold=0.5, stability_threshold=0.5, zooms_in=zooms_in)
    return Model(name="tiny", model_id="tiny-000000000000", sam=build_sam(config), card=card)


def save_tiny_model(folder: Path) -> Path:
    """Save a network that masks an image in milliseconds, with thresholds that let every mask pass."""
    torch.manual_seed(0)
    save_model(folder / "tiny.safetensors", build_sam(TINY), tiny_card())
    return folder / "tiny.safetensors"
