"""The picture files under folders: found in sorted order, by ending or by content, each once however it is reached."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.ingest.normalise import PHOTO_EXTENSIONS, SNIFF_BYTES, Unusable, out_of_memory, sniff
from storage.protocol.inputs import PhotoKey


@dataclass(frozen=True, kw_only=True)
class FoundPhoto:
    """A file to be taken in.

    `source`: its name in the dataset, `<folder given>/<path below it>`. `place`: 12 hex digits of the SHA-256 of its
    real path, which tell it from a file of that name in another folder of that name.
    """

    source: str
    place: str
    path: Path
    nbytes: int
    mtime_ns: int

    @property
    def key(self) -> PhotoKey:
        """How a plan names it."""
        return PhotoKey(source=self.source, place=self.place, nbytes=self.nbytes, mtime_ns=self.mtime_ns)


class PhotosAtHand:
    """Found files by what a plan says of them."""

    def __init__(self, found: Sequence[FoundPhoto]) -> None:
        self.keys = {photo.key for photo in found}
        self._paths = {photo.key: photo.path for photo in found}
        self._by_place = {photo.key.source_and_place: photo.path for photo in found}

    def path(self, key: PhotoKey) -> Path | None:
        """Path of the file, also where it changed since it was planned; None where it was not found."""
        return self._paths.get(key) or self._by_place.get(key.source_and_place)


def find_photos(paths: Sequence[str | Path]) -> tuple[list[FoundPhoto], int]:
    """The photographs under folders and files, in the order of their names, and the number of other files.

    A file reached by several ways, through links or folders given twice, has the name of the first. A file in a folder
    is taken for a photograph by its ending or by its first bytes, one given by name always. Hidden files and folders
    count as other files. Raises ValueError for a path that is not there and where nothing is found.
    """
    found: dict[str, FoundPhoto] = {}  # by real path
    other_files = 0
    for path in (Path(os.path.abspath(given)) for given in paths):
        if not os.path.lexists(path):
            raise ValueError(f"photographs: {path} does not exist; give a folder or picture files")
        is_folder = path.is_dir()
        for file, source in _walk(path, _readable(path.name), set()) if is_folder else [(path, _readable(path.name))]:
            if is_folder and not _looks_like_photo(file):
                other_files += 1
            else:
                real_path = os.path.realpath(file)
                if real_path not in found:
                    found[real_path] = _found(file, source, real_path)
    if not found:
        given = ", ".join(str(path) for path in paths) or "nothing"
        raise ValueError(f"photographs: none in {given} ({other_files} other files); expected JPEG, PNG, WebP or TIFF")
    return sorted(found.values(), key=lambda photo: photo.key), other_files


def read_file(path: Path, max_bytes: int) -> bytes:
    """The file's bytes. Raises Unusable for what cannot be read, is no regular file or is larger than `max_bytes`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise Unusable("unreadable", f"it is {kind}")
        if status.st_size > max_bytes:
            raise Unusable("too_large", f"a file of {status.st_size} bytes; at most {max_bytes} are read")
        return path.read_bytes()
    except MemoryError as error:
        raise out_of_memory(status.st_size) from error
    except OSError as error:
        raise Unusable("unreadable", f"{error.strerror or error}") from error


def _walk(folder: Path, name: str, walked: set[tuple[int, int]]) -> Iterator[tuple[Path, str]]:
    """Files below a folder with their names; a folder that cannot be listed, or is named like a picture, is one too."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in walked:
        return
    walked.add((status.st_dev, status.st_ino))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder, name
        return
    for entry in entries:
        path, source = folder / entry.name, f"{name}/{_readable(entry.name)}"
        if not path.is_dir() or entry.name.startswith("."):
            yield path, source
            continue
        if path.suffix.lower() in PHOTO_EXTENSIONS:
            yield path, source
        yield from _walk(path, source, walked)


def _looks_like_photo(path: Path) -> bool:
    if path.name.startswith("."):  # .DS_Store, ._photo.jpg, .thumbnails
        return False
    if path.suffix.lower() in PHOTO_EXTENSIONS:
        return True
    if path.is_dir():  # one that could not be listed: it may hold photographs
        return True
    try:
        return path.is_file() and sniff(_first_bytes(path)) is not None
    except OSError:
        return False


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SNIFF_BYTES)


def _found(path: Path, source: str, real_path: str) -> FoundPhoto:
    try:
        status = path.stat()
    except OSError:  # a link to nowhere
        status = path.lstat()
    place = hashlib.sha256(os.fsencode(real_path)).hexdigest()[:12]
    return FoundPhoto(source=source, place=place, path=path, nbytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _readable(name: str) -> str:
    """The name as text that can be stored; bytes that are no UTF-8 are spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
