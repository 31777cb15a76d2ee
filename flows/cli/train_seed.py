"""The command `gigamask train-seed`: it trains the seed model, which ships with the package, from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Device, Steps
from flows.progress import log


def train_seed(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint and the history are kept.", show_default=False)],
    photos: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of labelled images; those with even ids train. Repeat it for several folders."),
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="Where scenes are kept.", show_default="FOLDER/bank")] = None,
    fill: Annotated[
        int | None, typer.Option(metavar="CHUNKS", help="Only make this many chunks of scenes, and stop.", min=1)
    ] = None,
    recipe: Annotated[str, typer.Option(help="cpu: a network of half the size; gpu: the shipped model.")] = "cpu",
    device: Device = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes that share every batch.", min=1, show_default="2 on a CPU, 1 on a GPU")
    ] = None,
    data_workers: Annotated[
        int | None,
        typer.Option(help="Processes that make batches.", min=0, show_default="0; all cores but one for a GPU"),
    ] = None,
    steps: Steps = None,
) -> None:
    """Train the seed model on procedural scenes. The same command, given again, continues where it stopped."""
    log(f"train-seed: {folder}")
    from engine.training import seed

    if fill is not None:
        seed.fill_bank(folder, fill, bank=bank, recipe=recipe, device=device)
        return
    seed.train_seed(
        folder,
        photos=photos or (),
        bank=bank,
        recipe=recipe,
        device=device,
        processes=processes,
        data_workers=data_workers,
        steps=steps,
    )
