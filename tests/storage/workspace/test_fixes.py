"""Fixes: a reviewer's change of a submission takes its place, and tells who made and who fixed each mask."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text, update

from storage.errors import Conflict, NotFound
from storage.workspace.columns import seconds_from_now
from storage.workspace.leases import StaleLease
from storage.workspace.migrate import migrate, migrate_to
from storage.workspace.records import Lease, Submission
from storage.workspace.schema import LEASES, SLOTS
from storage.workspace.submissions import replaced_by_fixes
from storage.workspace.workspace import Workspace
from tests.workspaces import Page, made, open_round, operation, rectangle


@pytest.fixture
def submission(workspace: Workspace) -> Submission:
    """A submission by ann: a prefilled mask p0, and the made masks a and b."""
    open_round(workspace, images=2, prefill=1)
    (lease,) = workspace.leases.claim("ann")
    page = Page()
    workspace.operations.append(lease.token, [page("add", made("a", clicks=2)), page("add", made("b"))])
    return workspace.submissions.submit(lease.token, 2)


def page_of(lease: Lease) -> Page:
    return Page(base=lease.revision, session=f"fix-{lease.token[:8]}")


def test_a_fix_takes_the_place_of_the_submission_and_names_who_made_and_who_fixed(
    workspace: Workspace, submission: Submission
) -> None:
    lease = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    assert (lease.annotator, lease.fixes, lease.revision) == ("rita", submission.submission_id, 1)
    begun = workspace.operations.state(submission.task_id, "rita")
    assert [(mask.mask, mask.author) for mask in begun.masks] == [("p0", "ann"), ("a", "ann"), ("b", "ann")]
    page = page_of(lease)
    changes = [
        page("change", made("a", rectangle(x=1), clicks=1)),
        page("remove", {"mask": "b"}),
        page("reject", {"mask": "p0"}),
        page("add", made("c")),
        page("undo"),
        page("redo"),
    ]
    workspace.operations.append(lease.token, changes)
    fix = workspace.submissions.submit(lease.token, page.base)
    assert (fix.annotator, fix.state, fix.fixes, fix.masks) == ("rita", "accepted", submission.submission_id, 2)
    state = workspace.operations.state(submission.task_id, "rita", revision=fix.revision)
    assert [(mask.mask, mask.author, mask.fixed_by, mask.clicks) for mask in state.masks] == [
        ("a", "ann", "rita", 3),
        ("c", "", "", 0),
    ]
    assert [(mask.mask, mask.author, mask.fixed_by) for mask in state.rejected] == [("p0", "ann", "rita")]
    assert replaced_by_fixes(workspace.submissions.read()) == {submission.submission_id: fix}
    own = workspace.operations.state(submission.task_id, "ann")
    assert [(mask.mask, mask.author) for mask in own.masks] == [("p0", ""), ("a", ""), ("b", "")]
    for judge in (workspace.submissions.accept, lambda number, actor: workspace.fixes.begin(number, reviewer=actor)):
        with pytest.raises(ValueError, match=f"rita fixed submission .*; review submission {fix.submission_id}"):
            judge(submission.submission_id, actor="lea")


def test_undo_does_not_go_back_beyond_the_masks_that_the_reviewer_found(
    workspace: Workspace, submission: Submission
) -> None:
    lease = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    page = page_of(lease)
    workspace.operations.append(lease.token, [page("remove", {"mask": "a"}), page("undo"), page("undo")])
    state = workspace.operations.state(submission.task_id, "rita")
    assert ([mask.mask for mask in state.masks], state.ignored) == (["p0", "a", "b"], 1)


def test_a_fix_that_is_handed_back_or_runs_out_leaves_the_submission_and_is_continued(
    workspace: Workspace, submission: Submission
) -> None:
    first = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    workspace.operations.append(first.token, [page_of(first)("remove", {"mask": "b"})])
    assert workspace.fixes.begin(submission.submission_id, reviewer="rita").token == first.token
    with pytest.raises(Conflict, match="is being fixed by rita"):
        workspace.fixes.begin(submission.submission_id, reviewer="lea")
    workspace.leases.hand_back(first.token)
    assert workspace.rounds.progress(open_round_id(workspace)).done == 1
    assert [each.task.image_id for each in workspace.leases.claim("bob", 3)] == [2]

    again = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    assert (again.token != first.token, again.revision) == (True, 2)
    with workspace.database.write() as connection:
        connection.execute(update(SLOTS).where(SLOTS.c.token == again.token).values(expires_at=seconds_from_now(-1)))
    other = workspace.fixes.begin(submission.submission_id, reviewer="lea")
    assert other.revision == 1
    with pytest.raises(StaleLease):
        workspace.submissions.submit(again.token, 2)
    assert replaced_by_fixes(workspace.submissions.read()) == {}


def open_round_id(workspace: Workspace) -> str:
    (found,) = workspace.rounds.read_all()
    return found.round_id


def test_who_holds_a_fix_may_hold_as_many_tasks_as_anybody_and_its_author_too(
    workspace: Workspace, submission: Submission
) -> None:
    workspace.fixes.begin(submission.submission_id, reviewer="rita")
    open_round(workspace, images=5, first=10)
    assert len(workspace.leases.claim("rita", 5)) == 3
    assert len(workspace.leases.claim("ann", 5)) == 3
    assert len(workspace.leases.held("rita")) == 4


def test_own_work_and_images_that_the_reviewer_annotates_are_not_fixed(workspace: Workspace) -> None:
    open_round(workspace, images=1, overlap=2)
    (mine,), (other,) = workspace.leases.claim("rita"), workspace.leases.claim("ann")
    own = workspace.submissions.submit(mine.token, 0)
    others = workspace.submissions.submit(other.token, 0)
    with pytest.raises(ValueError, match="is your own"):
        workspace.fixes.begin(own.submission_id, reviewer="rita")
    with pytest.raises(ValueError, match="you work on the image"):
        workspace.fixes.begin(others.submission_id, reviewer="rita")
    with pytest.raises(NotFound, match="there is no such submission"):
        workspace.fixes.begin(999, reviewer="rita")


def test_a_reviewer_who_saw_a_view_of_an_image_is_not_asked_for_another(workspace: Workspace) -> None:
    open_round(workspace, images=1, overlap=2)
    (lease,) = workspace.leases.claim("ann")
    submission = workspace.submissions.submit(lease.token, 0)
    fix = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    workspace.leases.hand_back(fix.token)
    assert workspace.leases.claim("rita") == []
    assert len(workspace.leases.claim("bob")) == 1


def test_a_fix_is_neither_skipped_nor_sent_back(workspace: Workspace, submission: Submission) -> None:
    lease = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    with pytest.raises(ValueError, match="hands it back"):
        workspace.leases.skip(lease.token, "too hard")
    fix = workspace.submissions.submit(lease.token, 1)
    with pytest.raises(ValueError, match="is a fix by rita; fix it instead"):
        workspace.submissions.send_back(fix.submission_id, "no", actor="lea")


def test_sending_back_ends_a_fix_and_what_the_reviewer_still_sends_is_kept_on_a_branch(
    workspace: Workspace, submission: Submission
) -> None:
    lease = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    workspace.submissions.send_back(submission.submission_id, "start again", actor="lea")
    late = workspace.operations.append(lease.token, [page_of(lease)("remove", {"mask": "a"})])
    assert late.branch
    (again,) = workspace.leases.claim("ann")
    assert (again.task.task_id, again.reason, again.fixes) == (submission.task_id, "start again", None)


def test_a_task_sent_back_comes_before_work_that_was_begun_and_before_new_tasks(workspace: Workspace) -> None:
    open_round(workspace, images=3)
    first, second = workspace.leases.claim("ann", 2)
    submission = workspace.submissions.submit(second.token, 0)
    with workspace.database.write() as connection:
        connection.execute(update(SLOTS).where(SLOTS.c.token == first.token).values(expires_at=seconds_from_now(-1)))
    workspace.submissions.send_back(submission.submission_id, "the dog", actor="rita")
    claimed = workspace.leases.claim("ann", 3)
    assert [(each.task.image_id, each.reason) for each in claimed] == [(2, "the dog"), (1, ""), (3, "")]


def test_withdrawing_the_author_takes_the_fix_along_and_withdrawing_the_reviewer_does_not_take_the_author(
    workspace: Workspace, submission: Submission
) -> None:
    round_id = open_round_id(workspace)
    lease = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    workspace.submissions.submit(lease.token, 1)
    workspace.submissions.withdraw(round_id, "rita", actor="lea")
    assert [each.state for each in workspace.submissions.read()] == ["submitted", "withdrawn"]
    again = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    workspace.submissions.submit(again.token, again.revision)
    assert len(workspace.submissions.withdraw(round_id, "ann", actor="lea")) == 2
    assert {each.state for each in workspace.submissions.read()} == {"withdrawn"}
    assert workspace.rounds.progress(round_id).free == 2


def test_a_fix_can_be_fixed_by_another_reviewer(workspace: Workspace, submission: Submission) -> None:
    lease = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    workspace.operations.append(lease.token, [page_of(lease)("change", made("a"))])
    first = workspace.submissions.submit(lease.token, 2)
    second = workspace.fixes.begin(first.submission_id, reviewer="lea")
    workspace.operations.append(second.token, [page_of(second)("change", made("b"))])
    workspace.submissions.submit(second.token, 2)
    state = workspace.operations.state(submission.task_id, "lea")
    assert [(mask.mask, mask.author, mask.fixed_by) for mask in state.masks] == [
        ("p0", "ann", ""),
        ("a", "ann", "rita"),
        ("b", "ann", "lea"),
    ]


def test_a_client_cannot_begin_a_fix_by_an_operation(workspace: Workspace) -> None:
    open_round(workspace)
    (lease,) = workspace.leases.claim("ann")
    with pytest.raises(ValueError, match="the server alone makes it"):
        workspace.operations.append(lease.token, [operation("fix", {"submission": 1})])


def test_two_reviewers_at_once_get_one_lease(workspace: Workspace, submission: Submission) -> None:
    def begin(reviewer: str) -> str:
        try:
            return workspace.fixes.begin(submission.submission_id, reviewer=reviewer).annotator
        except Conflict:
            return "refused"

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(begin, ["rita", "lea", "rita", "lea"]))
    winner = next(each for each in answers if each != "refused")
    assert sorted(answers) == sorted([winner, winner, "refused", "refused"])


def test_a_workspace_from_before_fixes_is_brought_along(workspace: Workspace, submission: Submission) -> None:
    with workspace.database.write() as connection:
        for table in ("leases", "submissions"):
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN fixes"))
        for table in ("firings", "requests"):  # of later migrations
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    migrate(workspace.database)
    assert workspace.submissions.read() == [submission]
    with workspace.database.write() as connection:
        migrate_to(connection, "head")
    assert workspace.fixes.begin(submission.submission_id, reviewer="rita").fixes == submission.submission_id


@pytest.mark.parametrize("act", ["send back", "withdraw"])
def test_a_fix_in_progress_ends_with_its_submission(workspace: Workspace, submission: Submission, act: str) -> None:
    lease = workspace.fixes.begin(submission.submission_id, reviewer="rita")
    if act == "send back":
        workspace.submissions.send_back(submission.submission_id, "leaks", actor="lea")
    else:
        workspace.submissions.withdraw(workspace.rounds.read_all()[0].round_id, "ann", actor="lea")
    with pytest.raises(StaleLease, match=r"has ended \((sent_back|withdrawn)\)"):
        workspace.leases.heartbeat(lease.token)
    with workspace.database.read() as connection:
        living = connection.execute(select(LEASES.c.token).where(LEASES.c.ended_at.is_(None))).scalars().all()
    assert living == []
