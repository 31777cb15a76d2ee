"""Turns at a plan: of two commands that would make the same shards, the second waits until the first has ended.

Turns only save work: commit records keep apart what two processes make, with and without them. A turn is a lock of the
operating system on the plan's own file. It ends with the process that has it, also when that is killed. Where there are
no such locks (S3, some file systems) nobody waits, and work may be done twice.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from storage.objects.local import LocalStore
from storage.objects.stores import ObjectStore
from storage.protocol.plans import Plan


@contextmanager
def turn_at(store: ObjectStore, plan: Plan, on_wait: Callable[[], None]) -> Iterator[None]:
    """Have the turn at a plan for the length of a `with` block.

    Args:
        store: Store of the dataset.
        plan: Plan that is stored there.
        on_wait: Function that is called once if another process has the turn, before waiting for its end.
    """
    if not isinstance(store, LocalStore):
        yield
        return
    path = store.root / "plans" / f"{plan.plan_id}.json"
    file = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)  # NFS locks only files open to write
    try:
        with suppress(OSError):  # no locks here
            _lock(file, on_wait)
        yield
    finally:
        os.close(file)


def _lock(file: int, on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(file, fcntl.LOCK_EX)
