"""The store that keeps objects as files of a local folder."""

import errno
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from storage.errors import Conflict, Corrupt, NotFound, StoreError
from storage.objects.stores import ChecksFirstPut, ObjectInfo, Unfinished

_T = TypeVar("_T")
_READ_BYTES = 1 << 20
_TEMPORARY = ".gigamask-tmp-"  # prefix of the file of an object not yet whole; listing skips it


class LocalStore(ChecksFirstPut):
    """A store of objects as files below a folder.

    `write` fills a temporary file, flushes the file to the disk, renames it and flushes the folder. `put_if_absent`
    creates a hard link instead of renaming, because creating a link fails where the name is taken.
    """

    needs_sync = True

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(self.root)

    def __repr__(self) -> str:
        return f"LocalStore({self.uri!r})"

    @property
    def place(self) -> str:
        return f"{self.root.resolve()} on {_file_system(self.root.resolve())}"

    def get(self, key: str) -> bytes:
        with self.open(key) as stream:
            return stream.read()

    def get_range(self, key: str, offset: int, nbytes: int) -> bytes:
        with self.open(key) as stream:
            stream.seek(offset)
            data = stream.read(nbytes)
        if len(data) != nbytes:
            raise Corrupt(f"{self._path(key)}: {len(data)} bytes at {offset}, expected {nbytes}; run `gigamask verify`")
        return data

    def open(self, key: str) -> BinaryIO:
        return self._file_call(key, lambda path: path.open("rb"))

    def write(self, key: str, fill: Callable[[BinaryIO], object]) -> ObjectInfo:
        self._write(key, fill, publish=os.replace)
        return self.head(key)

    def put(self, key: str, data: bytes) -> ObjectInfo:
        return self.write(key, lambda file: file.write(data))

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        with path.open("rb") as source:
            return self.write(key, lambda file: shutil.copyfileobj(source, file, _READ_BYTES))

    def put_if_absent(self, key: str, data: bytes) -> None:
        self._check_first_put()
        try:
            self._write(key, lambda file: file.write(data), publish=_link)
        except FileExistsError as error:
            raise Conflict(f"{self._path(key)} is already there") from error
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError) and self._path(key).exists():
                raise Conflict(f"{self._path(key)} is already there") from error  # so cleaning took ours away
            raise

    def overwrite_with_zeros(self, key: str, ranges: Sequence[tuple[int, int]]) -> None:
        def overwrite(path: Path) -> None:
            with path.open("r+b") as file:
                nbytes = file.seek(0, os.SEEK_END)
                for start, length in ranges:
                    stop = min(start + length, nbytes)
                    file.seek(start)
                    for at in range(start, stop, _READ_BYTES):
                        file.write(bytes(min(_READ_BYTES, stop - at)))
                file.flush()
                os.fsync(file.fileno())

        self._file_call(key, overwrite)

    def head(self, key: str) -> ObjectInfo:
        return ObjectInfo(nbytes=self._file_call(key, lambda path: path.stat().st_size))

    def list(self, prefix: str) -> Iterator[str]:
        folder, _, start = prefix.rpartition("/")
        yield from _below(str(self._path(folder) if folder else self.root), f"{folder}/" if folder else "", start)

    def delete(self, key: str) -> None:
        with suppress(NotFound):
            self._file_call(key, lambda path: path.unlink())

    def unfinished(self) -> Iterator[Unfinished]:
        for path in sorted(self.root.rglob(f"{_TEMPORARY}*")):
            object_name = path.name.removeprefix(_TEMPORARY).partition("-")[2]
            key = path.with_name(object_name).relative_to(self.root).as_posix()
            yield Unfinished(key=key, handle=path.relative_to(self.root).as_posix())

    def remove_unfinished(self, unfinished: Unfinished) -> None:
        self.delete(unfinished.handle)

    def make_durable(self, keys: Iterable[str]) -> None:
        listed = list(keys)
        for key in listed:
            self._file_call(key, _sync)
        self.make_names_durable(listed)

    def remove_torn(self, key: str, is_torn: Callable[[bytes], bool]) -> bool:
        path = self._path(key)
        aside = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{path.name}")
        try:
            self._file_call(key, lambda path: path.rename(aside))
        except NotFound:
            return False
        torn = is_torn(aside.read_bytes())
        if not torn:
            with suppress(FileExistsError):
                _link(aside, path)
        aside.unlink()
        _sync(path.parent)
        return torn

    def make_names_durable(self, keys: Iterable[str]) -> None:
        folders = {folder for key in keys for folder in self._path(key).parents if folder.is_relative_to(self.root)}
        for folder in sorted(folders, key=lambda each: -len(each.parts)):
            _sync(folder)

    def table_uri(self, folder: str, name: str) -> str:
        return str(self.root / folder / name)

    def table_options(self) -> dict[str, str]:
        return {}

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or any(part in ("", ".", "..") for part in parts) or "\0" in key:
            raise ValueError(f"object key {key!r}: expected a relative path such as data/plan/shard/attempt.tar")
        return self.root.joinpath(*parts)

    def _file_call(self, key: str, call: Callable[[Path], _T]) -> _T:
        path = self._path(key)
        try:
            return call(path)
        except FileNotFoundError as error:
            raise NotFound(f"{path}: no such object") from error
        except NotADirectoryError as error:
            raise StoreError(f"{path}: a file lies where a folder is expected; choose another folder") from error
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}; check the folder and its permissions") from error

    def _write(self, key: str, fill: Callable[[BinaryIO], object], publish: Callable[[Path, Path], None]) -> None:
        """Fill a temporary file beside the object, make the file durable, then rename it in one step."""
        path = self._path(key)
        temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{path.name}")
        try:
            _make_folder(path.parent)
            try:
                with temporary.open("xb") as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                publish(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            _sync(path.parent)
        except FileExistsError:
            raise
        except OSError as error:
            raise StoreError(_why_not_written(path, error)) from error


def _below(folder: str, prefix: str, start: str) -> Iterator[str]:
    """List the keys below a folder, in order; `prefix` precedes a name in its key.

    Texts, not paths: a log of 43,200 folds is listed three times as fast.
    """
    try:
        with os.scandir(folder) as found:  # knows what is a folder without asking for each
            entries = [
                (entry.name + "/" * entry.is_dir(follow_symlinks=False), entry.name)
                for entry in found
                if entry.name.startswith(start) and not entry.name.startswith(_TEMPORARY)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return
    for ordered_name, name in sorted(entries):
        path = f"{folder}/{name}"
        if ordered_name.endswith("/"):
            yield from _below(path, f"{prefix}{name}/", "")
        elif os.path.lexists(path):  # not deleted while this was listing
            yield prefix + name


def _link(source: Path, name: Path) -> None:
    """Give a file a second name, unless the name is taken.

    Raises:
        OSError: As `os.link`, but ENOTSUP also where FAT and exFAT answer that it is not permitted.
    """
    try:
        os.link(source, name)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        raise OSError(errno.ENOTSUP, "no hard links", str(name)) from error


def _why_not_written(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{path}: no space left to write it ({error.strerror}); free some and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: not writable ({error.strerror}); give write permission or choose another folder"
    if error.errno == errno.ENOTDIR:
        return f"{path}: a file lies where a folder is expected; choose another folder"
    if error.errno in (errno.ENOTSUP, errno.ENOSYS):
        what = "this file system has no hard links, as FAT and exFAT, and commits need them"
        return f"{path}: {what}; choose a folder on another disk"
    return f"{path}: could not be written ({error.strerror})"


def _file_system(folder: Path) -> str:
    """Name the file system that holds a folder: its type and its device or server; else this machine and the device."""
    mounts: dict[Path, str] = {}
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            own, _, file_system = line.partition(" - ")
            mounts[Path(own.split()[4])] = " ".join(file_system.split()[:2])
    for above in (folder, *folder.parents):
        if above in mounts:
            return mounts[above]
    return f"{socket.gethostname()}, device {os.stat(folder).st_dev}"


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents, and flush each parent, because a folder's name is an entry in its parent."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        try:
            each.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
        _sync(each.parent)


def _sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
