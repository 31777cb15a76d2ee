"""Faults of a dataset, collected one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from storage.errors import StoreError
from storage.tables.delta import one_line

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
        self.found: list[Fault] = []
        self.keys: set[str] = set()

    def note(self, key: str, what: str, advice: str) -> None:
        """Add a fault."""
        self.found.append(Fault(key=key, what=what, advice=advice))
        self.keys.add(key)

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
