"""Faults of a release, counted by their kind."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault: how often it was found, and where first."""

    kind: str
    count: int
    first: str
    """Place and description of the first one."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.count}, the first: {self.first}"


class Faults:
    """Collection of faults; of each kind only the first is kept in words."""

    def __init__(self) -> None:
        self._found: dict[str, Fault] = {}

    def add(self, kind: str, what: str) -> None:
        """Count a fault."""
        before = self._found.get(kind)
        first, count = (before.first, before.count + 1) if before else (what, 1)
        self._found[kind] = Fault(kind=kind, count=count, first=first)

    def compare(self, what: str, stated: object, found: object) -> None:
        """Count a fault where something is stated that is not so."""
        if stated != found:
            self.add("wrong count", f"{what}: {stated} stated, {found} found")

    def found(self) -> tuple[Fault, ...]:
        """Return what was found, by kind."""
        return tuple(self._found.values())
