"""Replacement of a file in one step: after a crash, too, readers find the old or the new content, never a mixture."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def replace_file(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Replace a file in one step: write a temporary file beside `path`, make it durable and rename it to `path`.

    On an error the temporary file is removed. The rename itself is not flushed to the disk: after a power cut, `path`
    may hold the whole old content again.
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
