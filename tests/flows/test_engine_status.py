"""The engine at a glance, of a real dataset and workspace."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import make_app
from flows.engine_status import read_engine_status, render_engine_status
from stages.rounds.close import close_round
from stages.simulated.accounts import open_accounts
from storage.dataset import Dataset
from storage.protocol.promotions import Decided, Decision
from storage.workspace.workspace import Workspace
from tests.small_dataset import small_dataset
from tests.stages.rounds.answering import answer, answer_all, image_ids, small_round


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    opened = small_dataset(tmp_path / "dataset")
    opened.fold()
    return opened


@pytest.fixture
def workspace(dataset: Dataset) -> Iterator[Workspace]:
    with Workspace.open(Path(dataset.uri) / "workspace.sqlite", max_held=100) as opened:
        for name, role in (("ann", "annotator"), ("bob", "annotator"), ("lea", "lead")):
            opened.users.add(name, role)
        yield opened


def test_what_waits_for_whom_is_told_from_the_first_task_to_the_last(dataset: Dataset, workspace: Workspace) -> None:
    opened = small_round(workspace, image_ids(dataset)[:3])
    here = f"--dataset {dataset.uri}"
    first = read_engine_status(dataset, workspace)
    assert first.waits == (f"3 tasks of {opened.round_id} for annotators: gigamask annotate {here}",)

    # One task done and sent back, one held
    (lease,) = workspace.leases.claim("ann")
    answer(workspace, lease)
    workspace.leases.claim("bob")
    (submission,) = workspace.submissions.read()
    waiting = read_engine_status(dataset, workspace)
    assert waiting.reviews_waiting == 1
    assert waiting.waits[-1] == "1 submission for reviewers"
    assert {each.name: (each.held, each.submitted) for each in waiting.people} == {
        "ann": (0, 1),
        "bob": (1, 0),
        "lea": (0, 0),
    }
    workspace.submissions.send_back(submission.submission_id, "leaks", actor="lea")
    assert "1 task sent back for ann" in read_engine_status(dataset, workspace).waits

    # All answers are in; closed, nothing waits
    for name in ("ann", "bob"):
        for held in workspace.leases.held(name):
            answer(workspace, held)
        answer_all(workspace, name)
    full = read_engine_status(dataset, workspace)
    close = f"{opened.round_id}, whose answers are all in, for a lead: gigamask round close {opened.round_id} {here}"
    assert close in full.waits
    close_round(dataset, workspace, opened.round_id)
    closed = read_engine_status(dataset, workspace)
    assert (closed.waits, closed.accepted_masks, closed.masks_since_retraining) == ((), 6, 6)


def test_a_round_that_nobody_can_finish_waits_for_a_lead_and_why_is_told(
    dataset: Dataset, workspace: Workspace
) -> None:
    opened = small_round(workspace, image_ids(dataset)[:2])
    for name in ("ann", "bob", "lea"):
        (first, *_) = workspace.leases.claim(name)
        workspace.leases.skip(first.token, "too dark")
    answer_all(workspace, "ann")
    status = read_engine_status(dataset, workspace)
    assert status.waits[0] == (
        f"{opened.round_id}, whose last 1 answer nobody can give, as everybody skipped or answered the image, for a "
        f"lead: gigamask round close {opened.round_id} --dataset {dataset.uri}"
    )
    assert "1/2 answers, 0 held, 1 free (1 of them for nobody)" in render_engine_status(status)


def test_people_hold_no_task_whose_lease_ran_out_or_whose_round_has_ended(
    dataset: Dataset, workspace: Workspace
) -> None:
    def held() -> dict[str, int]:
        return {each.name: each.held for each in read_engine_status(dataset, workspace).people if each.held}

    ids = image_ids(dataset)
    first, second = small_round(workspace, ids[:2]), small_round(workspace, ids[2:4])
    workspace.leases.claim("ann", 1, round_id=first.round_id)
    workspace.leases.claim("ann", 2, round_id=second.round_id)
    workspace.rounds.pause(second.round_id)
    assert held() == {"ann": 3}, "a task of a paused round can be finished"
    workspace.rounds.cancel(second.round_id)
    workspace.leases.lease_s = 0  # what bob claims has run out at once
    workspace.leases.claim("bob", 1, round_id=first.round_id)
    assert held() == {"ann": 1}


def test_jobs_and_the_promoted_model_are_told(dataset: Dataset, workspace: Workspace) -> None:
    start = Decided(decision=Decision.START, model_id="seed-1", over="", key="start", made_by="test", reason="test")
    refusal = Decided(
        decision=Decision.REFUSAL, model_id="seed-2", over="seed-1", key="k", made_by="lea", reason="it is worse"
    )
    for decided in (start, refusal):
        dataset.promotions.add(decided)
    token = workspace.firings.take("retraining", "masks:100", "host:1")
    assert token is not None
    workspace.firings.end(token, {"error": "ValueError: too few images"}, failed=True)
    workspace.firings.take("verify", "cron:1", "host:2", lease_s=-1)
    workspace.firings.take("verify", "cron:2", "host:2")
    with open_accounts(workspace, 1):
        pass
    status = read_engine_status(dataset, workspace)
    assert (status.promoted.model_id, status.promoted.generation, status.promoted.about) == ("seed-1", 1, "seed-2")
    assert [(each.job, each.key, each.state) for each in status.jobs] == [
        ("retraining", "masks:100", "failed"),
        ("verify", "cron:2", "running"),
    ]
    assert status.waits == ("retraining, which failed, for you: ValueError: too few images",)
    text = render_engine_status(status)
    assert "refusal of seed-2 by lea" in text
    assert "promoted   seed-1 since generation 1" in text


def test_commands_to_paste_name_a_place_with_spaces_and_a_workspace_elsewhere(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "my photos")
    dataset.fold()
    with Workspace.open(tmp_path / "else where.sqlite") as workspace:
        small_round(workspace, image_ids(dataset)[:1])
        (waits,) = read_engine_status(dataset, workspace).waits
    command = shlex.split(waits.partition("for annotators: ")[2])
    place = str(tmp_path / "else where.sqlite")
    assert command == ["gigamask", "annotate", "--dataset", dataset.uri, "--workspace", place]


def test_without_a_workspace_the_status_says_so_and_makes_none(dataset: Dataset) -> None:
    told = CliRunner().invoke(make_app(), ["status", "--dataset", dataset.uri, "--engine", "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["rounds"], found["people"], found["jobs"], found["promoted"]["model_id"]) == ([], [], [], "")
    assert found["images"] == 10
    assert not (Path(dataset.uri) / "workspace.sqlite").exists()


def test_the_plans_as_json_stay_a_list(dataset: Dataset, workspace: Workspace) -> None:
    told = CliRunner().invoke(make_app(), ["status", "--dataset", dataset.uri, "--json"])
    assert [row["kind"] for row in json.loads(told.stdout)][:1] == ["images"]
    text = CliRunner().invoke(make_app(), ["status", "--dataset", dataset.uri]).stdout
    assert text.index("plan_id") < text.index("promoted")
