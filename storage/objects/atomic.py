"""Files that are replaced in one step: a reader or a crash finds the old content or the new, never half of either."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def replace_file(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a temporary file beside `path`, make it durable and give it that name; on an error remove it.

    The folder's entry itself is not flushed: after a power cut the old content may be back, in full.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
