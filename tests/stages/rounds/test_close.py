"""Closing a round: what arrives in the dataset, and that it arrives once."""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.rounds.close import UnansweredRound, UnfinishedRound, close_round
from stages.rounds.quality import report_round
from storage import rle
from storage.dataset import Dataset
from storage.workspace.records import GivenMask, RoundState
from storage.workspace.workspace import Workspace
from tests.small_dataset import small_dataset
from tests.stages.rounds.answering import answer, answer_all, image_ids, small_round, square
from tests.workspaces import Page, made


def masks_of(dataset: Dataset, round_id: str) -> list[dict[str, Any]]:
    sql = f"SELECT * FROM masks WHERE round_id = '{round_id}' ORDER BY image_id, ordinal"
    return dataset.query(sql).to_pylist()


def test_masks_arrive_with_their_pixels_and_their_origin(dataset: Dataset, workspace: Workspace) -> None:
    ids = image_ids(dataset)
    opened = small_round(workspace, ids[:4])
    assert answer_all(workspace, "ann") == 4
    closed = close_round(dataset, workspace, opened.round_id)
    assert (closed.images, closed.masks, closed.annotations, closed.rejects) == (4, 8, 8, 0)

    rows = masks_of(dataset, opened.round_id)
    assert {row["stage"] for row in rows} == {"assisted_manual"}
    assert {row["annotator_id"] for row in rows} == {"ann"}
    assert {row["model_id"] for row in rows} == {"seed-1"}
    assert {row["image_id"] for row in rows} == set(ids[:4])
    assert {(row["point_x"], row["point_y"]) for row in rows} == {(10.0, 7.0), (11.0, 7.0)}
    stored = dataset.read_mask(rows[0]["image_id"], rows[0]["mask_id"])
    assert stored.rle == square(0)
    assert dataset.maintenance.verify().faults == ()
    ended = workspace.rounds.get(opened.round_id)
    assert (ended.state, ended.plan_id) == (RoundState.CLOSED, closed.plan_id)


def test_closing_again_changes_nothing(dataset: Dataset, workspace: Workspace) -> None:
    opened = small_round(workspace, image_ids(dataset)[:2])
    answer_all(workspace, "ann")
    first = close_round(dataset, workspace, opened.round_id)
    fold = dataset.fold().newest
    assert close_round(dataset, workspace, opened.round_id) == first
    assert dataset.fold().newest == fold
    assert len(masks_of(dataset, opened.round_id)) == 4


def test_work_that_was_not_submitted_sent_back_or_withdrawn_stays_out(dataset: Dataset, workspace: Workspace) -> None:
    opened = small_round(workspace, image_ids(dataset)[:3])
    answer_all(workspace, "ann")
    sent_back = workspace.submissions.read()[0]
    workspace.submissions.send_back(sent_back.submission_id, "leaks", actor="lead")
    workspace.submissions.withdraw(opened.round_id, "ann", actor="lead")
    (lease, *_) = workspace.leases.claim("bob")
    answer(workspace, lease, squares=1)
    closed = close_round(dataset, workspace, opened.round_id, discard_unfinished=True)  # bob holds another task
    assert closed.masks == 1
    assert {row["annotator_id"] for row in masks_of(dataset, opened.round_id)} == {"bob"}


def test_a_round_that_nobody_answered_is_not_closed(dataset: Dataset, workspace: Workspace) -> None:
    opened = small_round(workspace, image_ids(dataset)[:1])
    for discard in (False, True):
        with pytest.raises(UnansweredRound, match=f"has no answer.*gigamask round cancel {opened.round_id}"):
            close_round(dataset, workspace, opened.round_id, discard_unfinished=discard)
    assert workspace.rounds.get(opened.round_id).state == RoundState.OPEN


def test_a_round_whose_closing_began_without_a_submission_ends_without_a_plan(
    dataset: Dataset, workspace: Workspace
) -> None:
    opened = small_round(workspace, image_ids(dataset)[:1])
    workspace.rounds.begin_closing(opened.round_id)  # as earlier versions did
    assert close_round(dataset, workspace, opened.round_id).plan_id == ""
    assert workspace.rounds.get(opened.round_id).state == RoundState.CLOSED


def test_a_round_that_people_are_at_work_on_is_closed_only_if_their_work_is_to_be_discarded(
    dataset: Dataset, workspace: Workspace
) -> None:
    opened = small_round(workspace, image_ids(dataset)[:4])
    first, second, third = workspace.leases.claim("ann", 3)
    answer(workspace, first)
    workspace.operations.append(second.token, [Page()("add", made("m", square(1)))])
    workspace.leases.hand_back(third.token)
    with pytest.raises(
        UnfinishedRound, match="1 task held now, 2 answers still wanted, 1 mask on 1 task drafted and not submitted"
    ):
        close_round(dataset, workspace, opened.round_id)
    workspace.leases.hand_back(second.token)
    with pytest.raises(UnfinishedRound, match="is unfinished: 3 answers still wanted, 1 mask on 1 task drafted") as got:
        close_round(dataset, workspace, opened.round_id)
    assert (got.value.unfinished.held, got.value.unfinished.drafted_masks) == (0, 1)
    assert workspace.rounds.get(opened.round_id).state == RoundState.OPEN
    assert masks_of(dataset, opened.round_id) == []

    # Answers that are merely wanted keep no round open: ann hands in nothing more than bob's answer to the same task
    (lease, *_) = workspace.leases.claim("bob", 3)
    for other in workspace.leases.held("bob")[1:]:
        workspace.leases.hand_back(other.token)
    assert lease.task.task_id == second.task.task_id
    answer(workspace, lease, squares=1)
    assert close_round(dataset, workspace, opened.round_id).masks == 3


def test_one_view_of_an_overlapped_image_is_stored_the_accepted_one_first(
    dataset: Dataset, workspace: Workspace
) -> None:
    ids = image_ids(dataset)[:2]
    opened = small_round(workspace, ids, overlap=2)
    answer_all(workspace, "ann", squares=1)
    answer_all(workspace, "bob", squares=3)
    first = next(each for each in workspace.submissions.read() if each.annotator == "bob")
    workspace.submissions.accept(first.submission_id, actor="rita")
    closed = close_round(dataset, workspace, opened.round_id)
    assert (closed.masks, closed.annotations) == (4, 8)
    assert sorted(row["annotator_id"] for row in masks_of(dataset, opened.round_id)) == ["ann", "bob", "bob", "bob"]


def test_gold_answers_are_measured_and_not_stored(dataset: Dataset, workspace: Workspace) -> None:
    opened = small_round(workspace, image_ids(dataset)[:1], gold=(GivenMask(mask="g", rle=square(0)),))
    answer_all(workspace, "ann")
    closed = close_round(dataset, workspace, opened.round_id)
    assert (closed.masks, closed.annotations) == (0, 2)


def prefilled_image(dataset: Dataset) -> tuple[int, tuple[GivenMask, ...]]:
    """The first image with masks, and its four masks as a round begins with them."""
    image_id = next(
        row["image_id"] for row in dataset.query("SELECT image_id FROM masks ORDER BY image_id").to_pylist()
    )
    return image_id, tuple(
        GivenMask(
            mask=str(row["mask_id"]),
            rle=dataset.read_mask(image_id, row["mask_id"]).rle,
            model_id=row["model_id"],
            source=f"{image_id}/{row['mask_id']}",
        )
        for row in dataset.masks_of_image(image_id).to_pylist()
    )


def test_prefilled_masks_of_the_dataset_are_kept_replaced_or_withdrawn(dataset: Dataset, workspace: Workspace) -> None:
    image_id, prefill = prefilled_image(dataset)
    kept, edited, rejected, untouched = (given.mask for given in prefill)
    opened = small_round(workspace, [image_id], prefill=prefill, stage="semi_automatic")
    (lease,) = workspace.leases.claim("ann")
    page = Page()
    workspace.operations.append(
        lease.token,
        [
            page("accept", {"mask": kept}),
            page("change", made(edited, square(3), clicks=2)),
            page("reject", {"mask": rejected}),
            page("add", made("new", square(9))),
        ],
    )
    workspace.submissions.submit(lease.token, 4)
    closed = close_round(dataset, workspace, opened.round_id)
    assert (closed.masks, closed.annotations, closed.withdrawn) == (2, 5, 2)
    left = {row["mask_id"] for row in dataset.masks_of_image(image_id).to_pylist()}
    assert {int(kept), int(untouched)} < left
    assert not {int(edited), int(rejected)} & left
    assert len(left) == 4
    assert dataset.maintenance.verify().faults == ()


def test_prefilled_masks_that_were_merged_or_split_are_withdrawn(dataset: Dataset, workspace: Workspace) -> None:
    image_id, prefill = prefilled_image(dataset)
    one, two, split, untouched = (given.mask for given in prefill)
    opened = small_round(workspace, [image_id], prefill=prefill, stage="semi_automatic")
    (lease,) = workspace.leases.claim("ann")
    page = Page()
    merge = page("merge", {**made("both", square(1)), "masks": [one, two]})
    parts = [made("left", square(3, side=4)), made("right", square(9, side=4))]
    workspace.operations.append(lease.token, [merge, page("split", {"mask": split, "into": parts})])
    workspace.submissions.submit(lease.token, 2)
    closed = close_round(dataset, workspace, opened.round_id)
    assert (closed.masks, closed.withdrawn) == (3, 3)
    left = {row["mask_id"] for row in dataset.masks_of_image(image_id).to_pylist()}
    assert int(untouched) in left
    assert not {int(one), int(two), int(split)} & left


def test_images_that_are_gone_become_rejects(dataset: Dataset, workspace: Workspace) -> None:
    opened = small_round(workspace, [image_ids(dataset)[0], 12345])
    answer_all(workspace, "ann")
    closed = close_round(dataset, workspace, opened.round_id)
    assert (closed.images, closed.masks, closed.rejects) == (1, 2, 1)
    (reject,) = dataset.query("SELECT * FROM rejects WHERE reason = 'image_gone'").to_pylist()
    assert reject["source"] == "0000000000003039"


def test_a_round_of_another_dataset_is_refused(dataset: Dataset, workspace: Workspace) -> None:
    opened = small_round(workspace, [12345])
    answer_all(workspace, "ann")
    with pytest.raises(ValueError, match="none of its images is in"):
        close_round(dataset, workspace, opened.round_id)


class Killed(Exception):
    """The end of a process, as a test sees it."""


def dying_at(number: int) -> Callable[[str], None]:
    count = iter(range(1000))

    def before_step(_step: str) -> None:
        if next(count) == number:
            raise Killed

    return before_step


def steps_of(dataset: Dataset, workspace: Workspace, round_id: str) -> list[str]:
    steps: list[str] = []
    close_round(dataset, workspace, round_id, before_step=steps.append)
    return steps


def test_closing_killed_before_every_step_closes_once(
    dataset: Dataset, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.rounds.close.MAX_IMAGES", 2)  # several shards
    ids = image_ids(dataset)
    first = small_round(workspace, ids[:5])
    answer_all(workspace, "ann")
    steps = steps_of(dataset, workspace, first.round_id)
    assert [step.partition(" ")[0] for step in steps] == ["freeze", "plan", *["write"] * 3, "fold", "end"]
    for number in range(len(steps)):
        opened = small_round(workspace, ids[:5])
        answer_all(workspace, "ann")
        with pytest.raises(Killed):
            close_round(dataset, workspace, opened.round_id, before_step=dying_at(number))
        assert close_round(dataset, workspace, opened.round_id).masks == 10
        assert len(masks_of(dataset, opened.round_id)) == 10
        plans = [plan for plan in dataset.plans() if plan.settings.get("round_id") == opened.round_id]
        assert len(plans) == 1
    assert dataset.maintenance.verify().faults == ()


def close_in_process(dataset_uri: str, place: str, round_id: str, die_before: str) -> None:
    def before_step(step: str) -> None:
        if step.startswith(die_before or "never"):
            os._exit(9)

    with Workspace.open(place) as workspace:
        close_round(Dataset.open(dataset_uri), workspace, round_id, before_step=before_step)


@pytest.mark.slow
def test_processes_closing_at_once_some_of_them_killed_close_once(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    place = str(tmp_path / "workspace.sqlite")
    with Workspace.open(place, max_held=100) as workspace:
        workspace.users.add("ann", "annotator")
        opened = small_round(workspace, image_ids(dataset))
        answer_all(workspace, "ann")
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=close_in_process, args=(dataset.uri, place, opened.round_id, die_before))
        for die_before in ("", "write", "fold", "")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert {process.exitcode for process in processes} <= {0, 9}
    with Workspace.open(place) as workspace:
        assert close_round(dataset, workspace, opened.round_id).masks == 20
        assert workspace.rounds.get(opened.round_id).state == RoundState.CLOSED
    assert len(masks_of(dataset, opened.round_id)) == 20
    assert dataset.maintenance.verify().faults == ()


def test_every_stored_mask_is_the_submitted_bitmap(dataset: Dataset, workspace: Workspace) -> None:
    opened = small_round(workspace, image_ids(dataset)[:1])
    (lease,) = workspace.leases.claim("ann")
    ragged = rle.merge([square(1), square(30, side=7)])
    page = Page()
    workspace.operations.append(lease.token, [page("add", made("m", ragged))])
    workspace.submissions.submit(lease.token, 1)
    close_round(dataset, workspace, opened.round_id)
    (row,) = masks_of(dataset, opened.round_id)
    stored = dataset.read_mask(row["image_id"], row["mask_id"])
    assert replace(stored.rle, counts=stored.rle.counts) == ragged
    assert (row["predicted_iou"], row["point_x"], row["model_id"]) == (None, None, "")


def test_a_fixed_mask_is_stored_once_and_names_its_maker_and_its_fixer(dataset: Dataset, workspace: Workspace) -> None:
    workspace.users.add("rita", "reviewer")
    opened = small_round(workspace, image_ids(dataset)[:1])
    answer_all(workspace, "ann", squares=3)
    (submission,) = workspace.submissions.read()
    lease = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    page = Page(base=lease.revision, session="fix")
    inputs = [[0.0, None], [3.0, "m1"], [8.0, "new"]]
    operations = [
        page("change", made("m1", square(9))),
        page("remove", {"mask": "m2"}),
        page("add", made("new", square(14))),
        page("activity", {"inputs": inputs}),
    ]
    workspace.operations.append(lease.token, operations)
    workspace.submissions.submit(lease.token, page.base)

    assert close_round(dataset, workspace, opened.round_id).masks == 3
    assert [row["annotator_id"] for row in masks_of(dataset, opened.round_id)] == ["ann", "ann", "rita"]
    sql = f"SELECT * FROM annotations WHERE round_id = '{opened.round_id}' ORDER BY edits, active_s"
    rows = dataset.query(sql).to_pylist()
    assert [(row["annotator_id"], row["fixed_by"], row["active_s"], row["fix_s"]) for row in rows] == [
        ("ann", "", 4.0, 0.0),
        ("rita", "", 5.0, 0.0),
        ("ann", "rita", 4.0, 3.0),
    ]
    assert all(row["in_masks"] for row in rows)


def test_agreement_is_that_of_annotators_whatever_a_reviewer_fixed(dataset: Dataset, workspace: Workspace) -> None:
    workspace.users.add("rita", "reviewer")
    opened = small_round(workspace, image_ids(dataset)[:1], overlap=2)
    answer_all(workspace, "ann", squares=2)
    answer_all(workspace, "bob", squares=2)
    submission = workspace.submissions.read()[1]
    lease = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    workspace.operations.append(lease.token, [Page(base=1, session="fix")("remove", {"mask": "m0"})])
    workspace.submissions.submit(lease.token, 2)
    report = report_round(workspace, opened.round_id)
    assert report.agreement is not None
    assert (report.agreement.mean, [each.annotator for each in report.annotators]) == (1.0, ["ann", "bob"])
    assert close_round(dataset, workspace, opened.round_id).masks == 1  # bob's view was fixed, and so comes first
