"""An audit: a sample that stays the same, and masks compared before and after people improved them."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import psycopg
import pytest

from stages.rounds.agreement import estimate_pooled
from stages.rounds.audit import AuditRequest, open_audit
from stages.rounds.close import close_round
from stages.rounds.quality import report_round
from storage import rle
from storage.dataset import Dataset
from storage.rle import Rle
from storage.workspace.records import Lease
from storage.workspace.workspace import Workspace
from tests import postgresql_server
from tests.small_dataset import write_masks
from tests.stages.rounds.answering import image_ids, small_round
from tests.workspaces import Page, made

SPAWN = multiprocessing.get_context("spawn")
ALL = AuditRequest(sample=4, seed=1, masks="true")


def shrunk(mask: Rle, fraction: float) -> Rle:
    """The mask without some of its pixels: its IoU with the mask is `fraction`, or a little more."""
    pixels = rle.decode(mask)
    place = np.flatnonzero(pixels)
    pixels.flat[place[int(np.ceil(fraction * len(place))) :]] = False
    return rle.encode(pixels)


def improve(workspace: Workspace, lease: Lease, fraction: float, *, reject: bool = False, add: bool = False) -> None:
    """Change the first mask of a task so that this fraction of it is left; reject the second; add one."""
    page = Page()
    first, second, *_ = workspace.rounds.prefill(lease.task.task_id)
    operations = [page("change", made(first.mask, shrunk(first.rle, fraction)))]
    operations += [page("reject", {"mask": second.mask})] if reject else []
    operations += [page("add", made("new", first.rle))] if add else []
    workspace.operations.append(lease.token, operations)
    workspace.submissions.submit(lease.token, page.base)


def test_an_audit_that_is_asked_for_again_is_the_same_whatever_the_dataset_became(
    dataset: Dataset, workspace: Workspace
) -> None:
    first, is_new = open_audit(dataset, workspace, ALL)
    assert is_new
    tasks = workspace.rounds.tasks(first.round_id)
    given = [workspace.rounds.prefill(task.task_id) for task in tasks]
    write_masks(dataset, "three-3")
    dataset.fold()
    assert open_audit(dataset, workspace, ALL) == (first, False)
    assert [workspace.rounds.prefill(task.task_id) for task in workspace.rounds.tasks(first.round_id)] == given

    other, is_new = open_audit(dataset, workspace, replace(ALL, seed=2))
    assert is_new
    assert [task.image_id for task in workspace.rounds.tasks(other.round_id)] != [task.image_id for task in tasks]
    workspace.rounds.cancel(first.round_id)
    again, is_new = open_audit(dataset, workspace, ALL)
    assert is_new
    assert [task.image_id for task in workspace.rounds.tasks(again.round_id)] == [task.image_id for task in tasks]


def test_audits_that_are_cancelled_reopened_and_asked_for_again_keep_apart(
    dataset: Dataset, workspace: Workspace
) -> None:
    first, _ = open_audit(dataset, workspace, ALL)
    workspace.rounds.cancel(first.round_id)
    second, is_new = open_audit(dataset, workspace, ALL)
    assert is_new
    workspace.rounds.reopen(first.round_id)
    assert open_audit(dataset, workspace, ALL)[0].round_id == first.round_id
    workspace.rounds.cancel(first.round_id)
    assert open_audit(dataset, workspace, ALL) == (second, False)
    workspace.rounds.cancel(second.round_id)
    third, is_new = open_audit(dataset, workspace, ALL)
    assert is_new
    assert len({first.round_id, second.round_id, third.round_id}) == len(workspace.rounds.read_all()) == 3


def ask_for_the_audit(
    uri: str, place: str, barrier: Barrier, results: "multiprocessing.Queue[tuple[str, bool]]"
) -> None:
    dataset = Dataset.open(uri)
    with Workspace.open(place) as workspace:
        barrier.wait(60)
        found, is_new = open_audit(dataset, workspace, ALL)
        results.put((found.round_id, is_new))


@contextmanager
def empty_place(kind: str, folder: Path) -> Iterator[str]:
    """An SQLite file, or a database of a PostgreSQL server of its own."""
    if kind == "sqlite":
        yield str(folder / "audits.sqlite")
        return
    if postgresql_server.programs() is None:
        pytest.skip("no PostgreSQL: initdb is not installed (Debian: postgresql)")
    with postgresql_server.serving() as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE audits")
        yield server.url("audits")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_ask_for_the_same_audit_at_the_same_moment_open_it_once(
    kind: str, dataset: Dataset, tmp_path: Path
) -> None:
    with empty_place(kind, tmp_path) as place:
        Workspace.open(place).close()
        barrier, results = SPAWN.Barrier(3), SPAWN.Queue()
        arguments = (dataset.uri, place, barrier, results)
        processes = [SPAWN.Process(target=ask_for_the_audit, args=arguments) for _ in range(3)]
        for process in processes:
            process.start()
        answers = [results.get(timeout=200) for _ in processes]
        for process in processes:
            process.join(60)
        with Workspace.open(place) as workspace:
            (found,) = workspace.rounds.read_all()
        assert sorted(answers) == [(found.round_id, False), (found.round_id, False), (found.round_id, True)]


def test_images_without_a_mask_to_audit_are_not_drawn(dataset: Dataset, workspace: Workspace) -> None:
    found, _ = open_audit(dataset, workspace, AuditRequest(masks="model_id = 'one-1'"))
    assert len(workspace.rounds.tasks(found.round_id)) == len(image_ids(dataset)) - 1
    for task in workspace.rounds.tasks(found.round_id):
        assert {mask.model_id for mask in workspace.rounds.prefill(task.task_id)} == {"one-1"}
    with pytest.raises(ValueError, match="nothing to audit"):
        open_audit(dataset, workspace, AuditRequest(masks="model_id = 'none'"))
    with pytest.raises(ValueError, match="at least 1 image"):
        open_audit(dataset, workspace, AuditRequest(sample=0))


def test_the_report_of_an_audit_compares_before_and_after_and_sql_gives_the_same_after_closing(
    dataset: Dataset, workspace: Workspace
) -> None:
    found, _ = open_audit(dataset, workspace, ALL)
    masks = sum(len(workspace.rounds.prefill(task.task_id)) for task in workspace.rounds.tasks(found.round_id))
    changes = [(0.5, True), (0.8, False), (0.95, False), (1.0, False)]
    for lease, (fraction, reject) in zip(workspace.leases.claim("ann", 4), changes, strict=True):
        improve(workspace, lease, fraction, reject=reject, add=fraction == 0.95)

    figures = report_round(workspace, found.round_id).audit
    assert figures is not None
    assert (figures.images, figures.masks, figures.rejected, figures.added) == (4, masks, 1, 1)
    assert figures.unchanged == masks - 5
    assert figures.above_90 is not None
    assert figures.above_75 is not None
    assert figures.mean_iou is not None
    assert figures.above_90.mean == pytest.approx((masks - 3) / masks)
    assert figures.above_75.mean == pytest.approx((masks - 2) / masks)
    assert figures.above_90.low < figures.above_90.mean < figures.above_90.high
    assert (sum(figures.histogram), figures.histogram[0]) == (masks, 1)

    close_round(dataset, workspace, found.round_id)
    sql = (
        "SELECT count(*) AS masks, avg(prefill_iou) AS mean_iou, "
        "avg(CASE WHEN prefill_iou > 0.9 THEN 1.0 ELSE 0.0 END) AS above_90 "
        f"FROM annotations WHERE round_id = '{found.round_id}' AND prefill_iou IS NOT NULL"
    )
    (row,) = dataset.query(sql).to_pylist()
    assert row["masks"] == masks
    assert row["mean_iou"] == pytest.approx(figures.mean_iou.mean, abs=1e-6)
    assert row["above_90"] == pytest.approx(figures.above_90.mean)


def test_a_round_that_is_no_audit_has_no_audit_figures(dataset: Dataset, workspace: Workspace) -> None:
    assert report_round(workspace, small_round(workspace, image_ids(dataset)[:1]).round_id).audit is None


def test_an_interval_over_masks_weighs_images_by_their_masks() -> None:
    pooled = estimate_pooled([[1.0] * 9, [0.0]])
    assert pooled is not None
    assert (pooled.mean, pooled.low, pooled.high, pooled.images) == (0.9, 0.0, 1.0, 2)
    assert estimate_pooled([[], []]) is None
