"""A model ranks the images of a round; held-out images and a random part keep the places of a random order."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.model.weights import load_model
from engine.selection.rank import describe_image
from stages.rounds.choose import random_order
from stages.rounds.open import RoundRequest, choose_for, make_tasks, open_round, request_of
from stages.rounds.worth import stays_random
from stages.stored_pixels import read_stored_pixels
from storage.dataset import Dataset
from storage.workspace.workspace import Workspace
from tests.tiny_network import save_tiny_model

HELD_OUT_EVERY = 3
SEED = 5


@pytest.fixture
def ranked_request(tmp_path: Path) -> RoundRequest:
    return RoundRequest(
        stage="assisted_manual",
        choose_by="disagreement",
        seed=SEED,
        held_out_every=HELD_OUT_EVERY,
        model=str(save_tiny_model(tmp_path)),
    )


def chosen_by(dataset: Dataset, workspace: Workspace, request: RoundRequest) -> list[int]:
    return [image.image_id for image in choose_for(dataset, workspace, request)]


def may_move(image_id: int) -> bool:
    return image_id % HELD_OUT_EVERY != 0 and not stays_random(image_id, SEED)


def test_a_ranking_moves_neither_held_out_images_nor_the_random_part(
    dataset: Dataset, workspace: Workspace, ranked_request: RoundRequest
) -> None:
    shuffled = random_order(SEED)(dataset)
    ranked = chosen_by(dataset, workspace, ranked_request)
    assert sorted(ranked) == sorted(shuffled)
    assert ranked != shuffled
    stay = [image_id for image_id in shuffled if not may_move(image_id)]
    assert stay
    assert [ranked.index(image_id) for image_id in stay] == [shuffled.index(image_id) for image_id in stay]


def test_images_that_the_model_doubts_most_come_first_once_the_noise_has_fallen(
    dataset: Dataset, workspace: Workspace, ranked_request: RoundRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.rounds.worth.NOISE", 0.0)
    monkeypatch.setattr("engine.selection.rank.MAX_COSINE", 1.1)
    model = load_model(ranked_request.model)
    ranked = [each for each in chosen_by(dataset, workspace, ranked_request) if may_move(each)]
    doubts = [describe_image(model, read_stored_pixels(dataset, each)).disagreement for each in ranked]
    assert doubts == sorted(doubts, reverse=True)
    assert len(set(doubts)) > 1


def test_the_next_round_and_an_extension_rank_what_is_left(
    dataset: Dataset, workspace: Workspace, ranked_request: RoundRequest
) -> None:
    first = replace(ranked_request, images=4)
    taken = choose_for(dataset, workspace, first)
    opened = open_round(workspace, first, make_tasks(dataset, first, taken))
    assert opened.settings["choose_by"] == "disagreement"
    further = request_of(opened, images=3)
    assert further.choose_by == "disagreement"
    left = chosen_by(dataset, workspace, further)
    assert len(left) == 3
    assert not {image.image_id for image in taken} & set(left)


def test_images_that_may_not_move_are_left_where_they_are(
    dataset: Dataset, workspace: Workspace, ranked_request: RoundRequest
) -> None:
    """Also where no image is left, which is told as without a ranking."""
    movable = [image_id for image_id in random_order(SEED)(dataset) if may_move(image_id)]
    named = ", ".join(map(str, movable))
    asked = RoundRequest(stage="assisted_manual", query=f"SELECT image_id FROM images WHERE image_id IN ({named})")
    open_round(workspace, asked, make_tasks(dataset, asked, choose_for(dataset, workspace, asked)))
    left = chosen_by(dataset, workspace, ranked_request)
    assert left == [image_id for image_id in random_order(SEED)(dataset) if image_id not in movable]
    open_round(
        workspace, ranked_request, make_tasks(dataset, ranked_request, choose_for(dataset, workspace, ranked_request))
    )
    with pytest.raises(ValueError, match="is left to ask about"):
        choose_for(dataset, workspace, ranked_request)


def test_an_unknown_order_is_refused(dataset: Dataset, workspace: Workspace, ranked_request: RoundRequest) -> None:
    wrong = replace(ranked_request, choose_by="beauty")
    with pytest.raises(ValueError, match="choose_by 'beauty': expected one of random, diversity"):
        choose_for(dataset, workspace, wrong)
