import pytest

from stages.rounds.agreement import estimate, match
from stages.rounds.close import close_round
from stages.rounds.quality import report_round
from storage.dataset import Dataset
from storage.workspace.records import GivenMask
from storage.workspace.workspace import Workspace
from tests.stages.rounds.answering import answer, answer_all, image_ids, small_round, square
from tests.workspaces import Page, made


def test_masks_are_paired_one_to_one_by_their_iou() -> None:
    matched = match([square(0), square(30)], [square(31), square(1), square(2)])
    assert len(matched.ious) == 2
    assert matched.ious == pytest.approx((19 / 21, 19 / 21))
    assert matched.found_fraction == pytest.approx(4 / 5)
    assert match([], []).found_fraction == 1.0
    assert match([square(0)], []).found_fraction == 0.0
    assert match([square(0)], [square(40)]).ious == ()


def test_an_estimate_has_an_interval_over_images() -> None:
    flat = estimate([[0.5, 0.7], [0.6]])
    assert (flat.mean, flat.low, flat.high, flat.images) == pytest.approx((0.6, 0.6, 0.6, 2))
    wide = estimate([[0.0], [1.0]] * 10)
    assert wide.low < 0.4 < wide.mean == 0.5 < 0.6 < wide.high
    assert estimate([[], []]) is None


def test_a_round_says_seconds_masks_and_skips_of_each_annotator(dataset: Dataset, workspace: Workspace) -> None:
    ids = image_ids(dataset)
    opened = small_round(workspace, ids[:6])
    first, second, third = workspace.leases.claim("ann", 3)
    answer(workspace, first, squares=2, seconds=4.0)
    answer(workspace, second, squares=1, seconds=8.0)
    workspace.leases.skip(third.token, "dark")
    (other,) = workspace.leases.claim("bob")
    answer(workspace, other, squares=1, seconds=2.0)

    report = report_round(workspace, opened.round_id)
    ann, bob = report.annotators
    assert (ann.annotator, ann.skips) == ("ann", 1)
    assert ann.skip_rate == pytest.approx(1 / 3)
    assert (ann.figures.masks_made, ann.figures.active_s, ann.figures.seconds_per_mask) == (3, 16.0, 16 / 3)
    assert (ann.figures.mean_s, ann.figures.median_s, ann.figures.p90_s) == pytest.approx((16 / 3, 4.0, 7.2))
    assert ann.figures.masks_per_hour == pytest.approx(3600 * 3 / 16)
    assert (bob.skips, bob.figures.masks_made) == (0, 1)
    assert (report.total.masks_made, report.total.clicks_per_mask) == (4, 1.0)
    assert (report.progress.done, report.progress.skips) == (3, 1)
    assert report.ends_at is not None
    assert report.ends_at > workspace.submissions.read()[-1].submitted_at


def test_agreement_compares_annotators_of_the_same_image(dataset: Dataset, workspace: Workspace) -> None:
    opened = small_round(workspace, image_ids(dataset)[:3], overlap=3)
    answer_all(workspace, "ann", squares=1)
    answer_all(workspace, "bob", squares=1, shift=1)
    answer_all(workspace, "cyd", squares=1, shift=30)
    report = report_round(workspace, opened.round_id)
    assert report.agreement.mean == pytest.approx(1 / 3)
    assert report.agreement.images == 3
    assert report.matched_iou.mean == pytest.approx(19 / 21)
    by_name = {each.annotator: each.agreement.mean for each in report.annotators}
    assert by_name == pytest.approx({"ann": 0.5, "bob": 0.5, "cyd": 0.0})
    assert report.ends_at is None


def test_gold_images_are_compared_with_the_known_masks(dataset: Dataset, workspace: Workspace) -> None:
    gold = (GivenMask(mask="g0", rle=square(0)), GivenMask(mask="g1", rle=square(40)))
    opened = small_round(workspace, image_ids(dataset)[:2], gold=gold)
    answer_all(workspace, "ann", squares=1)
    report = report_round(workspace, opened.round_id)
    assert report.gold_found.mean == 0.5
    assert report.annotators[0].gold_found.mean == 0.5


def test_prefilled_and_empty_images_are_counted_apart(dataset: Dataset, workspace: Workspace) -> None:
    ids = image_ids(dataset)
    prefill = (GivenMask(mask="p0", rle=square(0)), GivenMask(mask="p1", rle=square(20)))
    opened = small_round(workspace, ids[:1], prefill=prefill, stage="semi_automatic")
    (lease,) = workspace.leases.claim("ann")
    page = Page()
    workspace.operations.append(
        lease.token,
        [page("change", made("p0", square(1))), page("reject", {"mask": "p1"}), page("add", made("a", square(5)))],
    )
    workspace.submissions.submit(lease.token, 3)
    report = report_round(workspace, opened.round_id)
    assert (report.total.masks_made, report.total.prefill_edited, report.total.prefill_rejected) == (1, 1, 1)
    assert report.prefilled.answers == 1
    assert report.empty is None
    assert report.total.masks_per_hour is None


def test_a_round_without_answers_has_a_report(dataset: Dataset, workspace: Workspace) -> None:
    opened = small_round(workspace, image_ids(dataset)[:1])
    report = report_round(workspace, opened.round_id)
    assert (report.total.answers, report.annotators, report.agreement, report.ends_at) == (0, (), None, None)


def test_closing_writes_the_agreement_of_each_mask_for_sql(dataset: Dataset, workspace: Workspace) -> None:
    ids = image_ids(dataset)[:3]
    opened = small_round(workspace, ids[:2], overlap=2)
    alone = small_round(workspace, ids[2:])
    answer_all(workspace, "ann", squares=2)
    answer_all(workspace, "bob", squares=1, shift=1)
    for each in (opened, alone):
        close_round(dataset, workspace, each.round_id)
    sql = "SELECT annotator_id, agreed_fraction, agreed_iou FROM annotations WHERE round_id = '{}' ORDER BY 1, 2, 3"
    rows = dataset.query(sql.format(opened.round_id)).to_pylist()
    assert [(row["annotator_id"], row["agreed_fraction"]) for row in rows] == [
        *[("ann", 0.0)] * 2,
        *[("ann", 1.0)] * 2,
        *[("bob", 1.0)] * 2,
    ]
    assert [row["agreed_iou"] for row in rows] == [None, None, *[pytest.approx(19 / 21)] * 4]
    report = report_round(workspace, opened.round_id)
    assert report.agreement is not None
    assert report.agreement.mean == pytest.approx(sum(row["agreed_fraction"] for row in rows) / len(rows))
    assert {row["agreed_fraction"] for row in dataset.query(sql.format(alone.round_id)).to_pylist()} == {None}
