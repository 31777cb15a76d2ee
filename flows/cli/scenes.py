"""The command `gigamask scenes`: it shows the procedural scenes that the seed model is trained on."""

from pathlib import Path
from typing import Annotated

import typer


def scenes(
    out: Annotated[Path, typer.Argument(help="PNG file to write.")],
    count: Annotated[int, typer.Option(help="Number of scenes.", min=1, max=1024)] = 64,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same scenes.")] = 0,
) -> None:
    """Draw a contact sheet of the procedural scenes that the seed model is trained on."""
    from engine.scenes.sheet import write_contact_sheet

    write_contact_sheet(out, count, seed)
    print(out)
