"""Probe for put-if-absent, on which the whole commit protocol rests.

It is made when a dataset is created, and before a process first writes to a dataset at a place where it was not made
yet, as after a copy to another disk or server. Sixteen writers race, several times: some servers refuse a second put
that comes later, yet let several racing puts all succeed. A sound store may lose an answer; a race that leaves it open
who won is repeated.
"""

import hashlib
import json
import threading
import uuid

from storage.errors import Conflict, NotFound, StoreError
from storage.objects.stores import ObjectStore, open_store

_WRITERS = 16
"""Number of writers in a race."""
_ROUNDS = 3
"""Number of races that must have one winner."""
_REPEATS = 5
"""Most races without a clear result that are repeated."""


def probe(store: ObjectStore) -> None:
    """Check that put-if-absent lets exactly one of several racing writers win, and note in the store that it does.

    Raises:
        StoreError: Nothing can be written, two writers won a race, or answers keep getting lost.
    """
    clear = unclear = 0
    while clear < _ROUNDS:
        key = f"folds/probe-{uuid.uuid4().hex}"
        try:
            lost = _race(store, key)
        finally:
            store.delete(key)
        if lost is None:
            clear += 1
        elif (unclear := unclear + 1) > _REPEATS:
            raise StoreError(
                f"{store.uri}: {unclear} of {clear + unclear} races of {_WRITERS} writers had no clear winner, because "
                f"answers got lost ({lost}); check the network and run the same command again"
            )
    store.put(_note_key(store), json.dumps({"put_if_absent": "works", "place": store.place}).encode())


def probe_before_first_put(store: ObjectStore) -> None:
    """Have put-if-absent probed before this process first needs it, if it was not probed at this place yet."""
    store.check_before_first_put(_Probe(store.uri))


class _Probe:
    """The probe of a store by its address: through a store of its own, which has no check."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __call__(self) -> None:
        store = open_store(self._uri)
        try:
            store.head(_note_key(store))
        except NotFound:
            probe(store)


def _note_key(store: ObjectStore) -> str:
    return f"probes/{hashlib.sha256(store.place.encode()).hexdigest()[:32]}.json"


def _race(store: ObjectStore, key: str) -> StoreError | None:
    """Let all writers put one object at the same moment, and check that one of them won.

    Returns:
        None if one won; where answers got lost, so that it is open who won, the error of one of them.

    Raises:
        StoreError: Nothing can be written, or two writers won.
    """
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

    # Its result; a client that repeats a put whose answer was lost meets its own object, and nobody has won
    if len(failures) == _WRITERS:
        raise failures[0]
    if len(won) > 1 or (won and store.get(key) != won[0]):
        raise StoreError(
            f"{store.uri}: of {_WRITERS} writers of one object {len(won)} were told they created it, expected 1; "
            "this storage has no working put-if-absent and cannot hold a dataset"
        )
    if failures:
        return failures[0]
    return None if won else StoreError("each writer was told that another one was faster")
