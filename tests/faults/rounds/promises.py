"""What clients of a workspace have sent, and what was acknowledged to them, so that it must stay."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sent:
    """An operation as its client sent it."""

    op_id: str
    annotator: str
    task_id: int
    session: str
    sequence: int
    kind: str
    payload_sha256: str

    @classmethod
    def of(cls, row: Mapping[str, Any], **where: Any) -> "Sent":
        """The operation in a row of the database, or in what a client sends."""
        fields = {**row, **where}
        named = {name: fields[name] for name in ("op_id", "annotator", "task_id", "session", "sequence")}
        payload = fields["payload"]
        payload = json.loads(payload) if isinstance(payload, str) else payload
        return cls(**named, kind=str(fields["kind"]), payload_sha256=digest_of_payload(payload))


@dataclass(frozen=True, kw_only=True)
class Promises:
    """What was sent to a workspace, and what it acknowledged."""

    sent: dict[str, Sent] = field(default_factory=dict)
    """By id, every operation that any client has sent; none else may be stored."""
    stored: set[str] = field(default_factory=set)
    """Ids of the operations that were acknowledged."""
    submitted: dict[str, int] = field(default_factory=dict)
    """By token of the lease, the revision of each submission that was acknowledged."""
    claimed: set[str] = field(default_factory=set)
    """Tokens of the leases that were acknowledged."""

    def copy(self) -> "Promises":
        return Promises(
            sent=dict(self.sent), stored=set(self.stored), submitted=dict(self.submitted), claimed=set(self.claimed)
        )

    def add(self, other: "Promises") -> None:
        self.sent.update(other.sent)
        self.stored.update(other.stored)
        self.submitted.update(other.submitted)
        self.claimed.update(other.claimed)

    def send(self, operations: Iterable[Sent]) -> None:
        self.sent.update((each.op_id, each) for each in operations)


def digest_of_payload(payload: Mapping[str, Any]) -> str:
    """Digest of a payload in one form of its JSON."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
