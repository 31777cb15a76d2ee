"""Proposers: objects that make masks of a whole image without prompts, such as a SAM's mask generator.

`engine.evaluation.automatic` measures their masks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from engine.automatic.config import GenerateConfig
from engine.automatic.generate import generate_masks
from engine.interactive.segment import NamedByModel
from storage.rle import Rle


class Proposer(Protocol):
    """Anything that makes masks of a whole image without prompts."""

    @property
    def name(self) -> str:
        """Name of the proposer in reports."""

    @property
    def model_id(self) -> str:
        """Id of the exact model; a proposer with another id may make other masks."""

    def propose(self, image_HW3: np.ndarray) -> list[Rle]:
        """Return the masks of an image (uint8 RGB [H, W, 3]), the most trusted mask first; the list may be empty."""


@dataclass(frozen=True, kw_only=True)
class SamProposer(NamedByModel):
    """The automatic mask generator of a loaded SAM, with ranked masks.

    A mask ranks by the mean of two values: the mask's predicted IoU and the mask's stability. "Segment Anything" ranks
    object proposals in the same way (section 7.3 and appendix D).
    """

    config: GenerateConfig = field(default_factory=GenerateConfig)

    def propose(self, image_HW3: np.ndarray) -> list[Rle]:
        """Generate the masks of an image (uint8 RGB [H, W, 3]), and return them with the highest rank first."""
        masks = generate_masks(self.model, image_HW3, self.config).masks
        return [mask.rle for mask in sorted(masks, key=lambda mask: -(mask.predicted_iou + mask.stability_score))]
