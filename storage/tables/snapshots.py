"""Snapshots: immutable files that name one done fold, its table versions and the hash of its commit records."""

import hashlib
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from storage.errors import Conflict, Corrupt, NotFound
from storage.formats.documents import FORMAT, corrupt_where_malformed, json_bytes, read_json
from storage.objects.stores import ObjectStore
from storage.tables import durability
from storage.tables.delta import open_table
from storage.tables.durability import TableProof
from storage.tables.fold_log import DoneFold, read_proofs, table_rows

_SNAPSHOT_KEY = re.compile(r"snapshots/[A-Za-z0-9_-]+\.json")
_ADVICE = "restore tables/ from a copy, or take a new snapshot after `gigamask rebuild`"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A named state of a dataset; the state never changes."""

    snapshot_id: str
    """Id of the snapshot: the fold's number and the beginning of `records_sha256`."""
    fold: int
    """Number of the done fold."""
    folder: str
    """Folder of the tables."""
    versions: dict[str, int]
    """Version of each table, by name."""
    records: int
    """Number of commit records in the tables."""
    records_sha256: str
    """SHA-256, in hex, over the sorted SHA-256 of these records."""
    created_at: datetime
    """Time of creation, UTC."""
    proofs: dict[str, TableProof] = field(default_factory=dict)
    """Proof of each version, by table name; empty if an earlier format wrote the snapshot."""

    @property
    def done(self) -> DoneFold:
        """The done fold whose tables the snapshot names."""
        return DoneFold(number=self.fold, folder=self.folder, versions=self.versions, proofs=self.proofs)


def take_snapshot(store: ObjectStore, done: DoneFold) -> Snapshot:
    """Take the snapshot of a done fold. For the same fold, the same snapshot is returned.

    A fold of an earlier format has no proofs; then those of its tables as they are now go into the snapshot.
    """
    records, digest = _records_digest(store, done)
    proofs = done.proofs or {name: _proof(store, done, name) for name in done.versions}
    snapshot = Snapshot(
        snapshot_id=f"s{done.number:08d}-{digest[:12]}",
        fold=done.number,
        folder=done.folder,
        versions=done.versions,
        proofs=proofs,
        records=records,
        records_sha256=digest,
        created_at=datetime.now(UTC),
    )
    fields = {"format": FORMAT, **asdict(snapshot), "created_at": snapshot.created_at.isoformat()}
    with suppress(Conflict):
        store.put_if_absent(_key(snapshot.snapshot_id), json_bytes(fields))
    return read_snapshot(store, snapshot.snapshot_id)


def read_snapshot(store: ObjectStore, snapshot_id: str) -> Snapshot:
    """Read a snapshot.

    Raises:
        NotFound: There is no such snapshot; the message names the existing snapshots.
        Corrupt: The file of the snapshot is damaged.
    """
    try:
        data = store.get(_key(snapshot_id))
    except (NotFound, ValueError) as error:
        known = ", ".join(list_snapshots(store)) or "none"
        raise NotFound(f"{store.uri}: no snapshot {snapshot_id!r}; there are: {known}") from error
    where = f"{store.uri}/{_key(snapshot_id)}"
    fields = read_json(data, "snapshot", where)
    with corrupt_where_malformed(where):
        del fields["format"]
        created_at = datetime.fromisoformat(fields["created_at"])
        return Snapshot(**{**fields, "created_at": created_at, "proofs": read_proofs(fields)})


def prove(store: ObjectStore, snapshot: Snapshot) -> None:
    """Check that the tables of a snapshot have not changed since it was taken.

    Compared are the log entry and the number of rows of each table, and the hashes of the commit records in `shards`.

    Raises:
        Corrupt: A table has another log entry or another number of rows, or other records are in `shards`.
    """
    where = f"{store.uri}: snapshot {snapshot.snapshot_id}"
    for name, proof in snapshot.proofs.items():
        version = snapshot.versions[name]
        try:
            log_sha256 = durability.log_sha256(store, snapshot.folder, name, version)
        except NotFound as error:
            raise Corrupt(f"{where}: table {name} lost its version {version}; {_ADVICE}") from error
        rows = open_table(store, snapshot.folder, name, version).count()
        if (log_sha256, rows) != (proof.log_sha256, proof.rows):
            raise Corrupt(f"{where}: table {name} has {rows} rows, {proof.rows} expected, or another log; {_ADVICE}")
    records, digest = _records_digest(store, snapshot.done)
    if (records, digest) != (snapshot.records, snapshot.records_sha256):
        raise Corrupt(f"{where}: {records} records are in its tables, {snapshot.records} expected; {_ADVICE}")


def _proof(store: ObjectStore, done: DoneFold, name: str) -> TableProof:
    table = open_table(store, done.folder, name, done.versions[name])
    return durability.publish_version(store, done.folder, name, -1, table)


def list_snapshots(store: ObjectStore) -> list[str]:
    """List the ids of the snapshots, the oldest fold first.

    Other files below snapshots/ are skipped; `verify` reports such files.
    """
    keys = [key for key in store.list("snapshots/") if is_snapshot_key(key)]
    return [key.removeprefix("snapshots/").removesuffix(".json") for key in keys]


def is_snapshot_key(key: str) -> bool:
    """Whether a key is that of a snapshot."""
    return _SNAPSHOT_KEY.fullmatch(key) is not None


def _records_digest(store: ObjectStore, done: DoneFold) -> tuple[int, str]:
    """Return the number of commit records in the tables, and one SHA-256 over the sorted SHA-256 of these records."""
    rows = table_rows(store, done, "shards", ["record_sha256"])
    hashes = sorted(rows.column("record_sha256").to_pylist())
    return len(hashes), hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _key(snapshot_id: str) -> str:
    return f"snapshots/{snapshot_id}.json"
