"""Journal of a check: what was found sound so far, so that a check that was interrupted goes on where it stopped.

It is a text file outside the dataset, one mark a line. A mark names content by its hash, so it can be out of date only
where stored bytes changed since; what was found damaged has no mark and is read again.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from storage.errors import StoreError
from storage.home import cache_folder
from storage.objects.stores import ObjectStore

_MARK = re.compile(r"[0-9a-f]{64}(@[0-9a-f]{64})?")


class Journal:
    """Marks of what a check has found sound. As a context it keeps its file open, and keeps the file on an error."""

    def __init__(self, path: Path, *, again: bool = False) -> None:
        """Read the journal of an earlier check, if there is one; `again` removes it.

        Raises:
            StoreError: The file cannot be read or removed.
        """
        self._path, self._stack = path, ExitStack()
        with self._explained():
            if again:
                path.unlink(missing_ok=True)
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        self.begun = lines[0] if lines else ""
        """Time at which the check began that this one continues, in ISO 8601; empty for a new check."""
        self._marks = {line for line in lines[1:] if _MARK.fullmatch(line)}  # a kill may tear the last

    def __contains__(self, mark: str) -> bool:
        return mark in self._marks

    def __enter__(self) -> "Journal":
        """Open the file for new marks.

        Raises:
            StoreError: The file cannot be written.
        """
        with self._explained():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._stack.enter_context(self._path.open("a", encoding="utf-8"))
        self._write("" if self.begun else datetime.now(UTC).isoformat(timespec="seconds"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, and remove it where the check has come to its end."""
        self._stack.close()
        if kind is None:
            self._path.unlink(missing_ok=True)

    def add(self, mark: str) -> None:
        """Note that something was found sound.

        Raises:
            StoreError: The file cannot be written.
        """
        self._marks.add(mark)
        self._write(mark)

    def _write(self, line: str) -> None:
        with self._explained():
            self._file.write(line + "\n")
            self._file.flush()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"{self._path}: the check cannot note how far it is ({error.strerror})"
            raise StoreError(f"{what}; free some space, or set HOME to a folder that can be written") from error


def journal_path(store: ObjectStore) -> Path:
    """Return the file of the journal for one dataset at one address: ~/.cache/gigamask/verify/<hash>.txt.

    Raises:
        NotFound: There is no dataset.
    """
    name = hashlib.sha256(store.get("dataset.json") + store.uri.encode()).hexdigest()[:32]
    return cache_folder("verify") / f"{name}.txt"
