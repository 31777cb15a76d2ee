"""Does put-if-absent hold here? Asked once, when a dataset is created: everything else rests on it.

Sixteen writers race, several times: servers exist that refuse a second put that comes later, and let several racing
ones all win.
"""

import threading
import uuid

from storage.errors import Conflict, StoreError
from storage.objects.stores import ObjectStore

_WRITERS = 16
_ROUNDS = 3


def probe(store: ObjectStore) -> None:
    """Raises StoreError where nothing can be written, or where put-if-absent lets other than one writer win."""
    for _ in range(_ROUNDS):
        key = f"folds/probe-{uuid.uuid4().hex}"
        try:
            _race(store, key)
        finally:
            store.delete(key)


def _race(store: ObjectStore, key: str) -> None:
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

    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    if len(won) != 1 or store.get(key) != won[0]:
        raise StoreError(
            f"{store.uri}: of {_WRITERS} writers of one object {len(won)} were told they created it, expected 1; "
            "this storage has no working put-if-absent and cannot hold a dataset"
        )
