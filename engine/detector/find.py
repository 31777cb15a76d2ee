"""Search for the weights file of a detector by name or path; this module loads no weights and imports no torch."""

from pathlib import Path

from engine.model.find import PRETRAINED_FOLDER

SHIPPED_DETECTORS = ("seed-detector",)
"""Names of the detectors that are part of the package."""


def find_detector(name_or_path: str | Path) -> Path:
    """Find the weights file of a detector by name or path.

    Raises:
        ValueError: No detector has this name, or the file does not exist.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in SHIPPED_DETECTORS:
        path = PRETRAINED_FOLDER / f"{name}.safetensors"
    elif path.suffix != ".safetensors":
        raise ValueError(
            f"unknown detector {name!r}: expected {', '.join(SHIPPED_DETECTORS)} (ships with gigamask) or the path of "
            "a file ending in .safetensors"
        )
    if not path.is_file():
        raise ValueError(f"{path}: no such weights file")
    return path
