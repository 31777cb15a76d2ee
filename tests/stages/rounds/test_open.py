from collections.abc import Sequence
from dataclasses import replace

import pytest

from stages.rounds.choose import ChosenImage, choose_images, random_order, sql_order
from stages.rounds.open import GOLD_VIEWS, RoundRequest, choose_for, make_tasks, open_round, request_of, until_free
from stages.rounds.prefill_sources import images_to_prefill, masks_of_dataset
from storage.dataset import Dataset
from storage.workspace.records import Round
from storage.workspace.tasks import ImagesTaken
from storage.workspace.workspace import Workspace
from tests.stages.rounds.answering import image_ids


def test_a_random_order_follows_from_its_seed(dataset: Dataset) -> None:
    first, again, other = (choose_images(dataset, random_order(seed), count=4) for seed in (1, 1, 2))
    assert first == again != other
    assert len({image.image_id for image in first}) == 4
    assert {(image.height, image.width) for image in first} == {(64, 64)}


def test_a_query_orders_the_images(dataset: Dataset) -> None:
    chosen = choose_images(dataset, sql_order("SELECT image_id FROM images ORDER BY image_id DESC"), count=2)
    assert [image.image_id for image in chosen] == image_ids(dataset)[:-3:-1]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT key FROM images", "expected a column image_id"),
        ("SELECT image_id FROM masks", "twice; use DISTINCT"),
        ("SELECT 5 AS image_id", "are not in"),
        ("SELECT image_id FROM images WHERE false", "is left to ask about"),
        ("SELECT nothing FROM images", "SQL"),
    ],
)
def test_a_wrong_query_is_refused(dataset: Dataset, query: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        choose_images(dataset, sql_order(query))


def test_a_random_round_passes_over_images_of_other_rounds(dataset: Dataset, workspace: Workspace) -> None:
    request = RoundRequest(stage="assisted_manual", images=6)
    first = choose_for(dataset, workspace, request)
    opened = open_round(workspace, request, make_tasks(dataset, request, first))
    second = choose_for(dataset, workspace, request)
    assert len(second) == 4
    assert not {image.image_id for image in first} & {image.image_id for image in second}
    workspace.rounds.cancel(opened.round_id)
    assert choose_for(dataset, workspace, request) == first


def test_held_out_images_come_first_as_far_as_they_are_wanted_and_left(dataset: Dataset, workspace: Workspace) -> None:
    held_out = {image_id for image_id in image_ids(dataset) if image_id % 3 == 0}
    assert len(held_out) >= 2
    plain = RoundRequest(stage="assisted_manual", images=3, held_out_every=3)
    last = next(
        seed for seed in range(100) if not held_out & ids_of(choose_for(dataset, workspace, seeded(plain, seed)))
    )
    wanted = replace(seeded(plain, last), held_out_images=2)
    first = choose_for(dataset, workspace, wanted)
    assert len(first) == 3
    assert len(held_out & ids_of(first)) == 2
    open_round(workspace, wanted, make_tasks(dataset, wanted, first))
    left = held_out - ids_of(first)
    second = choose_for(dataset, workspace, replace(wanted, held_out_images=len(held_out), images=5))
    assert held_out & ids_of(second) == left
    assert len(second) == 5


def seeded(request: RoundRequest, seed: int) -> RoundRequest:
    return replace(request, seed=seed)


def ids_of(images: Sequence[ChosenImage]) -> set[int]:
    return {image.image_id for image in images}


def test_images_that_another_round_took_after_they_were_chosen_are_chosen_anew(
    dataset: Dataset, workspace: Workspace
) -> None:
    request = RoundRequest(stage="assisted_manual", images=4)
    chosen = make_tasks(dataset, request, choose_for(dataset, workspace, request))
    first = open_round(workspace, request, chosen)
    waiting = [chosen]

    def choose_and_open() -> Round:
        tasks = waiting.pop() if waiting else make_tasks(dataset, request, choose_for(dataset, workspace, request))
        return open_round(workspace, request, tasks)

    second = until_free(choose_and_open)
    images = [{task.image_id for task in workspace.rounds.tasks(each.round_id)} for each in (first, second)]
    assert [len(each) for each in images] == [4, 4]
    assert not images[0] & images[1]
    with pytest.raises(ImagesTaken, match="4 of 4 chosen images were taken by a round that was opened meanwhile"):
        open_round(workspace, request, chosen)
    named = RoundRequest(stage="assisted_manual", query="SELECT image_id FROM images")
    assert open_round(workspace, named, chosen), "a query may name the images of other rounds"


def test_extending_a_round_that_has_ended_is_refused_before_images_are_chosen(
    dataset: Dataset, workspace: Workspace
) -> None:
    request = RoundRequest(stage="assisted_manual", images=1)
    opened = open_round(workspace, request, make_tasks(dataset, request, choose_for(dataset, workspace, request)))
    workspace.rounds.cancel(opened.round_id)
    with pytest.raises(ValueError, match="is cancelled; expected open or paused"):
        request_of(workspace.rounds.get(opened.round_id), images=1)


def test_a_fraction_of_the_images_is_overlapped(dataset: Dataset, workspace: Workspace) -> None:
    request = RoundRequest(stage="assisted_manual", overlap=3, overlap_fraction=0.2)
    tasks = make_tasks(dataset, request, choose_for(dataset, workspace, request))
    assert sorted(task.overlap for task in tasks) == [1] * 8 + [3] * 2


def test_gold_images_are_hidden_among_the_others_with_several_views(dataset: Dataset, workspace: Workspace) -> None:
    (row,) = dataset.query("SELECT image_id, min(mask_id) AS mask_id FROM masks GROUP BY image_id LIMIT 1").to_pylist()
    gold = f"SELECT image_id, mask_id FROM masks WHERE mask_id = {row['mask_id']}"
    request = RoundRequest(stage="assisted_manual", gold=gold)
    tasks = make_tasks(dataset, request, choose_for(dataset, workspace, request))
    (golden,) = (task for task in tasks if task.gold)
    assert (golden.image_id, golden.overlap, len(golden.gold)) == (row["image_id"], GOLD_VIEWS, 1)
    assert len(tasks) == 10
    with pytest.raises(ValueError, match="columns image_id and mask_id"):
        make_tasks(dataset, RoundRequest(stage="assisted_manual", gold="SELECT image_id FROM masks"), [])


def test_masks_of_the_dataset_prefill_all_but_a_fraction(dataset: Dataset, workspace: Workspace) -> None:
    request = RoundRequest(stage="semi_automatic")
    images = choose_for(dataset, workspace, request)
    filled = images_to_prefill(images, empty_fraction=0.3, seed=4)
    assert len(filled) == 7
    prefill = masks_of_dataset("model_id = 'one-1'")(dataset, filled)
    tasks = make_tasks(dataset, request, images, prefill)
    given = {task.image_id: task.prefill for task in tasks}
    for image in images:
        masks = given[image.image_id]
        expected = image in filled and dataset.masks_of_image(image.image_id).num_rows > 0
        assert len(masks) == (2 if expected else 0)
        for mask in masks:
            assert mask.rle == dataset.read_mask(image.image_id, int(mask.source.partition("/")[2])).rle
    with pytest.raises(ValueError, match="below 1"):
        images_to_prefill(images, empty_fraction=1, seed=0)


def test_malformed_requests_are_refused(dataset: Dataset, workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="images 0"):
        choose_for(dataset, workspace, RoundRequest(stage="assisted_manual", images=0))
    with pytest.raises(ValueError, match="overlap 0"):
        make_tasks(dataset, RoundRequest(stage="assisted_manual", overlap=0), [])
