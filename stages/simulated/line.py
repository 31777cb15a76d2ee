"""An annotator's line on one task: operations in their order, sent until they are confirmed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from stages.simulated.client import Client, Refused, uuid7

PASSIVE = ("activity", "note")


class Line:
    """Operations of one annotator on one task.

    Args:
        client: The connection.
        lease: The lease, as the server gave it.
        lost_reply_fraction: Fraction of writes that are sent twice, because the first reply is lost.
        rng: Source of randomness.
    """

    def __init__(
        self, client: Client, lease: Mapping[str, Any], *, lost_reply_fraction: float, rng: np.random.Generator
    ) -> None:
        self._client, self._token = client, str(lease["token"])
        self.task_id, self.revision = int(lease["task_id"]), int(lease["revision"])
        self._session, self._sequence = f"{client.name}-{uuid7()[:13]}", 0
        self._lost_reply_fraction, self._rng = lost_reply_fraction, rng
        self._began = datetime.now(UTC)
        self._waiting: list[dict[str, Any]] = []

    def do(self, kind: str, simulated_s: float, **payload: Any) -> None:
        """Add an operation, made at a simulated second of the task; `send` sends it."""
        operation = {
            "op_id": uuid7(),
            "session": self._session,
            "sequence": self._sequence,
            "base_revision": self.revision,
            "kind": kind,
            "payload": payload,
            "client_time": (self._began + timedelta(seconds=simulated_s)).isoformat(),
        }
        self._sequence += 1
        self.revision += kind not in PASSIVE
        self._waiting.append(operation)

    def send(self) -> None:
        """Send what waits until it is confirmed; work on a branch is merged.

        Raises:
            Refused: The server refuses an operation.
            Stopped: The run ended before the server confirmed.
        """
        if not self._waiting:
            return
        for each in self._waiting:
            facts = {name: each[name] for name in ("op_id", "session", "sequence", "kind")}
            self._client.log.write("sent", task_id=self.task_id, payload_sha256=digest(each["payload"]), **facts)
        body = {"token": self._token, "operations": self._waiting}
        if self._rng.random() < self._lost_reply_fraction:
            self._client.post_and_lose_the_reply("/api/operations", body)
        try:
            stored = self._client.post("/api/operations", body)
        except Refused as refused:
            if refused.code != "stored_on_branch":
                raise
            stored = refused.details
        for op_id in (*stored["stored"], *stored["known"]):
            self._client.log.write("confirmed", op_id=op_id, branch=stored["branch"])
        self._waiting = []
        if stored["branch"]:
            path = f"/api/branches/{stored['branch']}/merge"
            stored = self._client.post(path, {"token": self._token}, task_id=self.task_id)
            self._session, self._sequence = f"{self._client.name}-{uuid7()[:13]}", 0
        self.revision = int(stored["revision"])

    def submit(self) -> None:
        """Send what waits, and submit the task."""
        self.send()
        done = self._client.post("/api/tasks/submit", {"token": self._token, "revision": self.revision})
        facts = {name: done[name] for name in ("submission_id", "masks")}
        self._client.log.write("submitted", task_id=self.task_id, revision=self.revision, **facts)

    def skip(self, reason: str) -> None:
        """Send what waits, and skip the task."""
        self.send()
        self._client.post("/api/tasks/skip", {"token": self._token, "reason": reason})
        self._client.log.write("skipped", task_id=self.task_id)

    def hand_back(self) -> None:
        """Send what waits, and hand the task back."""
        self.send()
        self._client.post("/api/tasks/hand-back", {"token": self._token})
        self._client.log.write("handed_back", task_id=self.task_id)


def digest(payload: Mapping[str, Any]) -> str:
    """Hash a payload in one form of its JSON."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
