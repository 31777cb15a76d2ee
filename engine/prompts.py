"""What a network is asked: points, boxes and masks.

P prompts, K points of a prompt, L side of the decoder's low-resolution masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """P prompts in model-input pixels; every prompt has the same kinds of hints."""

    points_PK2: Tensor
    """(x, y), floating point; K may be 0."""
    labels_PK: Tensor
    """Whole numbers: 1 foreground, 0 background, -1 padding (the point is ignored)."""
    boxes_P4: Tensor | None = None
    """xyxy, floating point."""
    mask_logits_P1LL: Tensor | None = None
    """An earlier answer's low-resolution logits, floating point."""

    def __post_init__(self) -> None:
        count, points = len(self.points_PK2), tuple(self.points_PK2.shape)
        if len(points) != 3 or points[2] != 2 or tuple(self.labels_PK.shape) != points[:2]:
            raise ValueError(
                f"got points {list(points)} and labels {list(self.labels_PK.shape)}, expected [P, K, 2] and [P, K]"
            )
        if self.boxes_P4 is not None and tuple(self.boxes_P4.shape) != (count, 4):
            raise ValueError(f"got boxes {list(self.boxes_P4.shape)}, expected [{count}, 4]: one for each prompt")
        if self.mask_logits_P1LL is not None and tuple(self.mask_logits_P1LL.shape[:2]) != (count, 1):
            raise ValueError(
                f"got mask logits {list(self.mask_logits_P1LL.shape)}, expected [{count}, 1, L, L]: one for each prompt"
            )
        # on a GPU this check would wait for everything queued before it
        if self.labels_PK.device.type == "cpu" and not torch.isin(self.labels_PK, torch.tensor([-1, 0, 1])).all():
            raise ValueError(f"got labels {self.labels_PK.unique().tolist()}, expected only 1, 0 and -1")

    def __len__(self) -> int:
        return len(self.points_PK2)

    def to(self, device: torch.device | str) -> Prompts:
        """The same prompts on another device."""
        return Prompts(
            points_PK2=self.points_PK2.to(device),
            labels_PK=self.labels_PK.to(device),
            boxes_P4=None if self.boxes_P4 is None else self.boxes_P4.to(device),
            mask_logits_P1LL=None if self.mask_logits_P1LL is None else self.mask_logits_P1LL.to(device),
        )
