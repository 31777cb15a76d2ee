"""Whatever makes masks of a whole image on its own, behind one interface: a SAM's generator, a classical method.

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
    """Makes masks without being asked for any object."""

    @property
    def name(self) -> str:
        """Names it in reports."""

    @property
    def model_id(self) -> str:
        """Names it exactly: another id may make other masks."""

    def propose(self, image_HW3: np.ndarray) -> list[Rle]:
        """The masks of a photograph, uint8 RGB [H, W, 3], those it trusts most first; there may be none."""


@dataclass(frozen=True, kw_only=True)
class SamProposer(NamedByModel):
    """The automatic generator of a loaded SAM.

    Masks are ranked by the mean of predicted IoU and stability, as for the object proposals of the paper's section 7.3
    (its appendix D).
    """

    config: GenerateConfig = field(default_factory=GenerateConfig)

    def propose(self, image_HW3: np.ndarray) -> list[Rle]:
        """See `Proposer`."""
        masks = generate_masks(self.model, image_HW3, self.config).masks
        return [mask.rle for mask in sorted(masks, key=lambda mask: -(mask.predicted_iou + mask.stability_score))]
