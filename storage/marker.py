"""The file dataset.json, which makes a folder or an S3 prefix a dataset, and the upgrade to the present format."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from storage.errors import Conflict, NotFound, StoreError
from storage.formats.documents import FORMAT, json_bytes, read_json
from storage.objects.stores import ObjectStore
from storage.tables.rebuild import rebuild

MARKER = "dataset.json"
"""Key of the marker; the creation of a dataset writes it last."""
_FEATURES: frozenset[str] = frozenset()
"""Features that a dataset may require of its readers in the marker's list `requires`, beyond the format."""


@dataclass(frozen=True, kw_only=True)
class UpgradeReport:
    """Result of an upgrade."""

    before: int
    """Format of the dataset before."""
    after: int
    """Format of the dataset now."""
    records: int
    """Number of commit records in the rebuilt tables; 0 where nothing was to do."""


def put_marker(store: ObjectStore) -> None:
    """Write the marker of a new dataset.

    Raises:
        Conflict: There is one already.
    """
    fields = {"dataset_id": uuid.uuid4().hex, "created_at": datetime.now(UTC).isoformat()}
    marker = json_bytes({**fields, "format": FORMAT, "requires": []})
    try:
        store.put_if_absent(MARKER, marker)
    except Conflict:
        if store.get(MARKER) != marker:  # else it is ours: the reply was lost, and the put was sent again
            raise


def read_marker(store: ObjectStore) -> dict[str, Any]:
    """Read the marker.

    Raises:
        NotFound: There is no dataset.
        StoreError: A newer version wrote the dataset, or the store fails.
        Corrupt: The marker is damaged.
    """
    try:
        data = store.get(MARKER)
    except NotFound as error:
        raise NotFound(f"{store.uri}: no dataset there ({MARKER} is missing); `gigamask ingest` creates one") from error
    fields = read_json(data, "dataset", f"{store.uri}/{MARKER}")
    unknown = sorted(set(fields.get("requires", ())) - _FEATURES)
    if unknown:
        raise StoreError(
            f"{store.uri}: needs {', '.join(unknown)}, which this version does not know; use a newer gigamask"
        )
    return fields


def upgrade(store: ObjectStore) -> UpgradeReport:
    """Rebuild the tables of a dataset of an earlier format, and then state the present format in its marker.

    The new tables have all columns of this version and proofs, and copies of images leave them. Earlier versions of
    gigamask refuse the dataset from then on. Other processes may work on it meanwhile. Calling this again does no harm.

    Raises:
        StoreError: The store fails, or a newer version wrote the dataset.
        Corrupt: A commit record is damaged.
    """
    fields = read_marker(store)
    if fields["format"] == FORMAT:
        return UpgradeReport(before=FORMAT, after=FORMAT, records=0)
    report = rebuild(store)
    store.put(MARKER, json_bytes({**fields, "format": FORMAT, "requires": []}))
    return UpgradeReport(before=fields["format"], after=FORMAT, records=report.records)
