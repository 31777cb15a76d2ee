"""The model card: a JSON file beside the weights that describes them. Our own weights are never loaded without it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from engine.model.config import SamConfig

RELEASED_PREDICTED_IOU_THRESHOLD = 0.88
"""Lowest predicted IoU by which both releases, that of SAM and that of MobileSAM, filter masks."""
RELEASED_STABILITY_THRESHOLD = 0.95
"""Lowest stability score by which both releases filter masks."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Description of a model: network, training, metrics, and the thresholds for filtering predicted masks."""

    name: str
    """Name of the model; `model_id` begins with it."""
    config: SamConfig
    """Sizes of the network."""
    predicted_iou_threshold: float
    """Lowest predicted IoU of a mask that the automatic generator keeps; in [0, 1]."""
    stability_threshold: float
    """Lowest stability score of a mask that the automatic generator keeps; in [0, 1]."""
    parent: str
    """Identifier (model_id) of the model from which training started; "" if there is none or it is unknown."""
    training: dict[str, Any]
    """Training data, steps and seed, as JSON values."""
    metrics: dict[str, Any]
    """Measurements of the model, as JSON values."""
    license: str
    """SPDX identifier of the weights' licence."""
    notes: str
    """Anything else a user should know; free text."""
    zooms_in: bool = False
    """True if prompts are also decoded in windows of the image (`engine.interactive.zoom`)."""

    def __post_init__(self) -> None:
        for name in ("predicted_iou_threshold", "stability_threshold"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"card.{name}: got {getattr(self, name)}, expected a number in [0, 1]")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with one key per field."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {"config": self.config.to_json()}

    @classmethod
    def from_json(cls, data: Any) -> ModelCard:
        """Read a card from the JSON object that `to_json` returns.

        Raises:
            ValueError: A field is missing, unknown or of the wrong type.
        """
        expected = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict):
            raise ValueError(f"card: got {type(data).__name__}, expected an object with {sorted(expected)}")
        if "kind" in data:
            raise ValueError(f"got the card of a {data['kind']}, expected that of a SAM, which makes masks")
        data = {"zooms_in": False} | data
        missing, unknown = sorted(expected - set(data)), sorted(set(data) - expected)
        if missing or unknown:
            raise ValueError(f"card: missing fields {missing}, unknown fields {unknown}")
        for name, types in FIELD_TYPES.items():
            if not isinstance(data[name], types) or (isinstance(data[name], bool) and bool not in types):
                raise ValueError(f"card.{name}: got {data[name]!r}, expected {' or '.join(t.__name__ for t in types)}")
        return cls(**data | {"config": SamConfig.from_json(data["config"])})


FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "predicted_iou_threshold": (float, int),
    "stability_threshold": (float, int),
    "parent": (str,),
    "training": (dict,),
    "metrics": (dict,),
    "license": (str,),
    "notes": (str,),
    "zooms_in": (bool,),
}


def released_card(name: str, config: SamConfig) -> ModelCard:
    """Make the card of a network released by the authors of SAM or MobileSAM."""
    return ModelCard(
        name=name,
        config=config,
        predicted_iou_threshold=RELEASED_PREDICTED_IOU_THRESHOLD,
        stability_threshold=RELEASED_STABILITY_THRESHOLD,
        parent="",
        training={},
        metrics={},
        license="Apache-2.0",
        notes='Network of "Segment Anything" (Kirillov et al. 2023) or MobileSAM (Zhang et al. 2023), as released.',
    )
