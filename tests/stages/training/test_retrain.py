"""Retraining on closed rounds: what is new, one training for one snapshot and model, and the gate behind it."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from engine.evaluation.config import EvaluationConfig, GateConfig, GateSettings
from engine.model.weights import load_model
from engine.training.calibrate import CalibrationConfig
from stages.training.gate import start_chain
from stages.training.job import DataConfig
from stages.training.retrain import JudgedModel, NewRounds, find_new_rounds, judge_model, train_on_rounds
from storage.dataset import Dataset
from storage.protocol.promotions import Decided, Decision
from storage.workspace.workspace import Workspace
from tests.small_dataset import small_dataset
from tests.stages.rounds.answering import image_ids
from tests.stages.training.rounds_to_train import close_new_round, dataset_with_a_round

QUICK = {"batch_size": 1, "checkpoint_every_s": 0.0, "log_every": 1}
DATA = DataConfig(  # without scenes, which take most of the time
    held_out_every=3,
    scene_share=0.0,
    replay_fraction=0.0,
    calibration=CalibrationConfig(images_per_source=2, prompts=2),
)
GATE = GateSettings(
    evaluate=EvaluationConfig(clicks=(1, 3)),
    gate=GateConfig(min_images=1, max_latency_ratio=100.0, known_scenes=2),
)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace.sqlite", max_held=100) as opened:
        opened.users.add("ann", "annotator")
        yield opened


@pytest.fixture
def dataset(tmp_path: Path, workspace: Workspace) -> Dataset:
    return dataset_with_a_round(tmp_path, workspace)


def look(dataset: Dataset, work: Path) -> NewRounds:
    return find_new_rounds(dataset, work, held_out_every=3)


def train(dataset: Dataset, new: NewRounds, work: Path, lines: list[str]) -> str:
    return train_on_rounds(dataset, new, work, DATA, QUICK, steps=2, log=lines.append)


def test_a_round_is_trained_on_once_and_the_card_says_on_what(dataset: Dataset, tmp_path: Path) -> None:
    new = look(dataset, tmp_path)
    (round_id,) = new.rounds
    assert (new.promoted, new.known_rounds) == (dataset.models.ids()[0], ())
    lines: list[str] = []
    model_id = train(dataset, new, tmp_path, lines)
    card = load_model(dataset.models.fetch(model_id, tmp_path)).card
    assert card.parent == new.promoted
    assert card.training["rounds"] == [round_id]
    assert (card.training["snapshot"], card.training["code"].split()[0]) == (new.snapshot, "gigamask")

    # The same snapshot and model are not trained again
    again: list[str] = []
    assert train(dataset, new, tmp_path / "elsewhere", again) == model_id
    assert again == [line for line in again if f"has made {model_id}" in line]


def test_the_model_that_ships_can_be_retrained(tmp_path: Path) -> None:
    """Its card tells in words what its data was."""
    dataset = small_dataset(tmp_path / "data")
    started = start_chain(dataset, tmp_path)
    new = find_new_rounds(dataset, tmp_path, held_out_every=4)
    assert (new.promoted, new.known_rounds, new.held_out_every) == (started.model_id, (), 4)
    assert isinstance(load_model("seed").card.training["data"], str)


def test_a_model_is_judged_on_images_no_training_saw_and_the_next_round_is_new_to_it(
    dataset: Dataset, workspace: Workspace, tmp_path: Path
) -> None:
    new = look(dataset, tmp_path)
    model_id = train(dataset, new, tmp_path, [])
    judged = judge(dataset, model_id, new, tmp_path)
    assert judged.generation == 2
    assert judged.decision in ("refusal", "promotion")
    assert judge(dataset, model_id, new, tmp_path) == judged
    evidence = dataset.promotions.history()[-1].evidence["evaluation_set"]
    assert isinstance(evidence, dict)
    ids = image_ids(dataset)
    assert evidence["images"] == sum(each % 3 == 0 for each in ids[:6])

    # A round closed later adds its held-out images, as long as they are few
    second = close_new_round(dataset, workspace, ids[6:9])
    later = look(dataset, tmp_path)
    assert later.snapshot != new.snapshot
    assert second in later.rounds
    other = train(dataset, replace(later, promoted=model_id, rounds=(second,), known_rounds=new.rounds), tmp_path, [])
    judge(dataset, other, later, tmp_path, frozen_from_images=1)
    assert dataset.promotions.history()[-1].evidence["evaluation_set"] == evidence
    judge(dataset, other, later, tmp_path, frozen_from_images=20)
    grown = dataset.promotions.history()[-1].evidence["evaluation_set"]
    assert isinstance(grown, dict)
    assert grown["images"] == sum(each % 3 == 0 for each in ids[:9]) > evidence["images"]
    card = load_model(dataset.models.fetch(other, tmp_path)).card
    assert card.training["rounds"] == [*new.rounds, second]

    # Once it is promoted, another hold-out would train on what it is judged by
    newest = dataset.promotions.newest()
    assert newest is not None
    by_hand = Decided(
        decision=Decision.PROMOTION, model_id=other, over=newest.promoted, key="by hand", made_by="test", reason="test"
    )
    dataset.promotions.add(by_hand)
    with pytest.raises(ValueError, match=r"retrain.held_out_every: got 5, expected 3 as for"):
        find_new_rounds(dataset, tmp_path, held_out_every=5)


def judge(dataset: Dataset, model_id: str, new: NewRounds, work: Path, *, frozen_from_images: int = 20) -> JudgedModel:
    return judge_model(
        dataset,
        model_id,
        new,
        replace(GATE, gate=replace(GATE.gate, frozen_from_images=frozen_from_images)),
        data=None,
        new_set=False,
        made_by="test",
        work_folder=work,
        log=lambda line: None,
    )


def test_too_few_held_out_images_are_refused_with_advice(dataset: Dataset, tmp_path: Path) -> None:
    new = replace(look(dataset, tmp_path), held_out_every=10**9)
    with pytest.raises(ValueError, match=r"got 0 images with masks, expected at least 1 .* close more rounds"):
        judge(dataset, new.promoted, new, tmp_path)
    with pytest.raises(ValueError, match="0 be held out"):
        train(dataset, new, tmp_path, [])
    assert asdict(new)["rounds"]
