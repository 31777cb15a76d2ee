"""Rounds, operations and masks for tests of the workspace."""

import itertools
import os
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from storage import rle
from storage.rle import Rle
from storage.workspace.masks import mask_to_json
from storage.workspace.records import GivenMask, Kind, Operation, Round, RoundSpec, TaskSpec
from storage.workspace.workspace import Workspace

HEIGHT, WIDTH = 12, 16


def rectangle(x: int = 2, y: int = 3, width: int = 5, height: int = 4) -> Rle:
    """A rectangle in an image of HEIGHT x WIDTH."""
    mask_HW = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask_HW[y : y + height, x : x + width] = True
    return rle.encode(mask_HW)


def open_round(
    workspace: Workspace,
    images: int = 3,
    *,
    overlap: int = 1,
    prefill: int = 0,
    stage: str = "assisted_manual",
    first: int = 1,
    priority: int = 0,
) -> Round:
    """Open a round over small images, each with `prefill` prefilled masks p0, p1, ..."""
    given = tuple(
        GivenMask(mask=f"p{number}", rle=rectangle(x=number), model_id="seed-1", predicted_iou=0.9)
        for number in range(prefill)
    )
    tasks = tuple(
        TaskSpec(image_id=image, height=HEIGHT, width=WIDTH, overlap=overlap, prefill=given)
        for image in range(first, first + images)
    )
    return workspace.rounds.open(RoundSpec(stage=stage, tasks=tasks, priority=priority))


def uuid7() -> str:
    """A UUID of version 7: milliseconds, then random bits."""
    value = (int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | (7 << 76)
    return str(uuid.UUID(int=value & ~(0x3 << 62) | (0x2 << 62)))


def operation(
    kind: str, payload: Mapping[str, Any] | None = None, *, base: int = 0, session: str = "page", sequence: int = 0
) -> Operation:
    """An operation on the revision `base`."""
    return Operation(
        op_id=uuid7(),
        session=session,
        sequence=sequence,
        base_revision=base,
        kind=Kind(kind),
        payload=payload or {},
        client_time=datetime.now(UTC),
    )


def made(name: str, mask: Rle | None = None, **more: Any) -> dict[str, Any]:
    """The payload of an operation that adds or changes a mask."""
    return {"mask": name, "rle": mask_to_json(mask or rectangle()), **more}


class Page:
    """A page that counts revisions as a client does, and remembers all it sent."""

    def __init__(self, base: int = 0, session: str = "page") -> None:
        self.base, self.session, self.sent = base, session, list[Operation]()
        self._numbers = itertools.count()

    def __call__(self, kind: str, payload: Mapping[str, Any] | None = None) -> Operation:
        """Make the next operation."""
        each = operation(kind, payload, base=self.base, session=self.session, sequence=next(self._numbers))
        self.base += kind not in ("activity", "note")
        self.sent.append(each)
        return each
