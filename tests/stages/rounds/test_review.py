"""The figures of review: verdicts, and what became of submissions."""

from flows.report.round_page import render_round
from stages.rounds.quality import report_round
from storage.dataset import Dataset
from storage.workspace.workspace import Workspace
from tests.stages.rounds.answering import answer_all, image_ids, small_round
from tests.workspaces import Page


def test_the_report_counts_verdicts_and_what_became_of_submissions(dataset: Dataset, workspace: Workspace) -> None:
    workspace.users.add("rita", "reviewer")
    opened = small_round(workspace, image_ids(dataset)[:4])
    answer_all(workspace, "ann")
    report = report_round(workspace, opened.round_id)
    assert report.review is None
    assert "<h2>Review</h2>" not in render_round(report)

    accepted, fixed, sent_back, _ = (each.submission_id for each in workspace.submissions.read())
    verdicts = workspace.submissions
    for answer in ("no", "yes"):  # the newest counts
        verdicts.add_verdict(accepted, reviewer="rita", question="mask_good", answer=answer, mask="m0")
    verdicts.add_verdict(fixed, reviewer="rita", question="mask_good", answer="no", mask="m0")
    verdicts.add_verdict(fixed, reviewer="rita", question="mask_good", answer="unsure", mask="m1")
    verdicts.add_verdict(sent_back, reviewer="rita", question="nothing_missing", answer="no")
    for submission in (accepted, fixed):
        workspace.submissions.accept(submission, actor="rita")
    workspace.submissions.send_back(sent_back, "the cup", actor="rita")
    lease = workspace.fixes.begin(fixed, reviewer="rita")
    page = Page(base=lease.revision, session="fix")
    activity = page("activity", {"inputs": [[0.0, None], [6.0, "m0"]]})
    workspace.operations.append(lease.token, [page("remove", {"mask": "m0"}), activity])
    workspace.submissions.submit(lease.token, page.base)

    report = report_round(workspace, opened.round_id)
    review = report.review
    assert review is not None
    assert (review.accepted, review.fixed, review.sent_back) == (1, 1, 1)
    assert (review.good_masks, review.bad_masks, review.unsure) == (1, 1, 1)
    assert (review.complete_images, review.incomplete_images) == (0, 1)
    assert review.fix_s == 6.0
    html = render_round(report)
    assert "Fixed by a reviewer" in html
    assert "Reviewers spent 6.0 s on fixes" in html
