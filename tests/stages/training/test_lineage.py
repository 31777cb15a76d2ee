"""Lineage in both directions, from the photograph to the model that learned from its masks."""

from dataclasses import replace
from pathlib import Path

import pytest

from flows.cli.lineage import as_text
from flows.lineage.graph import build_graph
from stages.training.lineage import Lineage, find_lineage
from stages.training.retrain import find_new_rounds, train_on_rounds
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.protocol.promotions import Decided, Decision
from storage.records import image_key
from storage.workspace.workspace import Workspace
from tests.stages.training.rounds_to_train import dataset_with_a_round
from tests.stages.training.test_retrain import DATA, QUICK


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, str, str, str, str]:
    """A dataset with a round and a model that was trained on it: dataset, parent, model, snapshot, round."""
    folder = tmp_path_factory.mktemp("lineage")
    with Workspace.open(folder / "workspace.sqlite", max_held=100) as workspace:
        workspace.users.add("ann", "annotator")
        dataset = dataset_with_a_round(folder, workspace)
    new = find_new_rounds(dataset, folder, held_out_every=3)
    model_id = train_on_rounds(
        dataset, new, folder, replace(DATA, scene_share=0.0, replay_fraction=0.0), QUICK, steps=1, log=lambda line: None
    )
    refusal = Decided(
        decision=Decision.REFUSAL, model_id=model_id, over=new.promoted, key="k", made_by="bob", reason="no gain"
    )
    dataset.promotions.add(refusal)
    return dataset, new.promoted, model_id, new.snapshot, new.rounds[0]


def links(found: Lineage, kind: str) -> tuple[list[str], list[str]]:
    """Ids of one kind that something was made from, and was made into."""
    pair = (found.made_from, found.made_into)
    return tuple([link.id for link in some if link.kind == kind] for some in pair)  # type: ignore[return-value]


def test_a_model_knows_its_parent_rounds_people_snapshot_code_and_decisions(
    trained: tuple[Dataset, str, str, str, str],
) -> None:
    dataset, parent, model_id, snapshot, round_id = trained
    found = find_lineage(dataset, model_id)
    assert links(found, "model")[0] == [parent]
    assert links(found, "snapshot")[0] == [snapshot]
    assert links(found, "round")[0] == [round_id]
    assert links(found, "annotator")[0] == ["ann"]
    assert links(found, "code")[0][0].startswith("gigamask ")
    assert links(found, "decision")[1] == ["2"]
    assert links(find_lineage(dataset, parent), "model")[1] == [model_id]
    assert find_lineage(dataset, "promoted").id == parent
    assert "decision 2 (refusal by bob: no gain)" in as_text(found)


def test_a_snapshot_knows_what_it_holds_and_which_models_it_made(trained: tuple[Dataset, str, str, str, str]) -> None:
    dataset, _, model_id, snapshot, round_id = trained
    found = find_lineage(dataset, snapshot)
    assert links(found, "round")[0] == [round_id]
    assert "one-1" in links(found, "model")[0]
    assert links(found, "model")[1] == [model_id]


def test_a_mask_knows_its_photograph_and_the_models_that_trained_on_it(
    trained: tuple[Dataset, str, str, str, str],
) -> None:
    dataset, _, model_id, snapshot, round_id = trained
    rows = dataset.query(f"SELECT image_id, mask_id FROM masks WHERE round_id = '{round_id}'").to_pylist()
    for row in rows:
        found = find_lineage(dataset, f"{row['image_id']}/{row['mask_id']}")
        assert found == find_lineage(dataset, str(row["mask_id"]))
        assert links(found, "round")[0] == [round_id]
        assert links(found, "annotator")[0] == ["ann"]
        assert found.made_from[0].detail.startswith("photos/")
        assert links(found, "snapshot")[1] == [snapshot]
        assert links(found, "model")[1] == ([model_id] if row["image_id"] % 3 else []), "held-out images never train"


def test_what_is_not_there_is_refused_with_the_forms(trained: tuple[Dataset, str, str, str, str]) -> None:
    dataset = trained[0]
    with pytest.raises(NotFound, match="'nobody' is no model, snapshot or mask; expected"):
        find_lineage(dataset, "nobody")
    with pytest.raises(NotFound, match="0 masks are called 1/2"):
        find_lineage(dataset, "1/2")


def test_nothing_promoted_yet_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model was promoted yet"):
        find_lineage(Dataset.create(tmp_path / "empty"), "promoted")


def test_a_withdrawn_mask_still_has_a_lineage_that_says_why_it_is_gone(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "workspace.sqlite", max_held=100) as workspace:
        workspace.users.add("ann", "annotator")
        dataset = dataset_with_a_round(tmp_path, workspace)
    by_hand, automatic = (
        dataset.query(f"SELECT * FROM masks WHERE round_id {sign} '' ORDER BY image_id, mask_id").to_pylist()[0]
        for sign in ("<>", "=")
    )
    before = find_lineage(dataset, str(by_hand["mask_id"]))
    for row in (by_hand, automatic):
        dataset.withdraw([(row["image_id"], row["mask_id"])], "a person asked for it")
    name = f"{by_hand['image_id']}/{by_hand['mask_id']}"
    found = find_lineage(dataset, name)
    assert (found.kind, found.id, found.made_from) == ("mask", name, before.made_from)
    assert f"withdrawal {by_hand['mask_id']} (a person asked for it)" in as_text(found)
    found = find_lineage(dataset, str(automatic["mask_id"]))
    assert {link.id for link in found.made_from} >= {image_key(automatic["image_id"]), automatic["plan"]}
    assert found.made_into[0].detail == "a person asked for it"


def test_the_graph_follows_models_and_snapshots_and_puts_what_was_used_to_the_left(
    trained: tuple[Dataset, str, str, str, str],
) -> None:
    dataset, parent, model_id, snapshot, round_id = trained
    graph = build_graph(dataset, snapshot, steps=2)
    columns = {key: node.column for key, node in graph.nodes.items()}
    assert columns["snapshot", snapshot] == 0
    assert columns["round", round_id] < 0
    assert columns["model", model_id] == 1
    assert columns["decision", "2"] == 2, "by way of the model"
    assert all(columns[used] < columns[made] for used, made in graph.edges)
    far = build_graph(dataset, model_id, steps=2)
    assert far.nodes["round", round_id].column == -2, "in the snapshot, although the model names it, too"
    assert far.nodes["model", parent].column == -1
    assert build_graph(dataset, model_id, steps=1).nodes["round", round_id].column == -1
