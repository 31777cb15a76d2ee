"""The command `gigamask lineage`: what something was made from, and what was made from it."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri
from flows.progress import log

if TYPE_CHECKING:
    from stages.training.lineage import Lineage, Link


def lineage(
    what: Annotated[str, typer.Argument(help="Id of a model or snapshot, `promoted`, or a mask as IMAGE_ID/MASK_ID.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    as_json: AsJson = False,
) -> None:
    """Show what a mask, model or snapshot was made from (models, rounds, people, code) and what was made from it."""
    log(f"lineage: {what} of {dataset}")
    from stages.training.lineage import find_lineage
    from storage.dataset import Dataset

    found = find_lineage(Dataset.open(dataset), what)
    print(json.dumps(found.to_json()) if as_json else as_text(found))


def as_text(found: "Lineage") -> str:
    """Write a lineage as an indented list of both directions."""
    lines = [f"{found.kind} {found.id}"]
    for title, links in (("made from", found.made_from), ("made into", found.made_into)):
        lines.append(f"  {title}")
        lines += [f"    {_line(link)}" for link in links] or ["    nothing"]
    return "\n".join(lines)


def _line(link: "Link") -> str:
    return f"{link.kind} {link.id}" + (f" ({link.detail})" if link.detail else "")
