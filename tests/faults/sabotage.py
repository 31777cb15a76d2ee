"""Ways to break the dataset's protocol. The harness must notice each: a check that cannot fail proves nothing.

Each takes a `patch` that is called like `setattr`; a test gives one that is undone.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from storage.errors import Conflict
from storage.objects import local
from storage.objects.local import LocalStore
from storage.objects.stores import ObjectStore
from storage.protocol import cleaning, commits, plans, redo
from storage.protocol.commits import Commit
from storage.protocol.inputs import ShardAddress
from storage.tables import contents, delta, erasing, fold_log, folds, rebuild
from storage.tables.fold_log import DoneFold
from storage.verification import verify
from storage.verification.faults import Faults
from storage.verification.table_checks import TableChecks
from tests.faults.kinds.damage import ROWS_DAMAGED
from tests.faults.kinds.erasures import ERASED_MEANWHILE, ERASER_KILLED, LATE
from tests.faults.kinds.every_step import CLEANED_BESIDE, CUT_OFF, KILLED, OVERTAKEN
from tests.faults.kinds.planted import FOREIGN_FILES, POISONED
from tests.faults.kinds.power import POWER_CUT
from tests.faults.kinds.replies import REPLY_LOST
from tests.faults.kinds.thaws import REBUILT_BESIDE, THAWED
from tests.faults.kinds.two_plans import TWO_PLANS

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


def take_a_lost_reply_for_a_rival(patch: Patch) -> None:
    """Whoever is told that its record is there already believes that another attempt has won."""
    real = commits.put_commit

    def put(store: ObjectStore, commit: Commit) -> Commit:
        try:
            store.put_if_absent(commit.address.key, commits.commit_to_json(commit))
        except Conflict:
            return replace(commits.read_commit(store, commit.address), attempt_id="another")
        return real(store, commit)

    patch(commits, "put_commit", put)


def delete_tables_after_a_lost_reply(patch: Patch) -> None:
    """A rebuild that is told that its done fold is there deletes what it has built."""

    def put(store: ObjectStore, done: DoneFold) -> None:
        try:
            fold_log.put_done(store, done)
        except Conflict:
            for key in list(store.list(f"{done.folder}/")):
                store.delete(key)

    patch(rebuild, "put_done", put)


def rebuild_without_catching_up(patch: Patch) -> None:
    """A rebuild publishes without the records that others folded meanwhile."""
    patch(rebuild, "_follow", lambda store, built, records, number: (built, records))
    patch(rebuild, "_catch_up", lambda store, built, records: (built, records))


def publish_over_another_fold(patch: Patch) -> None:
    """A done fold replaces the one that is there."""
    real = LocalStore.put_if_absent

    def put(self: LocalStore, key: str, data: bytes) -> None:
        if key.endswith(".done.json"):
            self.put(key, data)
        else:
            real(self, key, data)

    patch(LocalStore, "put_if_absent", put)


def fold_every_copy(patch: Patch) -> None:
    """Every copy of an image is folded."""
    for module in (folds, rebuild):
        patch(module, "find_duplicates", lambda *_: {})


def read_every_file_as_a_plan(patch: Patch) -> None:
    """A stranger's file below plans/ is read."""
    patch(plans, "is_plan_key", lambda key: True)


def pass_over_strangers_files(patch: Patch) -> None:
    """`verify` does not name a stranger's files."""
    patch(verify, "_check_names", lambda store, faults: None)


def fold_what_cannot_be_read(patch: Patch) -> None:
    """No record is set aside."""
    patch(contents, "have_rows", lambda store, some: {commit.address for commit in some})


def set_aside_in_silence(patch: Patch) -> None:
    """`verify` does not look at the objects of records."""

    def look_at_nothing(store: ObjectStore, threads: Any, parts: Any, *, fast: bool) -> Any:
        return ((part, Faults(), None) for part in parts)

    patch(verify, "check_parts", look_at_nothing)


def pass_over_foreign_rows(patch: Patch) -> None:
    """`verify` does not name rows of which there is no record."""
    real = TableChecks._note

    def note(self: TableChecks, name: str, what: str) -> None:
        if "no record names it" not in what:
            real(self, name, what)

    patch(TableChecks, "_note", note)


def flush_no_folder(patch: Patch) -> None:
    """The bytes of a file are flushed to the disk, its name is not."""
    real = local._sync
    patch(local, "_sync", lambda path: None if path.is_dir() else real(path))


def fold_late_masks_of_erased_images(patch: Patch) -> None:
    """A fold takes what was committed after an erasure as it is."""
    patch(erasing, "name_late", lambda store, commits: False)


def overwrite_before_the_record(patch: Patch) -> None:
    """An erasure overwrites what it has found, and only then says so."""
    real = commits.Attempt.commit

    def commit(self: commits.Attempt, **fields: Any) -> Commit:
        for each in fields.get("erased", ()):
            self.store.overwrite_with_zeros(each.key, each.ranges)
        return real(self, **fields)

    patch(commits.Attempt, "commit", commit)


@dataclass(frozen=True, kw_only=True)
class Sabotage:
    """A break of the protocol, and the cases that show it.

    `job` and `how`: what is struck, and how. `template`: what the cases start from, where it is not that of the job.
    """

    install: Callable[[Patch], None]
    job: str
    how: str
    template: str = ""


KINDS = {
    "commits": Sabotage(install=let_every_commit_win, job="write masks", how=OVERTAKEN),
    "cleaning": Sabotage(install=clean_whatever_is_unnamed, job="write masks", how=CLEANED_BESIDE),
    "generations": Sabotage(install=clean_older_generations, job="fold a newer generation", how=KILLED),
    "folding": Sabotage(install=fold_without_numbers, job="fold new shards", how=KILLED),
    "reading": Sabotage(install=read_newest_versions, job="fold new shards", how=KILLED),
    "redoing": Sabotage(install=redo_whatever_is_there, job="plan", how=KILLED),
    "durability": Sabotage(install=publish_what_is_not_durable, job="snapshot", how=POWER_CUT),
    "names": Sabotage(install=flush_no_folder, job="write masks", how=POWER_CUT),
    "lost replies": Sabotage(
        install=take_a_lost_reply_for_a_rival,
        job="write masks: commit record",
        how=REPLY_LOST,
        template="write masks",
    ),
    "lost replies of rebuilds": Sabotage(
        install=delete_tables_after_a_lost_reply, job="rebuild: done fold", how=REPLY_LOST, template="rebuild"
    ),
    "rebuilding": Sabotage(install=rebuild_without_catching_up, job="rebuild", how=REBUILT_BESIDE),
    "publishing": Sabotage(install=publish_over_another_fold, job="fold new shards", how=THAWED),
    "copies": Sabotage(install=fold_every_copy, job="same photos, other settings", how=TWO_PLANS, template="plan"),
    "strangers' files": Sabotage(install=read_every_file_as_a_plan, job="plan", how=FOREIGN_FILES),
    "naming strangers' files": Sabotage(install=pass_over_strangers_files, job="plan", how=FOREIGN_FILES),
    "setting aside": Sabotage(install=fold_what_cannot_be_read, job="fold new shards", how=POISONED),
    "naming what is set aside": Sabotage(install=set_aside_in_silence, job="fold new shards", how=POISONED),
    "foreign rows": Sabotage(
        install=pass_over_foreign_rows, job="masks: rows foreign", how=ROWS_DAMAGED, template="plan"
    ),
    "erasing late masks": Sabotage(install=fold_late_masks_of_erased_images, job=LATE, how=ERASED_MEANWHILE),
    "recording before erasing": Sabotage(install=overwrite_before_the_record, job="erase", how=ERASER_KILLED),
    "writing": Sabotage(install=write_in_place, job="fold new shards", how=CUT_OFF),
}
