"""The mask decoder asked for many points of one photograph: the function of `Sam.decode`, less work.

P points, M = 3 masks of a point, K masks wanted, R x C rows and columns of a mask, L = 4 E side of a whole one.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from engine.model.sam import Sam
from engine.prompts import Prompts

DecoderKind = Literal["grid", "plain"]


class Answer(Protocol):
    """What is known before any mask is drawn."""

    @property
    def iou_PM(self) -> Tensor:
        """Predicted IoU of every mask."""


class PointDecoder(Protocol):
    """Asks single foreground points of one photograph."""

    low_side: int
    """Side of a whole low-resolution mask (L)."""

    def ask(self, points_P2: Tensor) -> Any:
        """The `Answer` for points in model-input pixels."""

    def draw(self, answer: Any, wanted_PM: Tensor, needed_hw: tuple[int, int]) -> Tensor:
        """Logits [K, R, C] of the masks wanted (bool), point by point; R and C at least as needed."""


def make_point_decoder(kind: DecoderKind, sam: Sam, embeddings_1CEE: Tensor) -> PointDecoder:
    """A decoder of one photograph's embedding."""
    if kind == "plain":
        return PlainDecoder(sam, embeddings_1CEE)
    raise ValueError(f"got decoder {kind!r}, expected 'grid' or 'plain'")


class PlainDecoder:
    """`Sam.decode` with everything drawn at once: the specification."""

    def __init__(self, sam: Sam, embeddings_1CEE: Tensor) -> None:
        self.low_side = sam.config.logits_side
        self._sam, self._embeddings_1CEE = sam, embeddings_1CEE

    def ask(self, points_P2: Tensor) -> Any:
        points_P12 = points_P2[:, None].to(self._embeddings_1CEE.device)
        labels_P1 = torch.ones(points_P12.shape[:2], dtype=torch.int64, device=points_P12.device)
        return self._sam.decode(self._embeddings_1CEE, Prompts(points_PK2=points_P12, labels_PK=labels_P1))

    def draw(self, answer: Any, wanted_PM: Tensor, needed_hw: tuple[int, int]) -> Tensor:
        rows, columns = needed_hw
        return answer.logits_PMLL[wanted_PM.to(answer.logits_PMLL.device)][:, :rows, :columns]
