"""`gigamask models`: what is known by name, what of it is on this machine, and pulling released weights."""

from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from engine.model.find import PRETRAINED_FOLDER
from engine.model.released import RELEASED, PulledModel, models_folder, pull


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model that can be named with --model."""

    name: str
    here: bool
    where: str


def known_models() -> list[KnownModel]:
    """The seed that ships with gigamask and the released models, in order of size."""
    released = [
        KnownModel(
            name=name,
            here=(path := models_folder() / model.file_name).is_file(),
            where=str(path) if path.is_file() else f"gigamask models pull {name}",
        )
        for name, model in RELEASED.items()
    ]
    seed = PRETRAINED_FOLDER / "seed.safetensors"
    return [KnownModel(name="seed", here=seed.is_file(), where=str(seed)), *released]


def pull_model(name: str, base_url: str | None) -> PulledModel:
    """Download with a bar on stderr; errors as `engine.model.released.pull`."""
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        return pull(
            name,
            base_url=base_url,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
