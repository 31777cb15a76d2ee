"""Closing a round whose annotators edited and rejected masks of the dataset: one fold takes the place of the masks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from stages.rounds.close import close_round
from storage.dataset import Dataset
from storage.errors import StoreError
from storage.tables import folds
from storage.workspace.records import GivenMask, Round, TaskSpec
from storage.workspace.workspace import Workspace
from tests.small_dataset import SIDE
from tests.stages.rounds.answering import answer_all, image_ids, small_round, square
from tests.workspaces import Page, made

READING = ("SELECT", "COMMIT")
"""Boundaries at which nothing was written since the last one; SQLite commits reading transactions, too."""


class Killed(Exception):
    """The end of a process, as a test sees it."""


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A round over one image, in which a mask of the dataset was edited, another rejected, and one was added."""

    opened: Round
    image_id: int
    replaced: int
    rejected: int

    def is_replaced(self, dataset: Dataset) -> bool:
        """Look once as a reader does: True for the new masks alone, False for the old ones alone."""
        rows = dataset.query(f"SELECT mask_id, round_id FROM masks WHERE image_id = {self.image_id}").to_pylist()
        old = {row["mask_id"] for row in rows} & {self.replaced, self.rejected}
        new = [row for row in rows if row["round_id"] == self.opened.round_id]
        assert (len(old), len(new)) in ((2, 0), (0, 2)), f"a reader sees {len(old)} old and {len(new)} new masks"
        return bool(new)


def edit(dataset: Dataset, workspace: Workspace, image_id: int) -> Edited:
    """Open a semi-automatic round over one image with the masks that it has, and answer it."""
    rows = dataset.masks_of_image(image_id).to_pylist()
    prefill = tuple(
        GivenMask(
            mask=f"p{row['mask_id']}",
            rle=dataset.read_mask(image_id, row["mask_id"]).rle,
            source=f"{image_id}/{row['mask_id']}",
        )
        for row in rows
    )
    opened = small_round(workspace, [image_id], prefill=prefill, stage="semi_automatic")
    (lease,) = workspace.leases.claim("ann")
    page = Page()
    operations = [
        page("change", made(prefill[0].mask, square(3), clicks=2)),
        page("reject", {"mask": prefill[1].mask}),
        page("add", made("new", square(9))),
    ]
    workspace.operations.append(lease.token, operations)
    workspace.submissions.submit(lease.token, len(operations))
    return Edited(opened=opened, image_id=image_id, replaced=rows[0]["mask_id"], rejected=rows[1]["mask_id"])


def with_masks(dataset: Dataset) -> int:
    return int(dataset.query("SELECT min(image_id) AS image_id FROM masks").to_pylist()[0]["image_id"])


@contextmanager
def watched(
    dataset: Dataset, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, before: Callable[[str], None]
) -> Iterator[None]:
    """Call `before` ahead of each put, statement and transaction's end, and each step of a fold."""
    store, engine = dataset.store, workspace.database.engine

    def put(name: str, *arguments: Any) -> Any:
        before(name)
        return getattr(type(store), name)(store, *arguments)

    def statement(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        before(sql.split(maxsplit=1)[0])

    def end(_connection: Any) -> None:
        before("COMMIT")

    with monkeypatch.context() as patched:
        for name in ("write", "put_if_absent"):
            patched.setattr(store, name, partial(put, name), raising=False)
        patched.setattr("storage.tables.folds.fold", partial(folds.fold, before_step=before))
        event.listen(engine, "before_cursor_execute", statement)
        event.listen(engine, "commit", end)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", statement)
            event.remove(engine, "commit", end)


def test_readers_see_the_old_masks_or_the_new_ones_at_every_boundary(
    dataset: Dataset, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = edit(dataset, workspace, with_masks(dataset))
    reader = Dataset.open(dataset.uri)
    seen: list[bool] = []
    boundaries: list[str] = []

    def look(boundary: str) -> None:
        boundaries.append(boundary)
        seen.append(edited.is_replaced(reader))

    with watched(dataset, workspace, monkeypatch, look):
        closed = close_round(dataset, workspace, edited.opened.round_id)
    assert (closed.masks, closed.withdrawn, closed.plan_id.partition("-")[0]) == (2, 2, "amendments")
    assert {"write", "put_if_absent", "SELECT", "UPDATE", "COMMIT", "apply masks", "done"} <= set(boundaries)
    assert seen == sorted(seen)  # once replaced, always replaced
    assert (seen[0], seen[-1]) == (False, True)
    assert _origins(dataset, edited) == ["made", *["prefill_accepted"] * 2, "prefill_edited", "prefill_rejected"]
    assert dataset.maintenance.verify().faults == ()
    dataset.maintenance.rebuild_tables()
    assert edited.is_replaced(dataset)


def _origins(dataset: Dataset, edited: Edited) -> list[str]:
    sql = f"SELECT origin FROM annotations WHERE round_id = '{edited.opened.round_id}' ORDER BY origin"
    origins: list[str] = dataset.query(sql)["origin"].to_pylist()
    return origins


@pytest.mark.slow
def test_closing_killed_at_any_boundary_replaces_once(
    dataset: Dataset, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn edits the masks that the turn before left, and dies before one more write or step of the fold."""
    reader, number, is_over = Dataset.open(dataset.uri), 0, False
    while not is_over:
        edited = edit(dataset, workspace, with_masks(dataset))
        count = iter(range(number + 1))

        def die(boundary: str, count: Iterator[int] = count) -> None:
            if boundary not in READING and next(count, None) is None:
                raise Killed

        is_over = True
        with watched(dataset, workspace, monkeypatch, die):
            try:
                close_round(dataset, workspace, edited.opened.round_id)
            except Killed:
                is_over = False
        edited.is_replaced(reader)  # the old masks or the new ones, by its assertion
        assert close_round(dataset, workspace, edited.opened.round_id).withdrawn == 2
        assert edited.is_replaced(reader)
        plans = [plan for plan in dataset.plans() if plan.settings.get("round_id") == edited.opened.round_id]
        assert len(plans) == 1
        number += 1
    assert number > 15
    assert dataset.maintenance.verify().faults == ()


def test_a_mask_that_others_withdrew_meanwhile_does_not_hold_up_closing(dataset: Dataset, workspace: Workspace) -> None:
    edited = edit(dataset, workspace, with_masks(dataset))

    def withdraw(step: str) -> None:
        if step.startswith("write"):
            dataset.withdraw([(edited.image_id, edited.replaced)], "wrong")

    closed = close_round(dataset, workspace, edited.opened.round_id, before_step=withdraw)
    assert (closed.masks, closed.withdrawn) == (2, 1)
    assert edited.is_replaced(dataset)
    assert dataset.maintenance.verify().faults == ()


def test_closing_says_that_it_waits_for_lost_rows_and_ends_once_they_are_back(
    dataset: Dataset, workspace: Workspace
) -> None:
    edited = edit(dataset, workspace, with_masks(dataset))
    row = dataset.masks_of_image(edited.image_id).to_pylist()[0]
    commit = next(each for plan in dataset.plans() for each in dataset.commits(plan) if _is_of(each, row))
    (part,) = commit.rows()
    path = Path(dataset.uri) / part.key
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(StoreError, match=r"1 of 1 shards cannot be folded.*`gigamask verify` names them"):
        close_round(dataset, workspace, edited.opened.round_id)
    assert not edited.is_replaced(dataset)
    path.write_bytes(data)
    assert close_round(dataset, workspace, edited.opened.round_id).withdrawn == 2
    assert edited.is_replaced(dataset)


def _is_of(commit: Any, row: dict[str, Any]) -> bool:
    return (commit.plan_id, commit.shard) == (row["plan"], row["shard"])


def test_images_whose_masks_were_kept_are_stored_by_the_same_plan(dataset: Dataset, workspace: Workspace) -> None:
    edited = edit(dataset, workspace, with_masks(dataset))
    other = next(each for each in image_ids(dataset) if each != edited.image_id)
    workspace.rounds.extend(edited.opened.round_id, [TaskSpec(image_id=other, height=SIDE, width=SIDE)])
    assert answer_all(workspace, "ann") == 1
    before = dataset.masks_of_image(other).num_rows
    closed = close_round(dataset, workspace, edited.opened.round_id)
    assert (closed.images, closed.masks, closed.withdrawn) == (2, 4, 2)
    assert dataset.masks_of_image(other).num_rows == before + 2
