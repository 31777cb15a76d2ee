"""Releases that were made of a dataset, so that who takes an image down learns which of them hold it.

releases/<release_id>.images         ids of the images, int64 little-endian, sorted
releases/<release_id>.<place>.json   one record for each folder: id, snapshot, counts, folder and time, hash of the ids
"""

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np

from storage.errors import Conflict, Corrupt, NotFound
from storage.formats.documents import FORMAT, corrupt_where_malformed, json_bytes, read_json
from storage.objects.stores import ObjectStore

_KEY = re.compile(r"releases/[0-9a-f]{16}\.(?:[0-9a-f]{8}\.json|images)")


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release of a dataset in one folder."""

    release_id: str
    """Id of the release, 16 hex digits; equal ids mean equal bytes."""
    snapshot_id: str
    """Id of the snapshot that it was made of."""
    title: str
    images: int
    """Number of images."""
    masks: int
    """Number of masks."""
    out: str
    """Folder that it is written to."""
    images_sha256: str
    """SHA-256 of the ids of its images as they are stored, in hex."""
    made_at: datetime
    """Time by the clock of the machine that wrote it, UTC."""


class Releases:
    """The releases of one dataset; `dataset.releases` is an instance."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def record(
        self, release_id: str, image_ids_N: np.ndarray, *, snapshot_id: str, title: str, masks: int, out: str
    ) -> Release:
        """Record a release, before its first file is written, and return the stored record: it may be there already.

        Args:
            release_id: Id of the release.
            image_ids_N: Ids of its images, int64 [N], in any order.
            snapshot_id: Id of its snapshot.
            title: Title of the release.
            masks: Number of its masks.
            out: Folder that it is written to.

        Raises:
            StoreError: The store fails.
        """
        ids = np.sort(image_ids_N).astype("<i8").tobytes()
        release = Release(
            release_id=release_id,
            snapshot_id=snapshot_id,
            title=title,
            images=len(image_ids_N),
            masks=masks,
            out=out,
            images_sha256=hashlib.sha256(ids).hexdigest(),
            made_at=datetime.now(UTC),
        )
        fields = {"format": FORMAT, **asdict(release), "made_at": release.made_at.isoformat()}
        place = f"releases/{release_id}.{hashlib.sha256(out.encode()).hexdigest()[:8]}.json"
        for key, data in ((_key_of_ids(release_id), ids), (place, json_bytes(fields))):
            with suppress(Conflict):
                self._store.put_if_absent(key, data)
        return self._get(place)

    def read_all(self) -> list[Release]:
        """Read the records of all releases, oldest first.

        Raises:
            Corrupt: A record is damaged.
        """
        keys = [key for key in self._store.list("releases/") if is_release_key(key) and key.endswith(".json")]
        releases = [self._get(key) for key in keys]
        return sorted(releases, key=lambda release: (release.made_at, release.release_id))

    def image_ids(self, release: Release) -> np.ndarray:
        """Read the ids of a release's images, int64 [N], sorted.

        Raises:
            Corrupt: The ids are missing, or not those that were recorded.
        """
        key = _key_of_ids(release.release_id)
        try:
            data = self._store.get(key)
        except NotFound:
            data = b""
        if hashlib.sha256(data).hexdigest() != release.images_sha256:
            raise Corrupt(
                f"{self._store.uri}/{key}: not the ids of the {release.images} images of release "
                f"{release.release_id}; restore it from a copy, or look into the release's own index"
            )
        return np.frombuffer(data, "<i8").astype(np.int64)

    def with_images(self, image_ids: Iterable[int]) -> list[tuple[Release, int]]:
        """Find the releases that hold any of these images, each with the number that it holds, oldest first.

        Raises:
            Corrupt: A record or the ids of a release are damaged.
        """
        wanted = np.array(sorted(set(image_ids)), np.int64)
        counts = ((each, int(np.isin(wanted, self.image_ids(each)).sum())) for each in self.read_all())
        return [(release, count) for release, count in counts if count]

    def _get(self, key: str) -> Release:
        where = f"{self._store.uri}/{key}"
        fields = read_json(self._store.get(key), "release", where)
        del fields["format"]
        with corrupt_where_malformed(where):
            return Release(**{**fields, "made_at": datetime.fromisoformat(fields["made_at"])})


def is_release_key(key: str) -> bool:
    """Whether a key is that of a release's record or of the ids of its images."""
    return _KEY.fullmatch(key) is not None


def _key_of_ids(release_id: str) -> str:
    return f"releases/{release_id}.images"
