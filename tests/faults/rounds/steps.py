"""Steps of a worker at a workspace: the moments at which it may be struck.

A step is the moment before each statement of the database, before and after each commit, and before each write of the
dataset's store.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

from storage.dataset import Dataset
from tests.faults.processes import STORE_WRITES, SteppedStore

_step: Callable[[], None] = lambda: None  # noqa: E731 - of this process: a worker sets its own


def count_steps(step: Callable[[], None]) -> None:
    """Has `step` called at each step of this process; a worker calls this once."""
    global _step
    _step = step
    event.listen(Engine, "before_cursor_execute", lambda *_: step())
    commit: Callable[..., None] = DefaultDialect.do_commit

    def commit_between_steps(self: DefaultDialect, connection: Any) -> None:
        step()
        commit(self, connection)
        step()

    DefaultDialect.do_commit = commit_between_steps  # type: ignore[method-assign]


def open_dataset(root: Path) -> Dataset:
    """A dataset whose writes are steps of this process."""
    dataset = Dataset.open(root)
    dataset.store = SteppedStore(dataset.store, _step, STORE_WRITES)
    return dataset
