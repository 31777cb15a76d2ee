"""Proposers: what makes masks of a whole image without prompts, such as a SAM's generator or a classical method.

`engine.evaluation.automatic` measures them.
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
    """Anything that makes masks without prompts."""

    @property
    def name(self) -> str:
        """Name of the proposer in reports."""

    @property
    def model_id(self) -> str:
        """Exact name: a proposer of another id may make other masks."""

    def propose(self, image_HW3: np.ndarray) -> list[Rle]:
        """Make the masks of an image, uint8 RGB [H, W, 3], most trusted first; there may be none."""


@dataclass(frozen=True, kw_only=True)
class SamProposer(NamedByModel):
    """The automatic generator of a loaded SAM.

    Masks are ranked by the mean of predicted IoU and stability, as for the object proposals of the paper's section 7.3
    (its appendix D).
    """

    config: GenerateConfig = field(default_factory=GenerateConfig)

    def propose(self, image_HW3: np.ndarray) -> list[Rle]:
        """Generate masks and rank them."""
        masks = generate_masks(self.model, image_HW3, self.config).masks
        return [mask.rle for mask in sorted(masks, key=lambda mask: -(mask.predicted_iou + mask.stability_score))]
