"""The commands below `gigamask models`: `list` shows the models that have a name, `pull` downloads released weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import AsJson

if TYPE_CHECKING:
    from engine.model.released import PulledModel


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model that can be named with --model."""

    name: str
    here: bool
    """Whether the model's weights are on this machine."""
    where: str
    """Path of the weights, or the command that downloads them."""


def models_list(as_json: AsJson = False) -> None:
    """List the models that have a name, and show which of them are on this machine."""
    from flows.cli.output import print_rows

    print_rows(known_models(), as_json, empty="no model")


def models_pull(
    name: Annotated[str, typer.Argument(help="mobile, vit_b, vit_l or vit_h.")],
    base_url: Annotated[
        str | None, typer.Option(help="Address to download from.", show_default="the release's own")
    ] = None,
) -> None:
    """Download released SAM weights and check their SHA-256; a broken download is resumed."""
    pulled = pull_model(name, base_url)
    print(f"{pulled.path}\n{pulled.verification}")


def known_models() -> list[KnownModel]:
    """List the seed model, which ships with gigamask, then the released models by size."""
    from engine.model.find import PRETRAINED_FOLDER
    from engine.model.released import RELEASED, models_folder

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


def pull_model(name: str, base_url: str | None) -> "PulledModel":
    """Download a released model with a progress bar on stderr.

    Raises:
        ValueError: There is no such released model.
        StoreError: The download failed or is damaged.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from engine.model.released import pull

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        return pull(
            name,
            base_url=base_url,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
