"""Identity of a model, read from its file without torch: its id and the thresholds of the automatic generator."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.model.card import RELEASED_PREDICTED_IOU_THRESHOLD, RELEASED_STABILITY_THRESHOLD, ModelCard
from engine.model.find import find_weights
from engine.model.released import RELEASED


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What a plan of masks records of a model."""

    model_id: str
    """Name and first 12 hex digits of the SHA-256 of the weights file, joined by a hyphen."""
    predicted_iou_threshold: float
    """Lowest predicted IoU of a mask that the automatic generator keeps; in [0, 1]."""
    stability_threshold: float
    """Lowest stability score of a mask that the automatic generator keeps; in [0, 1]."""


def identify_model(name_or_path: str | Path, *, folder: str | Path | None = None) -> ModelIdentity:
    """Read the identity of a model by name or from a weights file; the network is not built.

    Args:
        folder: models folder, into which `engine.model.released.pull` downloads; None: the default folder.

    Raises:
        ValueError: No model has this name, or the file does not exist. The weights are not those that the model card or
            the release describes. The model card is missing or malformed.
    """
    path, name = find_weights(name_or_path, folder)
    sha256 = hash_weights(path)
    if path.suffix == ".safetensors":
        card = read_model_card(path, sha256)
        return ModelIdentity(
            model_id=model_id_of(card.name, sha256),
            predicted_iou_threshold=card.predicted_iou_threshold,
            stability_threshold=card.stability_threshold,
        )
    check_released(name, path, sha256)
    return ModelIdentity(
        model_id=model_id_of(name or path.stem, sha256),
        predicted_iou_threshold=RELEASED_PREDICTED_IOU_THRESHOLD,
        stability_threshold=RELEASED_STABILITY_THRESHOLD,
    )


def model_id_of(name: str, sha256: str) -> str:
    """Compose a model's id from its name and the SHA-256 of its weights file."""
    return f"{name}-{sha256[:12]}"


def hash_weights(path: Path) -> str:
    """Compute the SHA-256 of a weights file.

    Raises:
        ValueError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: the weights cannot be read ({error.strerror})") from error


def read_model_card(weights_path: Path, weights_sha256: str) -> ModelCard:
    """Read the card beside the weights of a SAM.

    Raises:
        ValueError: The card is missing, malformed, or is that of other weights.
    """
    data = read_card(weights_path, weights_sha256)
    try:
        return ModelCard.from_json(data)
    except ValueError as error:
        raise ValueError(f"{weights_path.with_suffix('.json')}: {error}") from error


def read_card(weights_path: Path, weights_sha256: str) -> Any:
    """Read the card beside a weights file as JSON, without the SHA-256 of the weights.

    Raises:
        ValueError: The card is missing, is not JSON, or is that of other weights.
    """
    path = weights_path.with_suffix(".json")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: {weights_path.name} is only loaded with its card beside it") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: the card is not JSON ({error})") from error
    expected_sha256 = data.pop("weights_sha256", None) if isinstance(data, dict) else weights_sha256
    if expected_sha256 != weights_sha256:
        raise ValueError(
            f"{weights_path}: its SHA-256 is {weights_sha256}, its card says {expected_sha256}; "
            "the weights are damaged or another model's: copy both files again"
        )
    return data


def check_released(name: str, path: Path, sha256: str) -> None:
    """Check that a weights file is the released one of its name; a file without a released name is not checked.

    Raises:
        ValueError: It is another file.
    """
    if name in RELEASED and sha256 != RELEASED[name].sha256:
        raise ValueError(
            f"{path}: its SHA-256 is {sha256}, that of the released {name} is {RELEASED[name].sha256}; "
            f"the file is damaged: remove it and run `gigamask models pull {name}`"
        )
