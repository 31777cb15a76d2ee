"""Measured models of a loop, kept in its work folder, so that a loop that was cut off measures none again."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from flows.loop.figures import Arm
from storage.objects.atomic import replace_file


def measure_once(folder: Path, measured_with: object, measure: Callable[[], Arm]) -> Arm:
    """Return what was measured before, or measure and keep it.

    Args:
        folder: Folder of the measured models.
        measured_with: Everything that the result depends on, as JSON values.
        measure: Function that measures.
    """
    digest = hashlib.sha256(json.dumps(measured_with, sort_keys=True).encode()).hexdigest()
    path = folder / f"{digest[:24]}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(asdict(measure()), default=lambda value: value.tolist())  # of numpy
        replace_file(path, lambda file: file.write(content.encode()))
    return TypeAdapter(Arm).validate_python(json.loads(path.read_text()))
