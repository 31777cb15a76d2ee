"""The folder of a release while it is written: what is finished, what a killed process left, and the end.

OUT/.unfinished/release.json says which release is being written; OUT/.unfinished/sa_000000.json says that the files of
a tar are whole and in their places. Files are written below OUT/.unfinished, flushed to the disk and renamed.
OUT/release.json comes last: without it the folder is no release.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MANIFEST = "release.json"
UNFINISHED = ".unfinished"
_LOCK = "lock"


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of a release."""

    path: str
    """Path below the release's folder."""
    nbytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return the file as JSON values."""
        return {"path": self.path, "nbytes": self.nbytes, "sha256": self.sha256}


class ReleaseFolder:
    """The folder that one release is written to."""

    def __init__(self, root: Path, release_id: str) -> None:
        self.root = root
        self.release_id = release_id
        self._work = root / UNFINISHED

    @property
    def is_finished(self) -> bool:
        """Whether the release is there as a whole."""
        return (self.root / MANIFEST).exists()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Begin or continue the release, alone.

        Raises:
            ValueError: The folder holds something else, or another process writes to it.
        """
        self._check_free()
        self._work.mkdir(parents=True, exist_ok=True)
        with (self._work / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"{self.root}: another process writes this release; wait for it") from error
            for left in self._work.glob("*.tmp"):
                left.unlink()
            self._put(self._work / MANIFEST, json_text({"release_id": self.release_id}))
            yield

    def finished_part(self, name: str) -> dict[str, Any] | None:
        """Read what is known of a part whose files are whole; None for a part that is still to be written."""
        try:
            record: dict[str, Any] = json.loads((self._work / f"{name}.json").read_bytes())
        except FileNotFoundError:
            return None
        return record if all(self._is_there(each) for each in record["files"]) else None

    @contextmanager
    def new_file(self, path: str) -> Iterator[Path]:
        """Give the temporary path of a file; unless an error comes, it is flushed and renamed to its place."""
        temporary = self._work / f"{path.replace('/', '-')}.tmp"
        temporary.unlink(missing_ok=True)
        yield temporary
        _sync(temporary)
        target = self.root / path
        target.parent.mkdir(exist_ok=True)
        temporary.replace(target)
        _sync(target.parent)

    def finish_part(self, name: str, record: Mapping[str, Any]) -> None:
        """Record that the files of a part are whole."""
        self._put(self._work / f"{name}.json", json_text(record))

    def describe(self, path: str) -> File:
        """Read a finished file again, and return its size and its hash."""
        with (self.root / path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return File(path=path, nbytes=file.tell(), sha256=digest)

    def write(self, path: str, fill: Callable[[BinaryIO], object]) -> File:
        """Write a file whole, and describe it."""
        with self.new_file(path) as temporary, temporary.open("wb") as file:
            fill(file)
        return self.describe(path)

    def write_text(self, path: str, text: str) -> File:
        """Write a file of text, and describe it."""
        return self.write(path, lambda file: file.write(text.encode()))

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, which makes the folder a release, and remove what was needed to continue."""
        self.write_text(MANIFEST, json_text(manifest))
        self.clear()

    def clear(self) -> None:
        """Remove what was needed to continue; nothing else is left of the work."""
        shutil.rmtree(self._work, ignore_errors=True)
        _sync(self.root)

    def _check_free(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"{self.root}: a file is there; give a new folder")
        begun = _release_id_in(self._work / MANIFEST) or _release_id_in(self.root / MANIFEST)
        if begun == self.release_id:
            return
        if begun is not None:
            raise ValueError(
                f"{self.root}: release {begun} is there, this one would be {self.release_id}: another snapshot, other "
                "settings or versions, or masks that were withdrawn since; delete it, or give a new folder"
            )
        others = [each.name for each in self.root.iterdir() if each.name != UNFINISHED] if self.root.exists() else []
        if others:
            raise ValueError(f"{self.root}: not empty ({sorted(others)[0]} is there); give a new folder")

    def _is_there(self, file: Mapping[str, Any]) -> bool:
        try:
            return bool((self.root / file["path"]).stat().st_size == file["nbytes"])
        except FileNotFoundError:
            return False

    def _put(self, path: Path, text: str) -> None:
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(text)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)


def _release_id_in(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_bytes())["release_id"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def json_text(fields: Mapping[str, Any]) -> str:
    """Write JSON for people and programs; the same content gives the same text."""
    return json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
