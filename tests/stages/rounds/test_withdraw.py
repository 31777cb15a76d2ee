"""Withdrawing an annotator's work from a closed round: the dataset is as if that person had not submitted in it."""

from typing import Any

import pytest

from stages.rounds.close import close_round
from stages.rounds.withdraw import withdraw_work
from storage.dataset import Dataset
from storage.tables.withdrawals import withdrawn_masks
from storage.workspace.records import GivenMask, RoundState
from storage.workspace.workspace import Workspace
from tests.stages.rounds.answering import answer_all, image_ids, small_round, square
from tests.stages.rounds.test_close import Killed, dying_at, masks_of, prefilled_image
from tests.stages.rounds.test_standing import DETECTED, answered, empty_image, standing
from tests.workspaces import Page, made


def pixels_of(dataset: Dataset, image_id: int) -> list[tuple[str, str, str, list[int]]]:
    """Stage, model, annotator and pixels of each mask of an image, in one order."""
    rows = dataset.masks_of_image(image_id).to_pylist()
    return sorted(
        (
            *(row["stage"], row["model_id"] or "", row["annotator_id"] or ""),
            dataset.read_mask(image_id, row["mask_id"]).rle.counts.tolist(),
        )
        for row in rows
    )


def edits(prefill: tuple[GivenMask, ...]) -> list[tuple[str, dict[str, Any]]]:
    """Accept the first mask, edit the second, reject the third, leave the fourth, and add one."""
    accepted, edited, rejected, _ = (given.mask for given in prefill)
    return [
        ("accept", {"mask": accepted}),
        ("change", made(edited, square(3))),
        ("reject", {"mask": rejected}),
        ("add", made("new", square(9))),
    ]


def test_the_masks_that_stood_before_come_back(dataset: Dataset, workspace: Workspace) -> None:
    image_id, prefill = prefilled_image(dataset)
    before = pixels_of(dataset, image_id)
    round_id = answered(workspace, image_id, prefill, *edits(prefill))
    closed = close_round(dataset, workspace, round_id)
    assert pixels_of(dataset, image_id) != before
    done = withdraw_work(dataset, workspace, round_id, "ann", "careless")
    assert (done.masks, done.restored) == (2, 2)
    assert pixels_of(dataset, image_id) == before

    # Once, with the reason, and the round is what it was
    again = withdraw_work(dataset, workspace, round_id, "ann", "another reason")
    assert (again.masks, again.restored) == (0, 0)
    assert close_round(dataset, workspace, round_id) == closed
    assert workspace.rounds.get(round_id).state is RoundState.CLOSED
    reasons = {row["reason"] for row in withdrawn_masks(dataset.store, None).to_pylist()}
    assert reasons == {f"replaced or rejected in {round_id}", "careless"}
    assert dataset.maintenance.verify().faults == ()
    dataset.maintenance.rebuild_tables()
    assert pixels_of(dataset, image_id) == before


def test_another_view_of_the_image_takes_the_place(dataset: Dataset, workspace: Workspace) -> None:
    ids = image_ids(dataset)[:2]
    opened = small_round(workspace, ids, overlap=2)
    answer_all(workspace, "ann", squares=2)
    answer_all(workspace, "bob", squares=3)
    close_round(dataset, workspace, opened.round_id)
    done = withdraw_work(dataset, workspace, opened.round_id, "ann", "careless")
    assert (done.masks, done.restored) == (4, 6)
    rows = masks_of(dataset, opened.round_id)
    assert [row["annotator_id"] for row in rows] == ["bob"] * 6
    sql = (
        "SELECT a.annotator_id, a.active_s FROM annotations a JOIN masks m "
        f"ON a.image_id = m.image_id AND a.mask_id = m.mask_id WHERE a.round_id = '{opened.round_id}'"
    )
    assert dataset.query(sql).to_pylist() == [{"annotator_id": "bob", "active_s": 4.0}] * 6, "annotations name them"
    done = withdraw_work(dataset, workspace, opened.round_id, "bob", "careless, too")
    assert (done.masks, done.restored) == (6, 0)
    assert masks_of(dataset, opened.round_id) == []
    assert withdraw_work(dataset, workspace, opened.round_id, "cyd", "did nothing").masks == 0


def test_another_view_of_prefilled_masks_takes_the_place_and_then_they_come_back(
    dataset: Dataset, workspace: Workspace
) -> None:
    image_id, prefill = prefilled_image(dataset)
    before = pixels_of(dataset, image_id)
    opened = small_round(workspace, [image_id], prefill=prefill, stage="semi_automatic", overlap=2)
    others = [("reject", {"mask": prefill[0].mask}), ("change", made(prefill[1].mask, square(31)))]
    for name, operations in (("ann", edits(prefill)), ("bob", others)):
        (lease,) = workspace.leases.claim(name)
        page = Page()
        workspace.operations.append(lease.token, [page(kind, payload) for kind, payload in operations])
        workspace.submissions.submit(lease.token, len(operations))
    close_round(dataset, workspace, opened.round_id)
    withdraw_work(dataset, workspace, opened.round_id, "ann", "careless")
    there = standing(dataset, image_id)
    assert sorted(pixels.counts.tolist() for round_id, pixels in there if round_id) == [square(31).counts.tolist()]
    assert sorted(pixels.counts.tolist() for round_id, pixels in there if not round_id) == sorted(
        given.rle.counts.tolist() for given in prefill[2:]
    )
    withdraw_work(dataset, workspace, opened.round_id, "bob", "careless, too")
    assert pixels_of(dataset, image_id) == before
    assert dataset.maintenance.verify().faults == ()


def test_without_a_reviewer_the_submission_counts_that_the_fix_took_the_place_of(
    dataset: Dataset, workspace: Workspace
) -> None:
    workspace.users.add("rita", "reviewer")
    opened = small_round(workspace, image_ids(dataset)[:1])
    answer_all(workspace, "ann", squares=2)
    (submission,) = workspace.submissions.read()
    lease = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    page = Page(base=lease.revision, session="fix")
    fixes = [page("remove", {"mask": "m0"}), page("add", made("new", square(30)))]
    workspace.operations.append(lease.token, fixes)
    workspace.submissions.submit(lease.token, page.base)
    close_round(dataset, workspace, opened.round_id)
    assert sorted(row["annotator_id"] for row in masks_of(dataset, opened.round_id)) == ["ann", "rita"]
    withdraw_work(dataset, workspace, opened.round_id, "rita", "careless")
    assert [row["annotator_id"] for row in masks_of(dataset, opened.round_id)] == ["ann", "ann"]
    withdraw_work(dataset, workspace, opened.round_id, "ann", "careless")
    assert masks_of(dataset, opened.round_id) == []


def test_a_mask_that_a_later_round_made_something_of_does_not_come_back(dataset: Dataset, workspace: Workspace) -> None:
    image_id, prefill = prefilled_image(dataset)
    first = answered(workspace, image_id, prefill, ("change", made(prefill[0].mask, square(3))))
    close_round(dataset, workspace, first)
    (row,) = masks_of(dataset, first)
    given = GivenMask(mask="e", rle=square(3), source=f"{image_id}/{row['mask_id']}")
    later = answered(workspace, image_id, (given,), ("change", made("e", square(31))), name="bob")
    close_round(dataset, workspace, later)
    withdraw_work(dataset, workspace, first, "ann", "careless")
    assert len(standing(dataset, image_id)) == len(prefill)
    assert [pixels for round_id, pixels in standing(dataset, image_id) if round_id] == [square(31)]


def test_an_edit_of_a_mask_that_came_back_takes_its_place(dataset: Dataset, workspace: Workspace) -> None:
    image_id, prefill = prefilled_image(dataset)
    late = answered(workspace, image_id, prefill[:1], ("change", made(prefill[0].mask, square(31))), name="bob")
    first = answered(workspace, image_id, prefill, *[("reject", {"mask": given.mask}) for given in prefill])
    close_round(dataset, workspace, first)
    assert standing(dataset, image_id) == []
    withdraw_work(dataset, workspace, first, "ann", "careless")
    assert len(standing(dataset, image_id)) == len(prefill)
    close_round(dataset, workspace, late)
    assert [pixels for round_id, pixels in standing(dataset, image_id) if round_id] == [square(31)]
    assert dataset.maintenance.verify().faults == ()


def test_a_withdrawal_killed_before_any_step_is_made_once(dataset: Dataset, workspace: Workspace) -> None:
    image_id = empty_image(dataset)
    steps: list[str] = []
    for number in range(7):
        round_id = answered(workspace, image_id, DETECTED)
        close_round(dataset, workspace, round_id)
        workspace.rounds.begin_withdrawal(round_id, "ann", "careless")
        with pytest.raises(Killed):
            close_round(dataset, workspace, round_id, before_step=dying_at(number))
        done = withdraw_work(dataset, workspace, round_id, "ann", "careless")
        assert (done.masks, done.restored, workspace.rounds.get(round_id).state) == (2, 0, RoundState.CLOSED)
        assert standing(dataset, image_id) == []
        close_round(dataset, workspace, round_id, before_step=steps.append)
        plans = [each for each in dataset.plans() if each.settings.get("withdrawn_round") == round_id]
        assert len(plans) == 1
    assert steps[:6] == ["freeze", "plan", "fold", "withdraw ann", "fold withdrawal of ann", "end"]
    assert dataset.maintenance.verify().faults == ()
