"""Where a dataset's bytes lie: one small protocol, and the folder of a local disk behind it.

Keys are relative paths with "/" between their parts. An object appears whole or not at all, and nothing that was ever
readable changes, with one exception: `put` may replace. The dataset itself only ever replaces nothing (see commits.py).
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """Size of a stored object in bytes."""

    nbytes: int


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """What a writer that died left of an object it never completed. `handle` is the store's own name for it."""

    key: str
    handle: str


class ObjectStore(Protocol):
    """Objects by key. Every method raises StoreError (or its kinds) where the store refuses or fails."""

    uri: str

    def get(self, key: str) -> bytes:
        """All bytes. Raises NotFound."""

    def get_range(self, key: str, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` from `offset` on. Raises NotFound, Corrupt where the object is shorter."""

    def open(self, key: str) -> BinaryIO:
        """A stream of the bytes, for large objects; the caller closes it. Raises NotFound."""

    def write(self, key: str, fill: Callable[[BinaryIO], object]) -> ObjectInfo:
        """Writes the object that `fill` writes to the file it is given, durable once this returns."""

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Writes an object, durable once this returns."""

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """Writes a local file's bytes as an object, durable once this returns."""

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Creates a small object; of several writers exactly one succeeds, the others get Conflict."""

    def head(self, key: str) -> ObjectInfo:
        """Raises NotFound."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with the prefix, ascending."""

    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""

    def unfinished(self) -> Iterator[Unfinished]:
        """Half-written objects, of live writers too."""

    def remove_unfinished(self, unfinished: Unfinished) -> None:
        """Removes one; its writer, if it lives, will fail."""

    def make_durable(self, keys: Iterable[str]) -> None:
        """Brings objects that another program wrote, and their names, onto the disk. Raises NotFound."""

    def make_names_durable(self, keys: Iterable[str]) -> None:
        """Brings the names of objects onto the disk: of such whose bytes are there already."""

    def table_uri(self, folder: str, name: str) -> str:
        """Address of a Delta table in a folder of this store."""

    def table_options(self) -> dict[str, str]:
        """Storage options the Delta library needs for `table_uri`."""


def open_store(uri: str | Path) -> ObjectStore:
    """The store behind a folder's path, a `file://` or an `s3://bucket/prefix` address. Raises ValueError."""
    text = os.fspath(uri)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme in ("", "file"):
        from storage.objects.local import LocalStore

        return LocalStore(Path(unquote(urlsplit(text).path)) if scheme else Path(text))
    if scheme == "s3":
        from storage.objects.s3 import S3Store  # boto3 is loaded only where it is used

        return S3Store(text)
    raise ValueError(f"dataset address {text}: scheme {scheme!r} is not known; use a folder or s3://bucket/prefix")


def sha256_of(store: ObjectStore, key: str) -> str:
    """SHA-256 of a stored object in hex, read back piece by piece. Raises NotFound."""
    digest = hashlib.sha256()
    with store.open(key) as stream:
        while piece := stream.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
