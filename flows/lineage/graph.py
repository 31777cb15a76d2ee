"""The graph of a lineage: what something was made from, step by step, and what was made from it.

find_lineage -> its links -> the links of these models and snapshots -> ...
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from stages.training.lineage import Lineage, Link, find_lineage
from storage.dataset import Dataset
from storage.errors import NotFound

FOLLOWED = ("model", "snapshot")
"""Kinds of things whose own links are followed."""
COUNTS = ("masks", "images")
"""Kinds whose id is a number of things, so that equal ids of two things do not mean the same."""

Key = tuple[str, str]
"""Kind and id of a node; of a count also what it belongs to."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One thing of the graph."""

    kind: str
    id: str
    detail: str
    """Facts about it, for people; empty for none."""
    column: int
    """Number of steps from the thing that was asked about; negative for what it was made from."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Graph of a lineage."""

    lineage: Lineage
    """Lineage of the thing that was asked about, whose node has column 0."""
    nodes: dict[Key, Node]
    edges: frozenset[tuple[Key, Key]]
    """Pairs of what was used and what was made from it."""


def build_graph(dataset: Dataset, name: str, *, steps: int) -> Graph:
    """Follow the links of a mask, a model or a snapshot in both directions.

    Args:
        dataset: The dataset.
        name: What `find_lineage` takes.
        steps: Number of steps to follow in each direction, at least 1.

    Raises:
        NotFound: There is no such thing in the dataset.
    """
    start = find_lineage(dataset, name)
    known = {(start.kind, start.id): start}
    nodes = {(start.kind, start.id): Node(kind=start.kind, id=start.id, detail="", column=0)}
    edges = set[tuple[Key, Key]]()

    def links_of(key: Key) -> Lineage | None:
        if key not in known and key[0] in FOLLOWED:
            with suppress(NotFound):  # a model that made masks and is no version of the dataset
                known[key] = find_lineage(dataset, key[1])
        return known.get(key)

    # A thing that several steps lead to is drawn at the last of them, so that every edge goes from left to right
    for sign in (-1, 1):
        reached = [(start.kind, start.id)]
        for step in range(1, steps + 1):
            found = list(_step(reached, links_of, is_back=sign < 0))
            for owner, key, link in found:
                edges.add((key, owner) if sign < 0 else (owner, key))
                nodes[key] = Node(kind=link.kind, id=link.id, detail=link.detail, column=sign * step)
            reached = list(dict.fromkeys(key for _, key, _ in found))
    return Graph(lineage=start, nodes=nodes, edges=frozenset(edges))


def direct_edges(graph: Graph) -> frozenset[tuple[Key, Key]]:
    """Leave out edges that a longer way implies: a round is in the snapshot, and the snapshot in the model."""
    after: dict[Key, set[Key]] = {}
    for used, made in graph.edges:
        after.setdefault(used, set()).add(made)

    def leads_to(key: Key, end: Key) -> bool:
        return end in after.get(key, ()) or any(leads_to(each, end) for each in after.get(key, ()))

    def is_implied(used: Key, made: Key) -> bool:
        return any(leads_to(each, made) for each in after[used] if each != made)

    return frozenset(edge for edge in graph.edges if not is_implied(*edge))


def _step(
    reached: list[Key], links_of: Callable[[Key], Lineage | None], *, is_back: bool
) -> Iterator[tuple[Key, Key, Link]]:
    for owner in reached:
        lineage = links_of(owner)
        if lineage is not None:
            for link in lineage.made_from if is_back else lineage.made_into:
                place = f"{link.id} {link.detail} {owner[1]}" if link.kind in COUNTS else link.id
                yield owner, (link.kind, place), link
