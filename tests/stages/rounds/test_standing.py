"""Two rounds that begin with the same mask end as one mask for each object, in whichever order they are closed."""

from typing import Any

import pytest

from stages.rounds.close import close_round
from storage.dataset import Dataset
from storage.workspace.records import GivenMask, RoundState
from storage.workspace.sharing import OtherIsClosing
from storage.workspace.workspace import Workspace
from tests.stages.rounds.answering import small_round, square
from tests.stages.rounds.test_close import Killed, dying_at, masks_of, prefilled_image, steps_of
from tests.workspaces import Page, made

DETECTED = (GivenMask(mask="d0", rle=square(30), model_id="detector-1"), GivenMask(mask="d1", rle=square(2)))
"""Masks that a detector made, so that the dataset does not hold them."""

Operation = tuple[str, dict[str, Any]]
KEEP: tuple[Operation, ...] = ()
EDIT: tuple[Operation, ...] = (("change", made("d0", square(33))),)


def empty_image(dataset: Dataset) -> int:
    sql = "SELECT image_id FROM images WHERE image_id NOT IN (SELECT image_id FROM masks)"
    return int(dataset.query(sql)["image_id"][0].as_py())


def answered(
    workspace: Workspace, image_id: int, prefill: tuple[GivenMask, ...], *operations: Operation, name: str = "ann"
) -> str:
    """Open a round over one image that begins with masks, answer it with operations, and return its id."""
    opened = small_round(workspace, [image_id], prefill=prefill, stage="semi_automatic")
    (lease,) = workspace.leases.claim(name, round_id=opened.round_id)
    page = Page()
    if operations:
        workspace.operations.append(lease.token, [page(kind, payload) for kind, payload in operations])
    workspace.submissions.submit(lease.token, len(operations))
    return opened.round_id


def rows_of(dataset: Dataset, round_id: str) -> list[dict[str, Any]]:
    sql = f"SELECT mask_id, origin, in_masks FROM annotations WHERE round_id = '{round_id}' ORDER BY origin, in_masks"
    return dataset.query(sql).to_pylist()


def standing(dataset: Dataset, image_id: int) -> list[tuple[str, Any]]:
    """Round and pixels of each mask that the dataset holds of an image."""
    rows = dataset.masks_of_image(image_id).to_pylist()
    return [(row["round_id"] or "", dataset.read_mask(image_id, row["mask_id"]).rle) for row in rows]


def test_a_mask_that_two_rounds_kept_is_stored_once_and_both_name_it(dataset: Dataset, workspace: Workspace) -> None:
    image_id = empty_image(dataset)
    first, second = (answered(workspace, image_id, DETECTED) for _ in range(2))
    assert [close_round(dataset, workspace, each).masks for each in (first, second)] == [2, 0]
    assert standing(dataset, image_id) == [(first, square(30)), (first, square(2))]
    named = [{row["mask_id"] for row in rows_of(dataset, each)} for each in (first, second)]
    assert named[0] == named[1] == {row["mask_id"] for row in masks_of(dataset, first)}
    assert all(row["in_masks"] for each in (first, second) for row in rows_of(dataset, each))


@pytest.mark.parametrize(("first", "second"), [(KEEP, EDIT), (EDIT, KEEP)], ids=["kept first", "edited first"])
def test_an_edit_takes_the_place_of_the_mask_whichever_round_is_closed_first(
    dataset: Dataset, workspace: Workspace, first: tuple[Operation, ...], second: tuple[Operation, ...]
) -> None:
    image_id = empty_image(dataset)
    rounds = [answered(workspace, image_id, DETECTED, *each) for each in (first, second)]
    for each in rounds:
        close_round(dataset, workspace, each)
    edited = rounds[0 if first else 1]
    assert sorted(standing(dataset, image_id), key=str) == sorted(
        [(edited, square(33)), (rounds[0], square(2))], key=str
    )
    kept_row = next(row for row in rows_of(dataset, rounds[1 if first else 0]) if row["origin"] == "prefill_accepted")
    assert kept_row["in_masks"] is not bool(first), "a mask that was never stored is not called stored"
    assert dataset.maintenance.verify().faults == ()


def test_of_two_edits_of_one_mask_that_of_the_round_closed_last_stands(dataset: Dataset, workspace: Workspace) -> None:
    image_id, prefill = prefilled_image(dataset)
    name, others = prefill[0].mask, [given.rle for given in prefill[1:]]
    rounds = [answered(workspace, image_id, prefill, ("change", made(name, square(x)))) for x in (3, 20, 31)]
    for each, masks in zip(rounds, (square(3), square(20), square(31)), strict=True):
        closed = close_round(dataset, workspace, each)
        assert (closed.masks, closed.withdrawn) == (1, 1)
        there = standing(dataset, image_id)
        assert [pixels for round_id, pixels in there if round_id] == [masks]
        assert [pixels for round_id, pixels in there if not round_id] == others
    assert dataset.maintenance.verify().faults == ()
    dataset.maintenance.rebuild_tables()
    assert len(standing(dataset, image_id)) == len(prefill)


def test_an_edit_of_an_edit_is_followed(dataset: Dataset, workspace: Workspace) -> None:
    image_id, prefill = prefilled_image(dataset)
    late = answered(workspace, image_id, prefill, ("change", made(prefill[0].mask, square(31))))
    first = answered(workspace, image_id, prefill, ("change", made(prefill[0].mask, square(3))))
    close_round(dataset, workspace, first)
    (row,) = masks_of(dataset, first)
    given = GivenMask(mask="e", rle=square(3), source=f"{image_id}/{row['mask_id']}")
    close_round(dataset, workspace, answered(workspace, image_id, (given,), ("change", made("e", square(20)))))
    close_round(dataset, workspace, late)
    assert [pixels for round_id, pixels in standing(dataset, image_id) if round_id] == [square(31)]


def test_a_mask_that_another_round_merged_comes_back_beside_the_edit_of_its_partner(
    dataset: Dataset, workspace: Workspace
) -> None:
    image_id, prefill = prefilled_image(dataset)
    one, two, *_ = (given.mask for given in prefill)
    merge = ("merge", {**made("both", square(1, side=30)), "masks": [one, two]})
    first = answered(workspace, image_id, prefill, merge)
    second = answered(workspace, image_id, prefill, ("change", made(one, square(31))))
    third = answered(workspace, image_id, prefill)
    for each, masks, withdrawn in ((first, 1, 2), (second, 2, 1), (third, 0, 0)):
        closed = close_round(dataset, workspace, each)
        assert (closed.masks, closed.withdrawn) == (masks, withdrawn)
    there = [pixels for round_id, pixels in standing(dataset, image_id) if round_id == second]
    assert there == [prefill[1].rle, square(31)] or there == [square(31), prefill[1].rle]
    assert len(standing(dataset, image_id)) == len(prefill)
    assert [row["in_masks"] for row in rows_of(dataset, third)] == [False, True, True, True], "a copy stands for one"


def test_a_mask_that_the_automatic_stage_stored_meanwhile_is_not_stored_again(
    dataset: Dataset, workspace: Workspace
) -> None:
    image_id, prefill = prefilled_image(dataset)
    given = (GivenMask(mask="g", rle=prefill[0].rle), GivenMask(mask="h", rle=square(40, side=9)))
    closed = close_round(dataset, workspace, answered(workspace, image_id, given))
    assert closed.masks == 1
    assert len(standing(dataset, image_id)) == len(prefill) + 1
    assert all(row["in_masks"] for row in rows_of(dataset, closed.round_id))


def test_a_mask_that_was_withdrawn_does_not_come_back_and_is_not_called_stored(
    dataset: Dataset, workspace: Workspace
) -> None:
    image_id, prefill = prefilled_image(dataset)
    opened = answered(workspace, image_id, prefill)
    dataset.withdraw([(image_id, int(prefill[0].mask))], "wrong")
    assert close_round(dataset, workspace, opened).masks == 0
    assert len(standing(dataset, image_id)) == len(prefill) - 1
    assert [row["in_masks"] for row in rows_of(dataset, opened)] == [False, True, True, True]


def test_a_round_whose_closing_was_killed_is_closed_before_one_that_shares_an_image(
    dataset: Dataset, workspace: Workspace
) -> None:
    image_id = empty_image(dataset)
    steps = len(steps_of(dataset, workspace, answered(workspace, image_id, DETECTED)))
    for number in range(1, steps):
        first, second = (answered(workspace, image_id, DETECTED, *EDIT) for _ in range(2))
        with pytest.raises(Killed):
            close_round(dataset, workspace, first, before_step=dying_at(number))
        with pytest.raises(OtherIsClosing, match=f"has images of round {first}, which is being closed"):
            workspace.rounds.begin_closing(second)
        close_round(dataset, workspace, second)
        assert workspace.rounds.get(first).state is RoundState.CLOSED
        assert sorted(pixels.counts.tolist() for _, pixels in standing(dataset, image_id)) == sorted(
            mask.counts.tolist() for mask in (square(33), square(2))
        )
        assert len(masks_of(dataset, second)) == 1
    assert dataset.maintenance.verify().faults == ()
