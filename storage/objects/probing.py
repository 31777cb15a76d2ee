"""Probe for put-if-absent, on which the whole commit protocol rests; it is made once, when a dataset is created.

Sixteen writers race, several times: some servers refuse a second put that comes later, yet let several racing puts all
succeed.
"""

import threading
import uuid

from storage.errors import Conflict, StoreError
from storage.objects.stores import ObjectStore

_WRITERS = 16
"""Number of writers in a race."""
_ROUNDS = 3
"""Number of races."""


def probe(store: ObjectStore) -> None:
    """Check that put-if-absent lets exactly one of several racing writers win.

    Raises:
        StoreError: Nothing can be written, or not exactly one writer won.
    """
    for _ in range(_ROUNDS):
        key = f"folds/probe-{uuid.uuid4().hex}"
        try:
            _race(store, key)
        finally:
            store.delete(key)


def _race(store: ObjectStore, key: str) -> None:
    """Let all writers put one object at the same moment, and check that one of them won."""
    names = [f"writer {number}".encode() for number in range(_WRITERS)]
    won: list[bytes] = []
    failures: list[StoreError] = []
    start = threading.Barrier(_WRITERS)

    def write(name: bytes) -> None:
        start.wait()
        try:
            store.put_if_absent(key, name)
            won.append(name)
        except Conflict:
            pass
        except StoreError as error:
            failures.append(error)

    # The race
    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Its result
    if failures:
        raise failures[0]
    if len(won) != 1 or store.get(key) != won[0]:
        raise StoreError(
            f"{store.uri}: of {_WRITERS} writers of one object {len(won)} were told they created it, expected 1; "
            "this storage has no working put-if-absent and cannot hold a dataset"
        )
