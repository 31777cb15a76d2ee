"""Ways to break the dataset's protocol. The harness must notice each: a check that cannot fail proves nothing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltalake import CommitProperties, DeltaTable

from storage import cleaning, delta, folds
from storage.folds import DoneFold
from storage.stores import LocalStore, ObjectStore


def let_every_commit_win() -> None:
    """A record replaces the one that is there."""
    real = LocalStore.put_if_absent

    def put(self: LocalStore, key: str, data: bytes) -> None:
        if key.startswith("commits/"):
            self.put(key, data)
        else:
            real(self, key, data)

    LocalStore.put_if_absent = put  # type: ignore[method-assign]


def clean_whatever_is_unnamed() -> None:
    """Cleaning does not ask whether an attempt may still win."""
    cleaning._is_beaten = lambda key, winners: key.startswith("data/")


def fold_without_numbers() -> None:
    """A fold is written again by whoever completes it."""

    def change_always(store: ObjectStore, folder: str, name: str, number: int, change: Any) -> int:
        table = delta.open_table(store, folder, name)
        if change is not None:
            change(table, CommitProperties())
        return table.version()

    delta.change_once = change_always


def read_newest_versions() -> None:
    """Readers open the tables as they are, not as the last fold left them."""
    real = folds.newest_done

    def newest(store: ObjectStore) -> DoneFold:
        done = real(store)
        versions = {name: DeltaTable(store.table_uri(done.folder, name)).version() for name in done.versions}
        return DoneFold(number=done.number, folder=done.folder, versions=versions)

    folds.newest_done = newest


def write_in_place() -> None:
    """Files get their names before their bytes."""

    def write(self: LocalStore, key: str, fill: Callable, publish: Callable) -> None:
        path: Path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb" if publish is os.link else "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())

    LocalStore._write = write  # type: ignore[method-assign,assignment]


KINDS: dict[str, Callable[[], None]] = {
    "commits": let_every_commit_win,
    "cleaning": clean_whatever_is_unnamed,
    "folding": fold_without_numbers,
    "reading": read_newest_versions,
    "writing": write_in_place,
}
