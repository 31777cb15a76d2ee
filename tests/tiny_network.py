"""A tiny network of random weights for the tests of several packages."""

from pathlib import Path

import torch

from engine.model.card import ModelCard
from engine.model.config import SamConfig, VitConfig
from engine.model.sam import build_sam
from engine.model.weights import save_model

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


def save_tiny_model(folder: Path) -> Path:
    """Weights of a network that masks a photograph in milliseconds; its thresholds let every mask pass."""
    torch.manual_seed(0)
    card = ModelCard(
        name="tiny",
        config=TINY,
        predicted_iou_threshold=0.0,
        stability_threshold=0.0,
        parent="",
        training={},
        metrics={},
        license="CC0-1.0",
        notes="random weights",
    )
    save_model(folder / "tiny.safetensors", build_sam(TINY), card)
    return folder / "tiny.safetensors"
