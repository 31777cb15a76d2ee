"""A detector's weights on disk: the shipped one by name, others by path; loading is strict and checks the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.detector.card import DetectorCard, encoder_id
from engine.detector.find import find_detector
from engine.detector.head import DetectorHead
from engine.model.identity import hash_weights, read_card
from engine.model.weight_files import fill_network, read_safetensors, write_network
from engine.model.weights import Model


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Detector with its weights, in evaluation mode, and its card."""

    detector_id: str
    """Name and first 12 hex digits of the SHA-256 of the weights file, joined by a hyphen."""
    head: DetectorHead
    """Network with its weights loaded."""
    card: DetectorCard
    """Description of the weights."""


def load_detector(name_or_path: str | Path, model: Model) -> Detector:
    """Load a detector by name ("seed-detector") or from a weights file, for use with a SAM.

    Raises:
        ValueError: There is no such detector; its weights are damaged or do not fit; its card is missing or malformed;
            or it reads the embeddings of another image encoder than the SAM's.
    """
    path = find_detector(name_or_path)
    sha256 = hash_weights(path)
    data = read_card(path, sha256)
    try:
        card = DetectorCard.from_json(data)
    except ValueError as error:
        raise ValueError(f"{path.with_suffix('.json')}: {error}") from error
    detector = Detector(
        detector_id=f"{card.name}-{sha256[:12]}",
        head=_build_with(card, path).to(model.sam.device),
        card=card,
    )
    check_fits(detector, model)
    return detector


def check_fits(detector: Detector, model: Model) -> None:
    """Check that a detector reads the embeddings of a SAM's image encoder.

    Raises:
        ValueError: The detector reads the embeddings of another image encoder.
    """
    if detector.card.encoder_id != encoder_id(model.sam):
        raise ValueError(
            f"detector {detector.detector_id} reads the embeddings of {detector.card.trained_with}, and those of "
            f"{model.model_id} come from another image encoder; train one for it with `gigamask train-detector`"
        )


def save_detector(path: str | Path, head: DetectorHead, card: DetectorCard) -> str:
    """Write the weights of `head` and `card` as `<stem>.safetensors` and `<stem>.json`, and return the detector's id.

    Raises:
        ValueError: The configuration in `card` is not that of `head`, `path` does not end in .safetensors, or a weight
            is not finite in fp16.
    """
    if card.config != head.config:
        raise ValueError(f"card {card.name!r}: its config differs from the network's\n  {card.config}\n  {head.config}")
    sha256 = write_network(Path(path), head, card.to_json())
    return f"{card.name}-{sha256[:12]}"


def _build_with(card: DetectorCard, path: Path) -> DetectorHead:
    with torch.device("meta"):
        head = DetectorHead(card.config)
    fill_network(path, head, read_safetensors(path))
    return head.eval()
