"""Hand-overs between the steps of a flow: what a step made of what, written once, so that the step is not done again.

handovers/<first 24 digits of the key's SHA-256>.json
"""

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from storage.errors import Conflict, Corrupt, NotFound
from storage.formats.documents import FORMAT, corrupt_where_malformed, json_bytes, read_json
from storage.objects.stores import ObjectStore

_KEY = re.compile(r"handovers/[0-9a-f]{24}\.json")


@dataclass(frozen=True, kw_only=True)
class Handover:
    """Result of one step of a flow."""

    key: str
    """Name of the step and of what it worked on: `<kind>:<snapshot>:<model>`, and a hash of its settings."""
    result: Mapping[str, object]
    """What the step made, as JSON values."""
    made_at: datetime
    """Time by the clock of the machine that wrote it, UTC."""


class Handovers:
    """The hand-overs of one dataset; `dataset.handovers` is an instance."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, key: str) -> Handover | None:
        """Find the result of a step; None where the step was not finished yet.

        Raises:
            Corrupt: The file is damaged, or belongs to another step.
        """
        place = _place(key)
        try:
            data = self._store.get(place)
        except NotFound:
            return None
        where = f"{self._store.uri}/{place}"
        fields = read_json(data, "handover", where)
        if fields["key"] != key:
            raise Corrupt(f"{where}: is the hand-over {fields['key']!r}, expected {key!r}; restore it from a copy")
        with corrupt_where_malformed(where):
            made_at = datetime.fromisoformat(fields["made_at"])
        return Handover(key=key, result=fields["result"], made_at=made_at)

    def record(self, key: str, result: Mapping[str, object]) -> Handover:
        """Record the result of a step, and return the stored one: another process may have been faster.

        Raises:
            StoreError: The store fails.
        """
        fields = {"format": FORMAT, "key": key, "result": result, "made_at": datetime.now(UTC).isoformat()}
        with suppress(Conflict):
            self._store.put_if_absent(_place(key), json_bytes(fields))
        found = self.find(key)
        assert found is not None, "it was put or was there"
        return found


def is_handover_key(key: str) -> bool:
    """Whether a key is that of a hand-over."""
    return _KEY.fullmatch(key) is not None


def _place(key: str) -> str:
    return f"handovers/{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
