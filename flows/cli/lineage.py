"""The command `gigamask lineage`: what something was made from, and what was made from it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri
from flows.progress import log

if TYPE_CHECKING:
    from stages.training.lineage import Lineage, Link


def lineage(
    what: Annotated[str, typer.Argument(help="Id of a model or snapshot, `promoted`, or a mask as IMAGE_ID/MASK_ID.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    graph: Annotated[Path | None, typer.Option(help="File to draw the graph into: .svg, or .html for a page.")] = None,
    steps: Annotated[int, typer.Option(help="Number of steps that the graph follows, both ways.", min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """Show what a mask, model or snapshot was made from (models, rounds, people, code) and what was made from it."""
    log(f"lineage: {what} of {dataset}")
    if graph is not None and graph.suffix not in (".svg", ".html"):
        raise ValueError(f"{graph}: expected the name of an .svg or .html file")
    from storage.dataset import Dataset

    opened = Dataset.open(dataset)
    if graph is not None:
        from flows.lineage.graph import build_graph
        from flows.lineage.page import write_graph

        drawn = build_graph(opened, what, steps=steps)
        log(f"graph: {write_graph(drawn, graph)}")
        found = drawn.lineage
    else:
        from stages.training.lineage import find_lineage

        found = find_lineage(opened, what)
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
