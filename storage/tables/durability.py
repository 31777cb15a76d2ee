"""Make the versions of a Delta table durable before a done fold names them, and find what a power cut tore.

The Delta library fsyncs nothing: after a power cut the newest log entries and Parquet files of a table on a local disk
may be empty or gone, although a process has read them. So the process that completes a fold makes every new table
version durable, even those that others wrote, and only then puts the fold's done file. A version that no done file
names yet may be torn; the next fold detects that and takes it back.
"""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from storage.errors import Corrupt, NotFound
from storage.objects.stores import ObjectStore

_CHECKPOINT_EVERY = 10
"""Versions from one checkpoint to the next. A reader replays the log since the last one: with the library's default of
100, that takes 26 ms at version 95."""
_CHECKPOINT = ".checkpoint.parquet"
"""End of a checkpoint's key."""


@dataclass(frozen=True, kw_only=True)
class TableProof:
    """Facts about a version of a table when it was published, to recognise the same version later."""

    rows: int
    """Number of rows in the table."""
    log_sha256: str
    """SHA-256 of the version's log entry, in hex."""


def publish_version(store: ObjectStore, folder: str, name: str, since: int, table: DeltaTable) -> TableProof:
    """Make all versions of a table after `since` durable, up to and including the version of `table`.

    Returns:
        Proof of the version of `table`.

    Raises:
        Corrupt: A file that the log names is missing or is not whole.
        StoreError: The store failed.
    """
    version = table.version()
    if store.needs_sync:
        live = _live_files(table)
        keys = []
        for each in range(since + 1, version + 1):
            added = (key for key, _ in _added(store, folder, name, each))
            keys += [_log_key(folder, name, each)]
            keys += [key for key in added if key.removeprefix(f"{folder}/{name}/") in live]
        store.make_durable(keys)
    # Not before: a checkpoint that outlives its log entry would bring back a version whose files are torn.
    if version // _CHECKPOINT_EVERY > since // _CHECKPOINT_EVERY:
        _put_checkpoint(store, folder, name, version - version % _CHECKPOINT_EVERY)
    return TableProof(rows=table.count(), log_sha256=log_sha256(store, folder, name, version))


def log_sha256(store: ObjectStore, folder: str, name: str, version: int) -> str:
    """Return the SHA-256 of a version's log entry, in hex.

    Raises:
        NotFound: There is no such entry.
    """
    return hashlib.sha256(store.get(_log_key(folder, name, version))).hexdigest()


def torn_files(store: ObjectStore, folder: str, name: str, since: int, table: DeltaTable) -> list[str]:
    """List the keys of the torn files that versions after `since` added to the table."""
    if table.version() == since:
        return []
    live = _live_files(table)
    torn = []
    for version in range(since + 1, table.version() + 1):
        for key, nbytes in _added(store, folder, name, version):
            if key.removeprefix(f"{folder}/{name}/") in live and not is_whole(store, key, nbytes):
                torn.append(key)
    return torn


def remove_torn_log(store: ObjectStore, folder: str, name: str, since: int) -> bool:
    """Delete the log entries of versions after `since` whose text breaks off; return whether any was deleted.

    Only a power cut leaves such an entry. No done fold names the version, so no reader has used it. Each entry is
    checked again once no other process can read or replace it: an entry that a faster process wrote in the meantime
    stays.
    """
    prefix = f"{folder}/{name}/_delta_log/"
    keys = [key for key in store.list(prefix) if key.endswith(".json") and Path(key).stem.isdigit()]
    later = [key for key in keys if int(Path(key).stem) > since]
    torn = [key for key in later if _is_torn_log(store.get(key))]
    removed = [store.remove_torn(key, _is_torn_log) for key in torn]
    return any(removed)


def _is_torn_log(data: bytes) -> bool:
    try:
        _actions(data, "")
    except Corrupt:
        return True
    return False


def _live_files(table: DeltaTable) -> set[str]:
    """Return the paths, relative to the table's folder, of the files whose rows are in the table."""
    return {unquote(path) for path in pa.table(table.get_add_actions())["path"].to_pylist()}


def is_whole(store: ObjectStore, key: str, nbytes: int) -> bool:
    """Whether a table's file has its size and can be read to its end; a file system may leave zeros in the middle."""
    try:
        data = store.get(key)
        if len(data) != nbytes:
            return False
        for group in pq.ParquetFile(pa.BufferReader(data)).iter_batches():
            group.validate()
    except (NotFound, OSError, ValueError, pa.ArrowException):
        return False
    return True


def _added(store: ObjectStore, folder: str, name: str, version: int) -> list[tuple[str, int]]:
    """List key and size of each file that one version added."""
    key = _log_key(folder, name, version)
    actions = _actions(store.get(key), f"{store.uri}/{key}")
    added = [action["add"] for action in actions if "add" in action]
    return [(f"{folder}/{name}/{unquote(each['path'])}", int(each["size"])) for each in added]


def _actions(data: bytes, where: str) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in data.splitlines()]
    except ValueError as error:
        raise Corrupt(f"{where}: a log entry that breaks off ({error}); run `gigamask verify`") from error


def _put_checkpoint(store: ObjectStore, folder: str, name: str, version: int) -> None:
    """Put the checkpoint of a version, whole and durable, then the file that points to it.

    The library would write both in place, and a torn checkpoint makes the table unreadable. So the library makes them
    in a temporary copy of the log since the previous checkpoint, and the store puts them from there.
    """
    prefix = f"{folder}/{name}/_delta_log/"
    checkpoint = f"{prefix}{version:020d}{_CHECKPOINT}"
    earlier = [key for key in store.list(prefix) if key.endswith(_CHECKPOINT) and key <= checkpoint]
    if checkpoint in earlier:
        return

    with tempfile.TemporaryDirectory(prefix="gigamask-checkpoint-") as aside:
        # A copy of the log since the checkpoint before this one
        log = Path(aside) / "_delta_log"
        log.mkdir()
        if earlier:
            _copy(store, earlier[-1], log)
        first = int(Path(earlier[-1]).name.removesuffix(_CHECKPOINT)) if earlier else 0
        for each in range(first, version + 1):
            _copy(store, _log_key(folder, name, each), log)

        # The checkpoint, then the file that points to it
        DeltaTable(aside, version=version).create_checkpoint()
        store.put(checkpoint, (log / Path(checkpoint).name).read_bytes())
        store.put(f"{prefix}_last_checkpoint", (log / "_last_checkpoint").read_bytes())


def _copy(store: ObjectStore, key: str, folder: Path) -> None:
    (folder / key.rpartition("/")[2]).write_bytes(store.get(key))


def _log_key(folder: str, name: str, version: int) -> str:
    return f"{folder}/{name}/_delta_log/{version:020d}.json"
