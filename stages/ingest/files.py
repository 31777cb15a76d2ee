"""Search for photo files: sorted, recognised by extension or content, each file once even if several paths reach it."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.ingest.normalise import PHOTO_EXTENSIONS, SNIFF_BYTES, Unusable, out_of_memory, sniff
from storage.protocol.inputs import PhotoKey


@dataclass(frozen=True, kw_only=True)
class FoundPhoto:
    """Photo file to ingest."""

    source: str
    """Name of the photo in the dataset: `<folder given>/<path below it>`."""
    place: str
    """First 12 hex digits of the SHA-256 of the real path. They tell the file from a file of the same name elsewhere.
    """
    path: Path
    nbytes: int
    mtime_ns: int

    @property
    def key(self) -> PhotoKey:
        """Key that names the photo in a plan."""
        return PhotoKey(source=self.source, place=self.place, nbytes=self.nbytes, mtime_ns=self.mtime_ns)


class PhotosAtHand:
    """Result of a search for photos: the found files by photo key, and the places that were searched."""

    def __init__(self, found: Sequence[FoundPhoto], paths: Sequence[str | Path]) -> None:
        self._roots = [Path(os.path.abspath(path)) for path in paths]
        self.keys = {photo.key for photo in found}
        self._paths = {photo.key: photo.path for photo in found}
        self._by_place = {photo.key.source_and_place: photo.path for photo in found}

    def path(self, key: PhotoKey) -> Path | None:
        """Return the file of a planned photo, even one that changed after planning; return None if none was found."""
        return self._paths.get(key) or self._by_place.get(key.source_and_place)

    def covers(self, keys: Iterable[PhotoKey]) -> bool:
        """Tell whether the search found each of these photos, or would have found it if the file still existed.

        Photos of a folder that was not searched are not covered. A missing photo of a searched folder counts as gone.
        """
        return all(self.path(key) is not None or self._was_looked_for(key) for key in keys)

    def empty_folder(self, gone: Iterable[PhotoKey]) -> Path | None:
        """Return a folder that was searched and has no photo, though it had these photos; None if there is none."""
        for root in {root for key in gone for root in self._roots_of(key)}:
            if root.is_dir() and not any(path.is_relative_to(root) for path in self._paths.values()):
                return root
        return None

    def _was_looked_for(self, key: PhotoKey) -> bool:
        return bool(self._roots_of(key))

    def _roots_of(self, key: PhotoKey) -> list[Path]:
        """List the given paths below which a planned photo lies or lay."""
        top, _, below = key.source.partition("/")
        named = [root for root in self._roots if _readable(root.name) == top]
        return [root for root in named if _place(os.path.realpath(root / below if below else root)) == key.place]


def find_photos(paths: Sequence[str | Path]) -> tuple[list[FoundPhoto], int]:
    """Find the photos under `paths` (folders and files), in the order of the photos' names, and count the other files.

    A file that several paths lead to (links, folders given twice) has the name of the first path. In a folder, the
    extension or the first bytes tell that a file is a photo; a file given by name always counts as a photo. Hidden
    files and folders count as other files.

    Raises:
        ValueError: A path does not exist, or no photo was found.
    """
    found: dict[str, FoundPhoto] = {}  # by real path
    other_files = 0
    for path in (Path(os.path.abspath(given)) for given in paths):
        if not os.path.lexists(path):
            raise ValueError(f"photos: {path} does not exist; give a folder or image files")
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
        raise ValueError(f"photos: none in {given} ({other_files} other files); expected JPEG, PNG, WebP or TIFF")
    return sorted(found.values(), key=lambda photo: photo.key), other_files


def check_any_photo(paths: Sequence[str | Path]) -> None:
    """Check that `find_photos` would find a photo under `paths`; the search ends at the first one.

    Raises:
        ValueError: A path does not exist, or no photo was found.
    """
    for path in map(Path, paths):
        if not path.is_dir() or any(_looks_like_photo(file) for file, _ in _walk(path, path.name, set())):
            return
    find_photos(paths)  # its error names the places and counts the other files


def check_file(path: Path, max_bytes: int) -> int:
    """Check that a file may be read, and return its size in bytes.

    Raises:
        Unusable: The file is missing, is no regular file or is larger than `max_bytes`.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise Unusable("unreadable", f"{error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise Unusable("unreadable", f"it is {kind}")
    if status.st_size > max_bytes:
        raise Unusable("too_large", f"a file of {status.st_size} bytes; at most {max_bytes} are read")
    return status.st_size


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a file's bytes.

    Raises:
        Unusable: The file cannot be read, is no regular file or is larger than `max_bytes`.
    """
    nbytes = check_file(path, max_bytes)
    try:
        with path.open("rb") as file:
            data = file.read(nbytes + 1)
            if len(data) > nbytes:  # it grew meanwhile, or is a file of the system, whose size is 0
                raise Unusable("unreadable", f"it has more bytes than its size says, {nbytes}; is it being written?")
            return data
    except MemoryError as error:
        raise out_of_memory(nbytes) from error
    except OSError as error:
        raise Unusable("unreadable", f"{error.strerror or error}") from error


def _walk(folder: Path, name: str, walked: set[tuple[int, int]]) -> Iterator[tuple[Path, str]]:
    """List the files below a folder with their names.

    A folder that cannot be listed, or whose name has the extension of a photo, is listed as a file, so that it becomes
    a reject and is not lost in silence.
    """
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
    if path.is_dir():  # one that could not be listed: it may hold photos
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
    place = _place(real_path)
    return FoundPhoto(source=source, place=place, path=path, nbytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _place(real_path: str) -> str:
    """Return the first 12 hex digits of a real path's SHA-256."""
    return hashlib.sha256(os.fsencode(real_path)).hexdigest()[:12]


def _readable(name: str) -> str:
    """Turn a file name into text that can be stored; bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
