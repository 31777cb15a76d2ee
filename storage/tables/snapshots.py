"""Snapshots: immutable files that name one done fold, its four table versions and the hash of its commit records."""

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from storage.formats.documents import FORMAT, corrupt_where_malformed, json_bytes, read_json
from storage.objects.stores import Conflict, NotFound, ObjectStore
from storage.tables.folds import DoneFold, table_rows


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One state of a dataset, for ever. `records_sha256`: of the sorted SHA-256 of the commit records in it."""

    snapshot_id: str
    fold: int
    folder: str  # of the tables
    versions: dict[str, int]
    records: int
    records_sha256: str
    created_at: datetime  # UTC

    @property
    def done(self) -> DoneFold:
        return DoneFold(number=self.fold, folder=self.folder, versions=self.versions)


def take_snapshot(store: ObjectStore, done: DoneFold) -> Snapshot:
    """The snapshot of a fold; taken again, it is the same one."""
    rows = table_rows(store, done, "shards", ["record_sha256"])
    hashes = sorted(rows.column("record_sha256").to_pylist())
    digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    snapshot = Snapshot(
        snapshot_id=f"s{done.number:08d}-{digest[:12]}",
        fold=done.number,
        folder=done.folder,
        versions=done.versions,
        records=len(hashes),
        records_sha256=digest,
        created_at=datetime.now(UTC),
    )
    fields = {"format": FORMAT, **asdict(snapshot), "created_at": snapshot.created_at.isoformat()}
    with suppress(Conflict):
        store.put_if_absent(_key(snapshot.snapshot_id), json_bytes(fields))
    return read_snapshot(store, snapshot.snapshot_id)


def read_snapshot(store: ObjectStore, snapshot_id: str) -> Snapshot:
    """Raises NotFound, naming those there are; Corrupt."""
    try:
        data = store.get(_key(snapshot_id))
    except (NotFound, ValueError) as error:
        known = ", ".join(list_snapshots(store)) or "none"
        raise NotFound(f"{store.uri}: no snapshot {snapshot_id!r}; there are: {known}") from error
    where = f"{store.uri}/{_key(snapshot_id)}"
    fields = read_json(data, "snapshot", where)
    with corrupt_where_malformed(where):
        del fields["format"]
        return Snapshot(**{**fields, "created_at": datetime.fromisoformat(fields["created_at"])})


def list_snapshots(store: ObjectStore) -> list[str]:
    """Ids, oldest fold first."""
    return [key.removeprefix("snapshots/").removesuffix(".json") for key in store.list("snapshots/")]


def _key(snapshot_id: str) -> str:
    return f"snapshots/{snapshot_id}.json"
