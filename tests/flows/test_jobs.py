"""What is due, from a real dataset and workspace."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.config.serve import ServeSettings
from flows.engine_state import (
    RETRAINING,
    count_accepted_masks,
    count_free,
    find_due_masks,
    masks_at_last_retraining,
    retraining_counts_from,
)
from flows.jobs import open_once
from stages.rounds.close import close_round
from stages.rounds.open import RoundRequest
from storage.dataset import Dataset
from storage.workspace.firings import MAX_ATTEMPTS
from storage.workspace.workspace import Workspace
from tests.small_dataset import small_dataset
from tests.stages.rounds.answering import answer_all, image_ids, small_round


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "dataset")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace.sqlite", max_held=100) as opened:
        opened.users.add("ann", "annotator")
        yield opened


def test_masks_count_from_the_last_retraining_that_ended_well(dataset: Dataset, workspace: Workspace) -> None:
    dataset.fold()
    ids = image_ids(dataset)

    def close_a_round(images: list[int]) -> None:
        opened = small_round(workspace, images)
        answer_all(workspace, "ann", squares=2)
        assert find_due_masks(dataset, workspace, 8) in ("", "masks:8"), "answers of an open round do not count"
        close_round(dataset, workspace, opened.round_id)

    def retrain(key: str, *, failed: bool) -> None:
        token = workspace.firings.take(RETRAINING, key, "test", retry_s=-1)
        assert token is not None
        result = {"error": "too few images"} if failed else {"accepted_masks": count_accepted_masks(dataset)}
        workspace.firings.end(token, result, failed=failed)

    close_a_round(ids[:3])
    assert count_accepted_masks(dataset) == 6
    assert find_due_masks(dataset, workspace, 8) == ""
    assert find_due_masks(dataset, workspace, 0) == "", "no number is wanted"
    close_a_round(ids[3:6])
    assert find_due_masks(dataset, workspace, 8) == "masks:8"

    # One that failed leaves its key due; one by cron counts as well
    retrain("masks:8", failed=True)
    assert find_due_masks(dataset, workspace, 8) == "masks:8"
    retrain("cron 0 2 * * *:2026-03-02T02:00:00Z", failed=False)
    assert masks_at_last_retraining(workspace) == 12
    assert find_due_masks(dataset, workspace, 8) == ""
    close_a_round(ids[6:10])
    assert find_due_masks(dataset, workspace, 8) == "masks:20"

    # One that was given up is behind: as many masks again are another chance
    for attempt in range(MAX_ATTEMPTS):
        assert find_due_masks(dataset, workspace, 8) == "masks:20", attempt
        retrain("masks:20", failed=True)
    assert find_due_masks(dataset, workspace, 8) == ""
    assert [each.key for each in workspace.firings.given_up(RETRAINING)] == ["masks:20"]
    assert (retraining_counts_from(workspace), masks_at_last_retraining(workspace)) == (20, 12)


def test_tasks_of_audits_and_of_paused_rounds_are_not_free(dataset: Dataset, workspace: Workspace) -> None:
    dataset.fold()
    ids = image_ids(dataset)
    first = small_round(workspace, ids[:3])
    small_round(workspace, ids[3:5])
    assert count_free(workspace) == 5
    workspace.rounds.pause(first.round_id)
    assert count_free(workspace) == 2
    workspace.leases.claim("ann")
    assert count_free(workspace) == 1


def test_tasks_that_everybody_skipped_are_not_free(dataset: Dataset, workspace: Workspace) -> None:
    dataset.fold()
    small_round(workspace, image_ids(dataset)[:3])
    (lease,) = workspace.leases.claim("ann")
    workspace.leases.skip(lease.token, "too dark")
    assert count_free(workspace) == 2


def test_a_round_is_opened_once_for_a_key_also_where_its_settings_have_changed(
    dataset: Dataset, workspace: Workspace
) -> None:
    dataset.fold()
    settings = ServeSettings(dataset=dataset.uri, workspace=workspace.database.place)
    request = RoundRequest(stage="assisted_manual", images=2, name="monday")
    with prefect_test_harness(server_startup_timeout=600):
        first = open_once(workspace, settings, request, "cron:monday")
        again = [open_once(workspace, settings, each, "cron:monday") for each in (request, replace(request, images=5))]
        other = open_once(workspace, settings, request, "cron:tuesday")
    assert (first["images"], other["images"]) == (2, 2)
    assert again == [{"round_id": first["round_id"], "reason": "it was open already"}] * 2
    assert len(workspace.rounds.read_all()) == 2
