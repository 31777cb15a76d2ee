"""Search for the weights file of a model by name or path; this module loads no weights and imports no torch."""

from pathlib import Path

from engine.model.released import RELEASED, models_folder

PRETRAINED_FOLDER = Path(__file__).parent.parent / "pretrained"
SHIPPED = ("seed",)
"""Names of the models that are part of the package."""
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")


def find_weights(name_or_path: str | Path, folder: str | Path | None = None) -> tuple[Path, str]:
    """Find the weights file of a model; return the path of the file and the name of the model.

    The returned name is "" if `name_or_path` is a path.

    Args:
        folder: models folder, which holds the downloaded models; None: the default folder.

    Raises:
        ValueError: No model has this name, or the file does not exist.
    """
    name = str(name_or_path)
    if name in SHIPPED:
        path = PRETRAINED_FOLDER / f"{name}.safetensors"
        if not path.exists():
            raise ValueError(f"model {name!r} should ship with the package, but {path} is missing: reinstall gigamask")
        return path, name
    if name in RELEASED:
        path = models_folder(folder) / RELEASED[name].file_name
        if not path.exists():
            raise ValueError(f"model {name!r} is not in {path.parent}: run `gigamask models pull {name}`")
        return path, name
    path = Path(name_or_path)
    if path.suffix not in WEIGHT_SUFFIXES:
        raise ValueError(
            f"unknown model {name!r}: expected {', '.join(SHIPPED)} (ships with gigamask), {', '.join(RELEASED)} "
            f"(`gigamask models pull NAME` downloads them) or the path of a file ending in {', '.join(WEIGHT_SUFFIXES)}"
        )
    if not path.is_file():
        raise ValueError(f"{path}: no such weights file")
    return path, ""
