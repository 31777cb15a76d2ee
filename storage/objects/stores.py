"""The interface of every store of a dataset's bytes, with objects by key, and the choice of a store by address.

Keys are relative paths with "/" between their parts. An object appears whole or not at all. A readable object
never changes, except that `write`, `put` and `put_file` may replace it, and `overwrite_with_zeros` changes it. The
dataset replaces none (see commits.py), and only an erasure overwrites bytes.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """Facts about a stored object."""

    nbytes: int
    """Size in bytes."""


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A half-written object; its writer died or is still writing."""

    key: str
    """Key that the object gets when it is complete."""
    handle: str
    """Name of the half-written object within the store, such as a temporary file or an upload id."""


class ObjectStore(Protocol):
    """A store of objects by key. Every method raises StoreError, or a subclass, where the store refuses or fails."""

    uri: str
    """Folder or s3:// address of the store."""
    needs_sync: bool
    """Whether what other programs wrote must be made durable; False where an answer means that it is."""

    @property
    def place(self) -> str:
        """Server, or folder and file system, on which it depends whether `put_if_absent` works."""

    def check_before_first_put(self, check: Callable[[], None]) -> None:
        """Have `check` called before the first `put_if_absent`; where it raises, nothing is put."""

    def get(self, key: str) -> bytes:
        """Read all bytes of an object.

        Raises:
            NotFound: There is no such object.
        """

    def get_range(self, key: str, offset: int, nbytes: int) -> bytes:
        """Read exactly `nbytes` bytes from `offset` on.

        Raises:
            NotFound: There is no such object.
            Corrupt: The object ends before the range does.
        """

    def open(self, key: str) -> BinaryIO:
        """Open a stream of an object's bytes; the caller closes it.

        Raises:
            NotFound: There is no such object.
        """

    def write(self, key: str, fill: Callable[[BinaryIO], object]) -> ObjectInfo:
        """Write an object; `fill` writes its bytes to the file that it is given. The object is durable on return."""

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write an object; the object is durable on return."""

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """Write a local file's bytes as an object; the object is durable on return."""

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create a small object; of several writers exactly one succeeds.

        Raises:
            Conflict: The object exists already.
        """

    def overwrite_with_zeros(self, key: str, ranges: Sequence[tuple[int, int]]) -> None:
        """Overwrite parts of an object with zeros, durably. Several processes may do so at once.

        Args:
            key: The object.
            ranges: Pairs of first byte and number of bytes; what lies behind the object's end is passed over.

        Raises:
            NotFound: There is no such object.
        """

    def head(self, key: str) -> ObjectInfo:
        """Return the size of an object.

        Raises:
            NotFound: There is no such object.
        """

    def list(self, prefix: str) -> Iterator[str]:
        """List the keys that begin with the prefix, in ascending order."""

    def delete(self, key: str) -> None:
        """Delete an object; a missing object is no error."""

    def unfinished(self) -> Iterator[Unfinished]:
        """List half-written objects, those of live writers included."""

    def remove_unfinished(self, unfinished: Unfinished) -> None:
        """Remove a half-written object. If a writer is still writing the object, that write will fail."""

    def make_durable(self, keys: Iterable[str]) -> None:
        """Flush to the disk objects that another program wrote: their bytes and their names.

        Raises:
            NotFound: There is no such object.
        """

    def remove_torn(self, key: str, is_torn: Callable[[bytes], bool]) -> bool:
        """Delete an object if a power cut tore it.

        `is_torn` judges the bytes once no other process can read or replace the object. An object that is not torn is
        put back.

        Returns:
            Whether the object was deleted.
        """

    def make_names_durable(self, keys: Iterable[str]) -> None:
        """Flush to the disk the names of objects whose bytes are durable already."""

    def table_uri(self, folder: str, name: str) -> str:
        """Return the address of a Delta table in a folder of this store."""

    def table_options(self) -> dict[str, str]:
        """Return the storage options that the Delta library needs for `table_uri`."""


_CHECKING = threading.Lock()


class ChecksFirstPut:
    """Part of a store: a check that is made once, before the first `put_if_absent`."""

    _check: Callable[[], None] | None = None

    def check_before_first_put(self, check: Callable[[], None]) -> None:
        self._check = check

    def _check_first_put(self) -> None:
        """Make the check, unless it was made; other threads wait for it."""
        if self._check is None:
            return
        with _CHECKING:
            if self._check is not None:
                self._check()
                self._check = None


def open_store(uri: str | Path) -> ObjectStore:
    """Open the store behind a folder's path, a `file://` or an `s3://bucket/prefix` address.

    Raises:
        ValueError: The address has another form.
    """
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
    """Compute the SHA-256 of a stored object, in hex; the object is read piece by piece.

    Raises:
        NotFound: There is no such object.
    """
    digest = hashlib.sha256()
    with store.open(key) as stream:
        while piece := stream.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
