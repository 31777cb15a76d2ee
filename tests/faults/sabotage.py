"""Ways to break the dataset's protocol. The harness must notice each: a check that cannot fail proves nothing.

Each takes a `patch` that is called like `setattr`; a test gives one that is undone.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from storage.objects.local import LocalStore
from storage.objects.stores import ObjectStore
from storage.protocol import cleaning, commits, redo
from storage.protocol.commits import Commit
from storage.protocol.inputs import ShardAddress
from storage.tables import delta, fold_log
from storage.tables.fold_log import DoneFold
from tests.faults.every_step import CLEANED_BESIDE, CUT_OFF, KILLED, OVERTAKEN
from tests.faults.power import POWER_CUT

Patch = Callable[[Any, str, Any], None]


def let_every_commit_win(patch: Patch) -> None:
    """A record replaces the one that is there."""
    real = LocalStore.put_if_absent

    def put(self: LocalStore, key: str, data: bytes) -> None:
        if key.startswith("commits/"):
            self.put(key, data)
        else:
            real(self, key, data)

    patch(LocalStore, "put_if_absent", put)


def clean_whatever_is_unnamed(patch: Patch) -> None:
    """Cleaning does not ask whether an attempt may still win."""
    patch(cleaning, "_has_lost", lambda key, winners: key.startswith("data/"))


def clean_older_generations(patch: Patch) -> None:
    """Cleaning keeps what the newest records name, and forgets that snapshots hold older ones."""

    def newest(store: ObjectStore, plan_id: str = "") -> Sequence[ShardAddress]:
        return commits.newest_generations(commits.list_commits(store, plan_id))

    def has_lost(key: str, winners: dict[tuple[str, str, int], str]) -> bool:
        return tuple(key.split("/")[1:3]) in {place[:2] for place in winners}

    patch(cleaning, "list_commits", newest)
    patch(cleaning, "_has_lost", has_lost)


def fold_without_numbers(patch: Patch) -> None:
    """A fold is written again by whoever completes it."""

    def change_always(store: ObjectStore, folder: str, name: str, number: int, change: Any, **_: Any) -> int:
        table = delta.open_table(store, folder, name)
        if change is not None:
            change(table, delta.CommitProperties())  # type: ignore[attr-defined]
        return table.version()

    patch(delta, "change_once", change_always)


def read_newest_versions(patch: Patch) -> None:
    """Readers open the tables as they are, not as the last fold left them."""
    real = fold_log.newest_done

    def newest(store: ObjectStore) -> DoneFold:
        done = real(store)
        versions = {name: DeltaTable(store.table_uri(done.folder, name)).version() for name in done.versions}
        return DoneFold(number=done.number, folder=done.folder, versions=versions)

    patch(fold_log, "newest_done", newest)


def redo_whatever_is_there(patch: Patch) -> None:
    """A redo does not name the record it replaces."""

    def nameless(store: ObjectStore, names: Sequence[ShardAddress]) -> list[Commit]:
        return [replace(record, record_sha256="") for record in commits.read_commits(store, names)]

    patch(redo, "read_commits", nameless)


def write_in_place(patch: Patch) -> None:
    """Files get their names before their bytes."""

    def write(self: LocalStore, key: str, fill: Callable[..., Any], publish: Callable[..., Any]) -> None:
        path: Path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb" if publish is os.link else "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())

    patch(LocalStore, "_write", write)


def publish_what_is_not_durable(patch: Patch) -> None:
    """A fold is done before what its tables consist of is on the disk."""
    patch(LocalStore, "make_durable", lambda self, keys: None)


@dataclass(frozen=True, kw_only=True)
class Sabotage:
    """`job` and `how` it is struck: what of every_step.py shows it."""

    install: Callable[[Patch], None]
    job: str
    how: str


KINDS = {
    "commits": Sabotage(install=let_every_commit_win, job="write masks", how=OVERTAKEN),
    "cleaning": Sabotage(install=clean_whatever_is_unnamed, job="write masks", how=CLEANED_BESIDE),
    "generations": Sabotage(install=clean_older_generations, job="fold a newer generation", how=KILLED),
    "folding": Sabotage(install=fold_without_numbers, job="fold new shards", how=KILLED),
    "reading": Sabotage(install=read_newest_versions, job="fold new shards", how=KILLED),
    "redoing": Sabotage(install=redo_whatever_is_there, job="plan", how=KILLED),
    "durability": Sabotage(install=publish_what_is_not_durable, job="snapshot", how=POWER_CUT),
    "writing": Sabotage(install=write_in_place, job="fold new shards", how=CUT_OFF),
}
