"""Annotators as the harness plays them: pages that count revisions, and masks that are made without the product."""

import itertools
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from pycocotools import mask as coco

from storage.workspace.records import AppendResult, Kind, Operation
from storage.workspace.workspace import Workspace
from tests.faults import truth
from tests.faults.rounds.promises import Promises, Sent

_numbers = itertools.count(1000)


def drawing(mask_HW: np.ndarray) -> dict[str, Any]:
    """A mask as COCO's compressed object."""
    encoded = coco.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    return {"size": list(map(int, encoded["size"])), "counts": encoded["counts"].decode()}


def made(name: str, number: int, ordinal: int = 0, **more: Any) -> dict[str, Any]:
    """The payload of an operation that adds or changes a mask: the pixels follow from two numbers."""
    mask_HW = truth.mask_HW(number, ordinal, 1000)
    return {"mask": name, "rle": drawing(mask_HW), "model_id": "seed-1", "clicks": 1, **more}


def uuid7() -> str:
    """A UUID of version 7."""
    value = (int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | (7 << 76)
    return str(uuid.UUID(int=value & ~(0x3 << 62) | (0x2 << 62)))


class Page:
    """An annotator's page on one task: makes operations, and remembers what was acknowledged.

    `clock_off_by`: by how much the client's clock is wrong.
    """

    def __init__(
        self,
        annotator: str,
        task_id: int,
        token: str,
        revision: int,
        promises: Promises,
        clock_off_by: timedelta = timedelta(0),
    ) -> None:
        self.annotator, self.task_id, self.token, self.revision = annotator, task_id, token, revision
        self.promises, self.clock_off_by = promises, clock_off_by
        self.renew()

    def renew(self) -> None:
        """Goes on under a new session name, as after hearing of a branch."""
        self.session, self.sequences = f"{self.annotator}-{uuid7()}", itertools.count()

    def make(self, kind: str, payload: Mapping[str, Any] | None = None) -> Operation:
        """The next operation of the page."""
        operation = Operation(
            op_id=uuid7(),
            session=self.session,
            sequence=next(self.sequences),
            base_revision=self.revision,
            kind=Kind(kind),
            payload=payload or {},
            client_time=datetime.now(UTC) + self.clock_off_by,
        )
        self.revision += kind not in ("activity", "note")
        self.promises.send([Sent.of(vars(operation), annotator=self.annotator, task_id=self.task_id)])
        return operation

    def send(self, workspace: Workspace, operations: Sequence[Operation]) -> AppendResult:
        """Sends operations, and remembers that they were acknowledged."""
        result = workspace.operations.append(self.token, operations)
        self.promises.stored.update({*result.stored, *result.known})
        return result

    def draw(self, workspace: Workspace, masks: int) -> None:
        """Makes so many masks, and a record of the time that they took."""
        names = [next(_numbers) for _ in range(masks)]
        self.send(workspace, [self.make("add", made(f"m{number}", number)) for number in names])
        inputs: list[Any] = [[0.0, None], *([2.0 + index, f"m{number}"] for index, number in enumerate(names))]
        self.send(workspace, [self.make("activity", {"inputs": inputs})])

    def submit(self, workspace: Workspace) -> None:
        submission = workspace.submissions.submit(self.token, self.revision)
        self.promises.submitted[self.token] = submission.revision


def claim(workspace: Workspace, annotator: str, promises: Promises, round_id: str | None = None) -> Page | None:
    """A page on the next task of an annotator; None where no task is left."""
    leases = workspace.leases.claim(annotator, round_id=round_id)
    if not leases:
        return None
    (lease,) = leases
    promises.claimed.add(lease.token)
    return Page(annotator, lease.task.task_id, lease.token, lease.revision, promises)
