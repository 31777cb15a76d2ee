"""The drawn lineage: every thing in its column, an arrow for each direct use, in a file that needs no other."""

from pathlib import Path
from xml.etree import ElementTree

from flows.lineage.graph import Graph, Key, Node, direct_edges
from flows.lineage.page import MAX_ROWS, write_graph
from stages.training.lineage import Lineage, Link

MODEL, SNAPSHOT = ("model", "m-1"), ("snapshot", "s-1")


def graph_of(rounds: int) -> Graph:
    """A model of a snapshot that holds so many rounds, in which the model itself lists them, too."""
    ids = [f"round-<{number}>" for number in range(rounds)]
    nodes: dict[Key, Node] = {MODEL: Node(kind="model", id="m-1", detail="", column=0)}
    nodes[SNAPSHOT] = Node(kind="snapshot", id="s-1", detail="2 training steps", column=-1)
    nodes |= {("round", each): Node(kind="round", id=each, detail="8 masks & more", column=-2) for each in ids}
    edges: set[tuple[Key, Key]] = {(SNAPSHOT, MODEL)}
    edges |= {(("round", each), made) for each in ids for made in (SNAPSHOT, MODEL)}
    links = (Link(kind="snapshot", id="s-1"), *(Link(kind="round", id=each, detail="8 masks & more") for each in ids))
    lineage = Lineage(kind="model", id="m-1", made_from=links, made_into=())
    return Graph(lineage=lineage, nodes=nodes, edges=frozenset(edges))


def test_an_edge_that_a_longer_way_implies_is_left_out() -> None:
    assert direct_edges(graph_of(1)) == {(("round", "round-<0>"), SNAPSHOT), (SNAPSHOT, MODEL)}


def test_the_svg_file_names_everything_and_stands_alone(tmp_path: Path) -> None:
    path = write_graph(graph_of(2), tmp_path / "lineage.svg")
    root = ElementTree.parse(path).getroot()
    texts = {each.text for each in root.iter() if each.tag.endswith("text")}
    assert {"m-1", "s-1", "2 training steps", "round-<0>", "round-<1>", "8 masks & more"} <= texts
    written = path.read_text(encoding="utf-8")
    assert "--accent:" in written, "its colours are defined"
    assert 'href="http' not in written.replace('href="http://www.w3.org', "")


def test_the_page_lists_what_a_long_column_leaves_out(tmp_path: Path) -> None:
    page = write_graph(graph_of(MAX_ROWS + 5), tmp_path / "lineage.html").read_text(encoding="utf-8")
    assert ">and 5 more<" in page
    assert page.count(f"<code>round-&lt;{MAX_ROWS + 4}&gt;</code>") == 1, "the list below the graph has all"
    assert "<script" not in page
