"""Finding files below the folders of the tables that nothing can ever name, and removing them.

A killed or overtaken fold leaves Parquet files that no version of a table names, an abandoned rebuild a whole folder.
Age tells nothing, because a writer may stand still for a week; so such files are told from those of live writers by
what the writers must do before anybody reads their files:

- A fold writes its files, then the log entry of the version after the one that it opened, and never any other version.
  So the files are listed first, then an empty version is written (the fence). Who had written a listed file before the
  fence can write no version after it, so a listed file that no version names then stays unnamed for ever.
- A rebuild claims its folder before it publishes it; cleaning claims it before it deletes. The first claim counts.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from urllib.parse import unquote

from deltalake import CommitProperties
from deltalake.exceptions import CommitFailedError, DeltaError

from storage.errors import Conflict, NotFound, StoreError
from storage.objects.stores import ObjectStore
from storage.progress import OnPhase, counted, silent
from storage.tables import delta
from storage.tables.columns import SCHEMAS
from storage.tables.fold_log import fold_number, is_done_key, read_done
from storage.tables.snapshots import list_snapshots, read_snapshot

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"tables(-[0-9]{8}-[0-9a-f]{8})?")
_LOG_ENTRY = re.compile(r"_delta_log/([0-9]{20})\.json")
_LEFT_BEHIND = re.compile(r"[^/]+\.parquet(#[0-9]+)?|_delta_log/([0-9]{20}\.json#[0-9]+|_commit_[^/]+\.json\.tmp)")
"""Files that a writer of the Delta library leaves when it dies: data, and what is renamed in the end."""
_REBUILD, _CLEANING = b"rebuild", b"cleaning"
_TRIES = 20
"""Most attempts to write a fence while folds write the same table."""

BeforeStep = Callable[[str], None]


def find_orphans(
    store: ObjectStore,
    *,
    delete: bool,
    before_step: BeforeStep = lambda step: None,
    on_progress: OnPhase = silent,
) -> dict[str, int]:
    """Find the files of tables that nothing names and nothing can come to name.

    Without `delete` they include those that a fold or a rebuild is writing at this moment.

    Args:
        store: The store of the dataset.
        delete: Whether to delete the files; otherwise they are only reported, and nothing is written.
        before_step: Function that is called with the name of each step before the step; tests stop it there.
        on_progress: Function that is called now and then with how much is done.

    Returns:
        Size of each file, by key.
    """
    keys_by_folder: dict[str, list[str]] = {}
    for key in store.list("tables"):
        folder = key.partition("/")[0]
        if _FOLDER.fullmatch(folder):
            keys_by_folder.setdefault(folder, []).append(key)

    published = _published_folders(store)
    if published is None:
        return {}
    orphans: list[str] = []
    for folder, keys in keys_by_folder.items():
        if folder in published:
            orphans += [key for name in SCHEMAS for key in _unnamed(store, folder, name, keys, delete, before_step)]
        else:
            orphans += _abandoned(store, folder, keys, delete, before_step)

    sizes = {key: _nbytes(store, key) for key in counted(orphans, "table files measured", on_progress)}
    if delete:
        for key in counted(orphans, "table files deleted", on_progress):
            before_step("delete")
            store.delete(key)
    return sizes


def claim_to_publish(store: ObjectStore, folder: str) -> None:
    """Claim the folder of new tables for their rebuild, before they are published.

    Raises:
        StoreError: Cleaning took the folder for abandoned and has deleted it.
    """
    if _claim(store, folder, _REBUILD) != _REBUILD:
        raise StoreError(
            f"{store.uri}/{folder}: `gigamask gc` deleted these unpublished tables; run `gigamask rebuild` again, and "
            "no gc beside it"
        )


def _claim(store: ObjectStore, folder: str, owner: bytes) -> bytes:
    """Claim an unpublished folder, and return who has it."""
    with suppress(Conflict):
        store.put_if_absent(f"{folder}/claim", owner)
    return store.get(f"{folder}/claim")


def _published_folders(store: ObjectStore) -> set[str] | None:
    """Return the folders that done folds and snapshots name; None where one of these files cannot be read."""
    try:
        numbers = {fold_number(key) for key in store.list("folds/") if is_done_key(key)}
        folders = {read_done(store, number).folder for number in numbers if number is not None}
        return folders | {read_snapshot(store, each).folder for each in list_snapshots(store)}
    except StoreError as error:
        logger.warning("gc: files of tables stay, because it is not known which folders are in use: %s", error)
        return None


def _abandoned(
    store: ObjectStore, folder: str, keys: Iterable[str], delete: bool, before_step: BeforeStep
) -> list[str]:
    """List the files of a folder that was never published, if none can publish it any more.

    The claim itself stays, so that a rebuild that stood still finds it.
    """
    claim = f"{folder}/claim"
    files = [key for key in keys if key != claim]
    if not delete:
        try:
            return [] if store.get(claim) == _REBUILD else files
        except NotFound:
            return files
    before_step("claim")
    if _claim(store, folder, _CLEANING) != _CLEANING:
        return []
    before_step("look again")
    published = _published_folders(store)
    return [] if published is None or folder in published else files


def _unnamed(
    store: ObjectStore, folder: str, name: str, keys: Iterable[str], delete: bool, before_step: BeforeStep
) -> list[str]:
    """List the files of a published table, among `keys`, that no version names and, with `delete`, none can name."""
    start = f"{folder}/{name}/"
    files = {key.removeprefix(start): key for key in keys if key.startswith(start)}
    suspects = {path: key for path, key in files.items() if _LEFT_BEHIND.fullmatch(path)}
    named = _named_files(store, start)
    if named is None or suspects.keys() <= named:
        return []
    if delete:
        before_step("fence")
        _put_fence(store, folder, name)
        before_step("read the log again")
        named = _named_files(store, start)
    return [] if named is None else [key for path, key in suspects.items() if path not in named]


def _named_files(store: ObjectStore, start: str) -> set[str] | None:
    """Return the files that a table's versions ever named; None where an entry of its log is missing or damaged."""
    found = {}
    for key in store.list(f"{start}_delta_log/"):
        entry = _LOG_ENTRY.fullmatch(key.removeprefix(start))
        if entry:
            found[int(entry[1])] = key
    if sorted(found) != list(range(len(found))):
        return None
    named: set[str] = set()
    for key in found.values():
        try:
            named |= {unquote(path) for path in _paths(store.get(key))}
        except (NotFound, ValueError, AttributeError, KeyError, TypeError):
            return None
    return named


def _paths(entry: bytes) -> Iterable[str]:
    actions: list[Mapping[str, Mapping[str, str]]] = [json.loads(line) for line in entry.splitlines()]
    return [action[kind]["path"] for action in actions for kind in ("add", "remove") if kind in action]


def _put_fence(store: ObjectStore, folder: str, name: str) -> None:
    """Write a version that changes nothing. Who opened an earlier version can write none any more.

    Raises:
        StoreError: The version could not be written.
    """
    where, once = f"{store.uri}/{folder}/{name}", CommitProperties(max_commit_retries=0)
    for _ in range(_TRIES):
        table = delta.open_table(store, folder, name)
        try:
            table.create_write_transaction([], "append", table.schema(), [], commit_properties=once)
        except CommitFailedError:
            continue  # a fold was faster
        except (DeltaError, OSError) as error:
            where = f"{store.uri}/{folder}/{name}"
            raise StoreError(
                f"{where}: nothing can be written ({delta.one_line(error)}); no file was deleted"
            ) from error
        fence = f"{folder}/{name}/_delta_log/{table.version() + 1:020d}.json"
        store.make_durable([fence])
        return
    raise StoreError(
        f"{store.uri}/{folder}/{name}: folds keep writing it; no file was deleted, run `gigamask gc` again"
    )


def _nbytes(store: ObjectStore, key: str) -> int:
    try:
        return store.head(key).nbytes
    except NotFound:
        return 0
