"""Reopenings: an annotator goes on with submitted work, which counts until the next submission takes its place."""

import pytest
from sqlalchemy import update

from storage.errors import Conflict, NotFound
from storage.workspace.columns import seconds_from_now
from storage.workspace.leases import StaleLease
from storage.workspace.records import Submission
from storage.workspace.schema import SLOTS
from storage.workspace.workspace import Workspace
from tests.workspaces import Page, made, open_round


@pytest.fixture
def submission(workspace: Workspace) -> Submission:
    """A submission by ann with one mask."""
    open_round(workspace, images=2)
    (lease,) = workspace.leases.claim("ann")
    workspace.operations.append(lease.token, [Page()("add", made("a"))])
    return workspace.submissions.submit(lease.token, 1)


def states(workspace: Workspace) -> list[tuple[int, str]]:
    return [(each.masks, each.state) for each in workspace.submissions.read()]


def test_the_next_submission_takes_the_place_of_the_earlier_one_and_both_are_stored(
    workspace: Workspace, submission: Submission
) -> None:
    assert workspace.reopenings.offered("ann", newest=5) == [submission]
    lease = workspace.reopenings.begin(submission.task_id, annotator="ann")
    assert (lease.revision, lease.is_reopened, lease.fixes) == (1, True, None)
    assert workspace.reopenings.begin(submission.task_id, annotator="ann").token == lease.token
    assert [each.token for each in workspace.leases.held("ann")] == [lease.token]

    # The submission counts meanwhile, and nobody is asked to judge it
    assert workspace.rounds.progress(lease.task.round_id).done == 1
    assert workspace.submissions.read_waiting() == []
    page = Page(base=1, session="again")
    workspace.operations.append(lease.token, [page("add", made("b"))])
    again = workspace.submissions.submit(lease.token, 2)
    assert states(workspace) == [(1, "withdrawn"), (2, "submitted")]
    assert workspace.submissions.read_waiting() == [again] == workspace.reopenings.offered("ann", newest=5)
    assert workspace.rounds.progress(lease.task.round_id).done == 1
    earlier = workspace.operations.state(submission.task_id, "ann", revision=submission.revision)
    assert [mask.mask for mask in earlier.masks] == ["a"]
    assert [entry.action for entry in workspace.audit_log()][-2:] == ["reopen submission", "submit again"]


def test_what_is_handed_back_stays_submitted_and_is_not_skipped(workspace: Workspace, submission: Submission) -> None:
    lease = workspace.reopenings.begin(submission.task_id, annotator="ann")
    with pytest.raises(ValueError, match="is handed back"):
        workspace.leases.skip(lease.token, "no time")
    workspace.leases.hand_back(lease.token)
    assert states(workspace) == [(1, "submitted")]
    assert workspace.submissions.read_waiting() == [submission]
    assert [each.task.image_id for each in workspace.leases.claim("bob", 3)] == [2]


def test_reviewers_wait_for_an_annotator_who_has_opened_the_picture_again(
    workspace: Workspace, submission: Submission
) -> None:
    number = submission.submission_id
    lease = workspace.reopenings.begin(submission.task_id, annotator="ann")
    for judge in (
        lambda: workspace.submissions.accept(number, actor="rita"),
        lambda: workspace.submissions.send_back(number, "no", actor="rita"),
        lambda: workspace.submissions.add_verdict(number, reviewer="rita", question="nothing_missing", answer="no"),
        lambda: workspace.fixes.begin(number, reviewer="rita"),
    ):
        with pytest.raises(Conflict, match="ann has opened submission"):
            judge()

    # A lease that ran out holds nobody up: it ends with the judgement
    with workspace.database.write() as connection:
        connection.execute(update(SLOTS).where(SLOTS.c.token == lease.token).values(expires_at=seconds_from_now(-1)))
    workspace.submissions.accept(number, actor="rita")
    with pytest.raises(StaleLease):
        workspace.submissions.submit(lease.token, 1)
    assert states(workspace) == [(1, "accepted")]


def test_what_a_reviewer_has_judged_or_is_fixing_is_not_opened_again(
    workspace: Workspace, submission: Submission
) -> None:
    number, task_id = submission.submission_id, submission.task_id
    fix = workspace.fixes.begin(number, reviewer="rita")
    with pytest.raises(Conflict, match="rita is fixing"):
        workspace.reopenings.begin(task_id, annotator="ann")
    workspace.leases.hand_back(fix.token)
    workspace.submissions.add_verdict(number, reviewer="rita", question="nothing_missing", answer="yes")
    assert workspace.reopenings.offered("ann", newest=5) == []
    with pytest.raises(ValueError, match="a reviewer has judged"):
        workspace.reopenings.begin(task_id, annotator="ann")
    with pytest.raises(NotFound, match="bob has submitted nothing"):
        workspace.reopenings.begin(task_id, annotator="bob")


def test_a_round_that_ended_opens_nothing_again_and_keeps_what_was_submitted(
    workspace: Workspace, submission: Submission
) -> None:
    lease = workspace.reopenings.begin(submission.task_id, annotator="ann")
    workspace.rounds.cancel(lease.task.round_id)
    assert workspace.reopenings.offered("ann", newest=5) == []
    with pytest.raises(ValueError, match="cancelled"):
        workspace.reopenings.begin(submission.task_id, annotator="ann")
    with pytest.raises(ValueError, match="cancelled"):
        workspace.submissions.submit(lease.token, 1)
    assert states(workspace) == [(1, "submitted")]
