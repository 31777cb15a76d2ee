"""Faults of a dataset, collected one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from storage.errors import StoreError
from storage.tables.delta import one_line

RESTORE = "restore it from a copy"
"""Advice for a file of which there is only one."""
_LONGEST = 500
"""Characters of a fault's text; a hostile file may make an error's message as long as it likes."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Finding that a stored object or a table is not as its record states."""

    key: str
    """The object, record or table."""
    what: str
    advice: str


class Faults:
    """Faults found so far. Every error that a check meets becomes a fault here."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.noted = 0
        """How often a fault was added, the same one again included."""
        self._found: dict[Fault, None] = {}  # each once: a table that cannot be read fails check after check

    @property
    def found(self) -> tuple[Fault, ...]:
        """All faults, in the order in which they were found."""
        return tuple(self._found)

    def note(self, key: str, what: str, advice: str) -> None:
        """Add a fault."""
        self.add(Fault(key=key, what=what, advice=advice))

    def add(self, fault: Fault) -> None:
        """Add a fault that another check has found."""
        self._found[fault] = None
        self.noted += 1
        self.keys.add(fault.key)

    @contextmanager
    def guard(self, key: str, advice: str) -> Iterator[None]:
        """Turn any exception from a check of the object `key` into a fault.

        All exceptions are caught, because damaged or hostile bytes may raise any of them.
        """
        try:
            yield
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # a panic of the Delta library is no Exception
            text = one_line(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {one_line(error)}"
            self.note(key, text[:_LONGEST], advice)
