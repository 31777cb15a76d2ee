"""The detector's card: a JSON file beside the weights that says what they are, what they read and how sure they are."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

from engine.detector.config import DetectorConfig
from engine.model.sam import Sam

KIND = "detector"
"""Value of the card's field `kind`, by which a detector among a dataset's model versions is told from a SAM."""


@dataclass(frozen=True, kw_only=True)
class DetectorCard:
    """Description of a detector: network, the encoder it reads, training, measurements and threshold."""

    name: str
    """Name of the detector; its id begins with it."""
    config: DetectorConfig
    """Sizes of the network."""
    encoder_id: str
    """Id of the image encoder whose embeddings the detector reads (`encoder_id`)."""
    trained_with: str
    """Id of the SAM whose encoder it was trained with; other SAMs with the same encoder fit, too."""
    score_threshold: float
    """Lowest score of a box that prefills an image, in [0, 1]: on held-out images, four in five boxes of this score and
    more were good (`engine.detector.calibrate`)."""
    training: dict[str, Any]
    """Training data, steps and seed, as JSON values."""
    metrics: dict[str, Any]
    """Measurements of the detector, as JSON values."""
    license: str
    """SPDX identifier of the weights' licence."""
    notes: str
    """Anything else a user should know; free text."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.score_threshold <= 1.0:
            raise ValueError(f"card.score_threshold: got {self.score_threshold}, expected a number in [0, 1]")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with one key per field and the key `kind`."""
        return {"kind": KIND} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> DetectorCard:
        """Read a card from the JSON object that `to_json` returns.

        Raises:
            ValueError: The card is not that of a detector, or a field is missing, unknown or of the wrong type.
        """
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise ValueError('got no card of a detector, expected a JSON object with "kind": "detector"')
        expected = {field.name for field in dataclasses.fields(cls)}
        fields = {name: value for name, value in data.items() if name != "kind"}
        missing, unknown = sorted(expected - set(fields)), sorted(set(fields) - expected)
        if missing or unknown:
            raise ValueError(f"card: missing fields {missing}, unknown fields {unknown}")
        for name, kinds in FIELD_TYPES.items():
            if not isinstance(fields[name], kinds) or isinstance(fields[name], bool):
                raise ValueError(f"card.{name}: got {fields[name]!r}, expected {kinds[0].__name__}")
        return cls(**fields | {"config": DetectorConfig.from_json(fields["config"])})


FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "encoder_id": (str,),
    "trained_with": (str,),
    "score_threshold": (float, int),
    "training": (dict,),
    "metrics": (dict,),
    "license": (str,),
    "notes": (str,),
}


def encoder_id(sam: Sam) -> str:
    """Compute the id of a SAM's image encoder: 16 hex digits of the SHA-256 of its weights as fp16.

    A SAM whose prompt encoder and mask decoder alone were trained further keeps the id, and so its detector.
    """
    digest = hashlib.sha256()
    for name, value in sorted(sam.image_encoder.state_dict().items()):
        stored = value.half() if value.is_floating_point() else value
        digest.update(name.encode())
        digest.update(stored.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
