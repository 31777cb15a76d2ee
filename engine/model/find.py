"""Where the weights of a model lie, by its name or path. Nothing is loaded, and torch is not imported."""

from pathlib import Path

from engine.model.released import RELEASED, models_folder

PRETRAINED_FOLDER = Path(__file__).parent.parent / "pretrained"
SHIPPED = ("seed",)
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")


def find_weights(name_or_path: str | Path, folder: str | Path | None = None) -> tuple[Path, str]:
    """Find the weights file of a model, and the name it goes by ("" for a path).

    Released models are looked for in the models folder `folder`.

    Raises:
        ValueError: no such name or file.
    """
    asked, folder = str(name_or_path), models_folder(folder)
    if asked in SHIPPED:
        path = PRETRAINED_FOLDER / f"{asked}.safetensors"
        if not path.exists():
            raise ValueError(f"model {asked!r} should ship with the package, but {path} is missing: reinstall gigamask")
        return path, asked
    if asked in RELEASED:
        path = folder / RELEASED[asked].file_name
        if not path.exists():
            raise ValueError(f"model {asked!r} is not in {folder}: run `gigamask models pull {asked}`")
        return path, asked
    path = Path(name_or_path)
    if path.suffix not in WEIGHT_SUFFIXES:
        raise ValueError(
            f"unknown model {asked!r}: expected {', '.join(SHIPPED)} (ships with gigamask), {', '.join(RELEASED)} "
            f"(`gigamask models pull NAME` brings them) or the path of a file ending in {', '.join(WEIGHT_SUFFIXES)}"
        )
    if not path.is_file():
        raise ValueError(f"{path}: no such weights file")
    return path, ""
