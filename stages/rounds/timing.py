"""Active seconds of an annotator, from the times of their inputs.

The gap before an input counts for the mask that the input was made on, up to a cap: who gets coffee is not working.
What of a gap the page was hidden counts nothing. The inputs themselves are stored, so another cap needs no new round.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from storage.workspace.records import Kind, StoredOperation

CAP_S = 10.0
"""Most seconds that a gap between two inputs counts."""


@dataclass(frozen=True, kw_only=True)
class ActiveTime:
    """Active seconds of one annotator on one task."""

    by_mask: Mapping[str, float]
    """Seconds by the name of the mask that the inputs were made on."""
    search_s: float
    """Seconds of inputs that were made on no mask."""
    simulated: bool
    """Whether a time model made the seconds up, instead of a person spending them."""

    @property
    def total_s(self) -> float:
        """All seconds together."""
        return self.search_s + sum(self.by_mask.values())


def active_time(operations: Iterable[StoredOperation], *, cap_s: float = CAP_S) -> ActiveTime:
    """Add up the active seconds of an annotator's line.

    Gaps are taken within a session, in the order in which its page sent the inputs: only one clock is at work there.
    A clock that was set back makes a gap of zero.
    """
    sessions: defaultdict[str, list[StoredOperation]] = defaultdict(list)
    for operation in operations:
        if operation.kind is Kind.ACTIVITY:
            sessions[operation.session].append(operation)
    by_mask: defaultdict[str | None, float] = defaultdict(float)
    for activities in sessions.values():
        ordered = sorted(activities, key=lambda each: each.sequence)
        inputs = [pair for each in ordered for pair in each.payload["inputs"]]
        hidden = [pair for each in ordered for pair in each.payload.get("hidden", ())]
        for (before, _), (at, mask) in pairwise(inputs):
            by_mask[mask] += min(cap_s, _visible_s(before, at, hidden))
    search_s = by_mask.pop(None, 0.0)
    simulated = any(each.payload.get("simulated") for some in sessions.values() for each in some)
    return ActiveTime(
        by_mask={str(mask): seconds for mask, seconds in by_mask.items()}, search_s=search_s, simulated=simulated
    )


def _visible_s(start: float, end: float, hidden: Sequence[Any]) -> float:
    """Return the seconds between two times in which the page was visible; hidden stretches do not overlap."""
    covered = sum(max(0.0, min(end, until) - max(start, since)) for since, until in hidden)
    return float(max(0.0, end - start - covered))
