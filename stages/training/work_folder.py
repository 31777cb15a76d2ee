"""Work folder of a training: its name, the lock on it, and the log that its processes share."""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRESS_NAME = "progress.txt"
LOCK_NAME = "lock"


def derive_work_folder(description: dict[str, object], root: Path) -> Path:
    """Derive a folder below `root` from a training's description, so that the same training continues there."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode()).hexdigest()
    return root / digest[:16]


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Lock a work folder, because two trainings in one folder would overwrite each other's checkpoints.

    The lock belongs to the operating system and ends with the process that took it, even if the process is killed.
    Processes of the training on other machines may live some seconds longer.

    Raises:
        ValueError: Another process holds the lock, or the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{folder} is the work folder of a training that runs now, and the same was asked for again; wait for "
                "that one, or give another --work"
            ) from error
        except OSError as error:
            raise ValueError(f"{folder}: this file system locks no files ({error}); give another --work") from error
        yield


class WorkLog:
    """Log function that also appends each line to a file, for the process that started the training to read."""

    def __init__(self, folder: Path, log: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / PROGRESS_NAME
        self._log = log

    def __call__(self, line: str) -> None:
        """Log a line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        self._log(line)
