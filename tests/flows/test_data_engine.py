"""What comes next, case by case; and the state that it is decided from, of a real dataset and workspace."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.evaluation.config import GateConfig
from flows.config.serve import EnginePolicy, RetrainingSchedule, ServeSettings
from flows.data_engine import Due, EngineState, NextStep, Step, decide, find_due, read_state
from flows.engine_state import RETRAINING
from stages.rounds.close import close_round
from stages.training.job import DataConfig
from storage.workspace.firings import MAX_ATTEMPTS
from storage.workspace.workspace import Workspace
from tests.small_dataset import small_dataset
from tests.stages.rounds.answering import answer, answer_all, image_ids, small_round, square
from tests.workspaces import Page, made

POLICY = EnginePolicy(semi_automatic_after=1000, fully_automatic_after=5000, retrain_after=500, max_person_hours=10)
SETTINGS = ServeSettings(retrain={"retrain": {"held_out_every": 3}})
REVIEWED = replace(SETTINGS, engine=EnginePolicy(wait_for_review=True))
IDLE = EngineState(
    images=200,
    unasked_images=150,
    unmasked_images=True,
    accepted_masks=0,
    retraining_counts_from=0,
    rounds=0,
    finished_rounds=(),
    tasks_left=0,
    person_hours=0,
)


@pytest.mark.parametrize(
    ("state", "step"),
    [
        pytest.param(replace(IDLE, images=0), Step.INGEST, id="no images"),
        pytest.param(IDLE, Step.ASSISTED_MANUAL, id="begin"),
        pytest.param(replace(IDLE, tasks_left=3), Step.WAIT, id="people are at work"),
        pytest.param(replace(IDLE, tasks_left=3, finished_rounds=("r1",)), Step.CLOSE, id="one of two rounds is done"),
        pytest.param(replace(IDLE, accepted_masks=499), Step.ASSISTED_MANUAL, id="one mask too few to retrain"),
        pytest.param(replace(IDLE, accepted_masks=500), Step.RETRAIN, id="enough masks to retrain"),
        pytest.param(replace(IDLE, accepted_masks=500, tasks_left=9), Step.RETRAIN, id="retrain while people work"),
        pytest.param(
            replace(IDLE, accepted_masks=900, evaluation_images_missing=1),
            Step.ASSISTED_MANUAL,
            id="no model could be judged yet",
        ),
        pytest.param(
            replace(IDLE, accepted_masks=500, retraining="running"), Step.ASSISTED_MANUAL, id="people go on meanwhile"
        ),
        pytest.param(
            replace(IDLE, accepted_masks=500, retraining="failed", unasked_images=0),
            Step.FULLY_AUTOMATIC,
            id="a failed retraining stops nothing",
        ),
        pytest.param(
            replace(IDLE, accepted_masks=500, retraining="running", unasked_images=0), Step.WAIT, id="the model first"
        ),
        pytest.param(
            replace(IDLE, accepted_masks=500, retraining="running", unasked_images=0, unmasked_images=False),
            Step.WAIT,
            id="no end under a retraining",
        ),
        pytest.param(
            replace(IDLE, accepted_masks=999, retraining_counts_from=900), Step.ASSISTED_MANUAL, id="just before"
        ),
        pytest.param(
            replace(IDLE, accepted_masks=1000, retraining_counts_from=900), Step.SEMI_AUTOMATIC, id="semi-automatic"
        ),
        pytest.param(
            replace(IDLE, accepted_masks=5000, retraining_counts_from=4900),
            Step.FULLY_AUTOMATIC,
            id="people are done",
        ),
        pytest.param(
            replace(IDLE, accepted_masks=5000, retraining_counts_from=4000), Step.RETRAIN, id="retrain before the end"
        ),
        pytest.param(replace(IDLE, unasked_images=0), Step.FULLY_AUTOMATIC, id="every image was asked about"),
        pytest.param(replace(IDLE, person_hours=10), Step.FULLY_AUTOMATIC, id="the budget is spent"),
        pytest.param(
            replace(IDLE, person_hours=10, finished_rounds=("r1",)), Step.CLOSE, id="spent, but work is there"
        ),
        pytest.param(replace(IDLE, person_hours=10, unmasked_images=False), Step.STOP, id="nothing is left"),
    ],
)
def test_the_next_step_follows_from_the_state(state: EngineState, step: Step) -> None:
    assert decide(state, POLICY).step is step


def test_the_next_round_is_opened_before_the_last_answers_of_this_one() -> None:
    ahead = replace(POLICY, open_ahead=2)
    assert decide(replace(IDLE, tasks_left=3), ahead).step is Step.WAIT
    assert decide(replace(IDLE, tasks_left=2), ahead).step is Step.ASSISTED_MANUAL
    assert decide(replace(IDLE, tasks_left=2, unasked_images=0), ahead).step is Step.WAIT


def test_without_a_budget_hours_do_not_count() -> None:
    assert decide(replace(IDLE, person_hours=1e6), replace(POLICY, max_person_hours=0)).step is Step.ASSISTED_MANUAL


def test_each_step_says_why_and_which_round_to_close() -> None:
    chosen = decide(replace(IDLE, finished_rounds=("r7", "r8")), POLICY)
    assert chosen == NextStep(step=Step.CLOSE, reason="it is complete", round_id="r7")
    given_up = decide(replace(IDLE, finished_rounds=("r7",), given_up={"r7": 2}), POLICY)
    assert (given_up.step, given_up.reason) == (Step.CLOSE, "nobody is left to give its last 2 answers")
    stopped = decide(replace(IDLE, person_hours=12, unmasked_images=False), POLICY)
    assert "people worked 12.0 h, the budget was 10 h" in stopped.reason
    assert "held-out" not in stopped.reason
    unjudged = replace(IDLE, person_hours=12, unmasked_images=False, accepted_masks=500, evaluation_images_missing=2)
    assert "no new model, as 2 held-out images with masks are missing to judge it" in decide(unjudged, POLICY).reason


def test_the_policy_comes_to_an_end_and_passes_every_stage_once() -> None:
    state, seen = IDLE, list[Step]()
    while (step := decide(state, POLICY).step) is not Step.STOP:
        seen.append(step)
        if step is Step.RETRAIN:
            state = replace(state, retraining_counts_from=state.accepted_masks)
        elif step is Step.FULLY_AUTOMATIC:
            state = replace(state, unmasked_images=False)
        else:
            state = replace(state, accepted_masks=state.accepted_masks + 400, unasked_images=state.unasked_images - 5)
    changes = [step for step, before in zip(seen, [None, *seen], strict=False) if step is not before]
    stages = [step for step in changes if step is not Step.RETRAIN]
    assert list(dict.fromkeys(stages)) == [Step.ASSISTED_MANUAL, Step.SEMI_AUTOMATIC, Step.FULLY_AUTOMATIC]
    assert seen[-1] is Step.FULLY_AUTOMATIC


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace.sqlite", max_held=100) as opened:
        opened.users.add("ann", "annotator")
        yield opened


def test_the_state_is_read_from_dataset_and_workspace(tmp_path: Path, workspace: Workspace) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    ids = image_ids(dataset)
    empty = read_state(dataset, workspace, SETTINGS)
    assert (empty.images, empty.unasked_images, empty.accepted_masks) == (len(ids), len(ids), 0)
    first = small_round(workspace, ids[:2])
    working = read_state(dataset, workspace, SETTINGS)
    assert (working.unasked_images, working.tasks_left, working.finished_rounds) == (len(ids) - 2, 2, ())
    assert (empty.rounds, working.rounds) == (0, 1)
    answer_all(workspace, "ann", squares=2)
    second = small_round(workspace, ids[2:3])
    finished = read_state(dataset, workspace, SETTINGS)
    assert (finished.tasks_left, finished.finished_rounds) == (1, (first.round_id,))
    workspace.rounds.pause(first.round_id)
    assert read_state(dataset, workspace, SETTINGS).finished_rounds == (), "a lead paused it"
    workspace.rounds.begin_closing(second.round_id)
    assert second.round_id in read_state(dataset, workspace, SETTINGS).finished_rounds, (
        "closing that was cut off goes on"
    )


def test_a_retraining_waits_for_held_out_images_and_rounds_ask_about_them_first(
    tmp_path: Path, workspace: Workspace
) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    settings = replace(SETTINGS, retrain=SETTINGS.retrain | {"gate": {"gate": {"min_images": 2}}})
    held_out = [image_id for image_id in image_ids(dataset) if image_id % 3 == 0]
    assert len(held_out) >= 2
    empty = read_state(dataset, workspace, settings)
    assert (empty.evaluation_images_missing, empty.evaluation_images_to_ask) == (2, 2)

    # A round with one of them: it counts once it has masks
    opened = small_round(workspace, held_out[:1])
    working = read_state(dataset, workspace, settings)
    assert (working.evaluation_images_missing, working.evaluation_images_to_ask) == (2, 1)
    answer_all(workspace, "ann", squares=1)
    close_round(dataset, workspace, opened.round_id)
    closed = read_state(dataset, workspace, settings)
    assert (closed.evaluation_images_missing, closed.evaluation_images_to_ask) == (1, 1)

    # With an evaluation set in a folder it waits for none
    folder = replace(settings, retraining=RetrainingSchedule(data="photos"))
    assert read_state(dataset, workspace, folder).evaluation_images_missing == 0


def test_the_number_of_held_out_images_is_that_of_the_training() -> None:
    assert ServeSettings().held_out_every == DataConfig().held_out_every
    assert ServeSettings().evaluation_images == GateConfig().min_images


def test_a_round_that_nobody_can_finish_is_finished(tmp_path: Path, workspace: Workspace) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    opened = small_round(workspace, image_ids(dataset)[:2])
    skipped, held = workspace.leases.claim("ann", 2)
    workspace.leases.skip(skipped.token, "too dark")
    working = read_state(dataset, workspace, SETTINGS)
    assert (working.tasks_left, working.finished_rounds) == (1, ()), "a task that is held may still be answered"
    answer(workspace, held)
    finished = read_state(dataset, workspace, SETTINGS)
    assert (finished.tasks_left, finished.finished_rounds) == (0, (opened.round_id,))
    assert finished.given_up == {opened.round_id: 1}
    workspace.users.add("bob", "annotator")
    assert read_state(dataset, workspace, SETTINGS).tasks_left == 1, "a second person can still answer"


def test_a_round_of_which_everybody_skipped_everything_is_closed_without_a_mask(
    tmp_path: Path, workspace: Workspace
) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    opened = small_round(workspace, image_ids(dataset)[:1])
    (lease,) = workspace.leases.claim("ann")
    workspace.leases.skip(lease.token, "too dark")
    assert read_state(dataset, workspace, SETTINGS).finished_rounds == (opened.round_id,)
    assert close_round(dataset, workspace, opened.round_id).masks == 0
    assert read_state(dataset, workspace, SETTINGS).finished_rounds == ()


def test_a_round_is_not_closed_while_late_work_a_fix_or_a_review_is_waiting(
    tmp_path: Path, workspace: Workspace
) -> None:
    workspace.users.add("rita", "reviewer")
    dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    opened = small_round(workspace, image_ids(dataset)[:1])
    (lease,) = workspace.leases.claim("ann")
    page = Page()
    workspace.operations.append(lease.token, [page("add", made("m", square(1)))])
    workspace.submissions.submit(lease.token, 1)
    assert read_state(dataset, workspace, SETTINGS).finished_rounds == (opened.round_id,)
    assert read_state(dataset, workspace, REVIEWED).finished_rounds == ()

    # A reviewer is at work, and gives up; then accepts
    (submission,) = workspace.submissions.read()
    fix = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    assert read_state(dataset, workspace, SETTINGS).finished_rounds == ()
    workspace.leases.hand_back(fix.token)
    workspace.submissions.accept(submission.submission_id, actor="rita")
    assert read_state(dataset, workspace, REVIEWED).finished_rounds == (opened.round_id,)

    # Late work of the annotator
    late = page("add", made("late", square(3)))
    assert workspace.operations.append(lease.token, [late]).branch
    assert read_state(dataset, workspace, SETTINGS).finished_rounds == ()


def test_a_step_is_due_until_somebody_does_it(tmp_path: Path, workspace: Workspace) -> None:
    small_dataset(tmp_path / "dataset")
    settings = replace(SETTINGS, dataset=str(tmp_path / "dataset"))
    due = find_due(workspace, settings)
    assert due == Due(job="engine", key="assisted_manual:after 0 rounds", retry_s=60.0)
    token = workspace.firings.take(due.job, due.key, "me")
    assert find_due(workspace, settings) is None
    workspace.firings.end(token, {})
    assert find_due(workspace, settings) is None, "the round that was opened is not written yet, or was cancelled"


def test_a_retraining_that_was_killed_too_often_is_given_up(tmp_path: Path, workspace: Workspace) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    for attempt in range(MAX_ATTEMPTS):
        assert workspace.firings.take(RETRAINING, "masks:12", "me", lease_s=-1), attempt
        state = read_state(dataset, workspace, SETTINGS)
        assert (state.retraining, state.retraining_counts_from) == ("", 12 if attempt == MAX_ATTEMPTS - 1 else 0)
    assert workspace.firings.take(RETRAINING, "masks:12", "me") is None


def test_a_retraining_that_runs_or_failed_lately_lets_people_go_on(tmp_path: Path, workspace: Workspace) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    firings = workspace.firings
    assert read_state(dataset, workspace, SETTINGS).retraining == ""
    token = firings.take(RETRAINING, "masks:12", "me")
    assert read_state(dataset, workspace, SETTINGS).retraining == "running"
    firings.end(token, {"error": "no memory"}, failed=True)
    assert read_state(dataset, workspace, SETTINGS).retraining == "failed"

    # Its next attempt is due, is killed, and is done at last
    token = firings.take(RETRAINING, "masks:12", "me", retry_s=-1, lease_s=-1)
    assert token
    assert read_state(dataset, workspace, SETTINGS).retraining == ""
    token = firings.take(RETRAINING, "masks:12", "me")
    firings.end(token, {"accepted_masks": 12})
    assert read_state(dataset, workspace, SETTINGS).retraining == ""
