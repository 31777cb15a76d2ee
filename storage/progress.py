"""Progress of upkeep that has several phases, each with its own unit of count."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

OnPhase = Callable[[int, int, str], None]
"""Function that is called now and then with how much is done, of how much, and the unit of both."""

RECORDS = "records folded"
"""Unit of folds."""
_T = TypeVar("_T")


def silent(done: int, total: int, unit: str) -> None:
    """Show no progress."""


def counted(items: Sequence[_T], unit: str, on_progress: OnPhase) -> Iterator[_T]:
    """Yield the items of a phase, and report before each item how many are done."""
    for number, item in enumerate(items):
        on_progress(number, len(items), unit)
        yield item
