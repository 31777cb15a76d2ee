"""Weights on disk: named models, safetensors with a card beside them, and checkpoints of the original release.

Our own weights are `<stem>.safetensors` (parameters as fp16, loaded as fp32) beside `<stem>.json`: the card and the
SHA-256 of the weights. Released checkpoints, the original ones and MobileSAM's, are `.pth` and `.pt` files without a
card; they are read as plain tensors, never as code.
Loading is strict: every parameter must be present under its official name, in its shape, and finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.model.card import ModelCard, released_card
from engine.model.config import MOBILE, VIT_B, VIT_H, VIT_L, SamConfig
from engine.model.find import find_weights
from engine.model.identity import ModelIdentity, check_released, hash_weights, model_id_of, read_model_card
from engine.model.released import RELEASED
from engine.model.sam import Sam
from engine.model.weight_files import fill_network, read_safetensors, write_network

ORIGINAL_CONFIGS = {768: VIT_B, 1024: VIT_L, 1280: VIT_H}
"""Networks of the original release, by the width of their image encoder."""
MOBILE_PARAMETER = "image_encoder.patch_embed.seq.0.c.weight"
"""Name of a parameter that only MobileSAM's network has."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Network with its weights, in evaluation mode, and its card."""

    name: str
    """Name of the model, as on its card."""
    model_id: str
    """Name and first 12 hex digits of the SHA-256 of the weights file, joined by a hyphen."""
    sam: Sam
    """Network with its weights loaded."""
    card: ModelCard
    """Description of the weights, with the thresholds of the automatic generator."""

    @property
    def identity(self) -> ModelIdentity:
        """Identity of the model, which `identify_model` reads without the weights."""
        return ModelIdentity(
            model_id=self.model_id,
            predicted_iou_threshold=self.card.predicted_iou_threshold,
            stability_threshold=self.card.stability_threshold,
        )


def load_model(name_or_path: str | Path, *, folder: str | Path | None = None, device: str = "cpu") -> Model:
    """Load a model by name ("seed", "mobile", "vit_b", ...) or from a weights file, in evaluation mode and float32.

    Args:
        folder: models folder, into which `engine.model.released.pull` downloads; None: the default folder.

    Raises:
        ValueError: No model has this name, or the file does not exist. The weights are damaged, do not fit the network
            or are not those that the model card describes. The model card is missing or malformed.
    """
    path, name = find_weights(name_or_path, folder)
    sha256 = hash_weights(path)
    if path.suffix == ".safetensors":
        card = read_model_card(path, sha256)
        state = read_safetensors(path)
    else:
        check_released(name, path, sha256)
        state = _parse_original(path)
        card = released_card(name or path.stem, _released_config(path, state))
    return Model(
        name=card.name,
        model_id=model_id_of(card.name, sha256),
        sam=_build_with(card, path, state).to(device),
        card=card,
    )


def save_model(path: str | Path, sam: Sam, card: ModelCard) -> str:
    """Write the weights of `sam` to one file and `card` to a second file, and return the model_id.

    The files are `<stem>.safetensors` (parameters as fp16, buffers unchanged) and `<stem>.json`. Each
    file appears complete or not at all, and the same weights give the same bytes.

    Raises:
        ValueError: The configuration in `card` is not that of `sam`, `path` does not end in .safetensors, or a weight
            is not finite in fp16.
    """
    if card.config != sam.config:
        raise ValueError(f"card {card.name!r}: its config differs from the network's\n  {card.config}\n  {sam.config}")
    sha256 = write_network(Path(path), sam, card.to_json())
    return model_id_of(card.name, sha256)


def _parse_original(path: Path) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything at all
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise ValueError(f"{path}: not a whole PyTorch checkpoint of plain tensors ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: got {type(state).__name__}, expected a dictionary of names to tensors")
    return state


def _released_config(path: Path, state: Mapping[str, Tensor]) -> SamConfig:
    """Recognise the network of a released checkpoint; a ViT is recognised by the width of its positions."""
    if MOBILE_PARAMETER in state:
        return MOBILE
    positions = state.get("image_encoder.pos_embed")
    width = positions.shape[-1] if positions is not None and positions.ndim else None
    if width not in ORIGINAL_CONFIGS:
        raise ValueError(
            f"{path}: not a checkpoint of {', '.join(RELEASED)}: image_encoder.pos_embed is "
            f"{'missing' if positions is None else list(positions.shape)}"
        )
    return ORIGINAL_CONFIGS[width]


def _build_with(card: ModelCard, path: Path, state: Mapping[str, Tensor]) -> Sam:
    with torch.device("meta"):  # spends no time on random weights that are replaced at once
        sam = Sam(card.config)
    fill_network(path, sam, state)
    return sam.eval()
