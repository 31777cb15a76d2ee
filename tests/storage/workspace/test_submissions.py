import random

import pytest
from sqlalchemy import select

from storage.errors import NotFound
from storage.workspace.fold import fold
from storage.workspace.leases import StaleLease
from storage.workspace.records import PASSIVE, Lease
from storage.workspace.schema import ASSIGNMENTS, BRANCHES, OPERATIONS, SUBMISSIONS
from storage.workspace.submissions import StaleRevision
from storage.workspace.workspace import Workspace
from tests.workspaces import Page, made, open_round, operation


@pytest.fixture
def lease(workspace: Workspace) -> Lease:
    open_round(workspace, images=2)
    return workspace.leases.claim("ann")[0]


def test_submitting_twice_gives_the_same_submission(workspace: Workspace, lease: Lease) -> None:
    workspace.operations.append(lease.token, [operation("add", made("a"))])
    first = workspace.submissions.submit(lease.token, 1)
    assert workspace.submissions.submit(lease.token, 1) == first
    assert workspace.submissions.read(task_id=lease.task.task_id) == [first]
    assert (first.masks, first.revision, first.state) == (1, 1, "submitted")


def test_only_the_newest_revision_can_be_submitted(workspace: Workspace, lease: Lease) -> None:
    workspace.operations.append(lease.token, [operation("add", made("a"))])
    for revision in (0, 2):
        with pytest.raises(StaleRevision, match="the line is at 1") as caught:
            workspace.submissions.submit(lease.token, revision)
        assert caught.value.revision == 1


def test_a_lease_that_has_ended_cannot_submit(workspace: Workspace, lease: Lease) -> None:
    workspace.leases.hand_back(lease.token)
    with pytest.raises(StaleLease, match="handed_back"):
        workspace.submissions.submit(lease.token, 0)


def test_a_task_sent_back_goes_to_its_annotator_who_continues(workspace: Workspace, lease: Lease) -> None:
    workspace.operations.append(lease.token, [operation("add", made("a"))])
    submission = workspace.submissions.submit(lease.token, 1)
    workspace.submissions.send_back(submission.submission_id, "the tail is missing", actor="rita")
    assert [each.task.image_id for each in workspace.leases.claim("bob", 2)] == [2]
    (again,) = workspace.leases.claim("ann")
    assert (again.task, again.revision) == (lease.task, 1)
    workspace.operations.append(again.token, [Page(base=1, session="new")("add", made("tail"))])
    assert workspace.submissions.submit(again.token, 2).masks == 2
    assert [each.state for each in workspace.submissions.read(task_id=lease.task.task_id)] == ["sent_back", "submitted"]
    with pytest.raises(ValueError, match="is sent_back; expected submitted or accepted"):
        workspace.submissions.send_back(submission.submission_id, "again", actor="rita")


def test_withdrawing_frees_the_tasks_for_others(workspace: Workspace, lease: Lease) -> None:
    workspace.submissions.submit(lease.token, 0)
    (taken,) = workspace.submissions.withdraw(lease.task.round_id, "ann", actor="lea")
    assert taken.task_id == lease.task.task_id
    assert [each.state for each in workspace.submissions.read()] == ["withdrawn"]
    assert len(workspace.leases.claim("bob", 2)) == 2
    assert workspace.submissions.withdraw(lease.task.round_id, "ann", actor="lea") == []


def test_withdrawing_from_a_cancelled_round_holds_when_it_is_reopened_and_keeps_its_reason(
    workspace: Workspace, lease: Lease
) -> None:
    round_id = lease.task.round_id
    workspace.submissions.submit(lease.token, 0)
    workspace.rounds.cancel(round_id)
    assert len(workspace.submissions.withdraw(round_id, "ann", actor="lea", reason="left the team")) == 1
    workspace.rounds.reopen(round_id)
    assert [each.state for each in workspace.submissions.read()] == ["withdrawn"]
    assert len(workspace.leases.claim("bob", 2)) == 2
    (noted,) = [each for each in workspace.audit_log() if each.action == "withdraw submissions"]
    assert noted.details["reason"] == "left the team"


def test_verdicts_are_about_masks_and_images_of_a_submission(workspace: Workspace, lease: Lease) -> None:
    workspace.operations.append(lease.token, [operation("add", made("a"))])
    submission = workspace.submissions.submit(lease.token, 1).submission_id
    add = workspace.submissions.add_verdict
    good = add(submission, reviewer="rita", question="mask_good", answer="no", mask="a", note="leaks")
    whole = add(submission, reviewer="rita", question="nothing_missing", answer="yes")
    assert workspace.submissions.verdicts(round_id=lease.task.round_id) == [good, whole]
    for arguments, problem in (
        ({"question": "mask_good", "answer": "yes", "mask": "b"}, "has no mask 'b'"),
        ({"question": "mask_good", "answer": "yes"}, "names a mask"),
        ({"question": "nothing_missing", "answer": "yes", "mask": "a"}, "whole image"),
        ({"question": "pretty", "answer": "yes"}, "expected mask_good"),
        ({"question": "nothing_missing", "answer": "maybe"}, "expected mask_good"),
    ):
        with pytest.raises(ValueError, match=problem):
            add(submission, reviewer="rita", **arguments)
    with pytest.raises(NotFound, match="no such submission"):
        add(999, reviewer="rita", question="nothing_missing", answer="yes")


def test_what_a_reviewer_sends_again_changes_nothing(workspace: Workspace, lease: Lease) -> None:
    number = workspace.submissions.submit(lease.token, 0).submission_id

    def answer(word: str, note: str = "", reviewer: str = "rita") -> int:
        about = {"reviewer": reviewer, "question": "nothing_missing", "answer": word, "note": note}
        return workspace.submissions.add_verdict(number, **about).verdict_id

    first = answer("no")
    assert answer("no") == first
    changed = [answer("no", "a cup"), answer("yes"), answer("no"), answer("no", reviewer="lea")]
    assert len({first, *changed}) == 5
    assert answer("no") == changed[2]
    assert len(workspace.submissions.verdicts(submission_id=number)) == 5
    for _ in range(2):
        workspace.submissions.accept(number, actor="rita")
    assert [entry.action for entry in workspace.audit_log()].count("accept submission") == 1


def test_everything_derived_can_be_computed_again_from_the_operations(workspace: Workspace) -> None:
    random_numbers = random.Random(7)
    open_round(workspace, images=4, prefill=2, overlap=2)
    for name in ("ann", "bob"):
        for lease in workspace.leases.claim(name, 3):
            act_at_random(workspace, lease, random_numbers)

    with workspace.database.read() as connection:
        rows = connection.execute(select(OPERATIONS).order_by(OPERATIONS.c.number)).mappings().all()
        active = [row for row in rows if row["kind"] not in PASSIVE]
        for line in connection.execute(select(ASSIGNMENTS)).mappings():
            mine = [row for row in active if (row["task_id"], row["annotator"]) == (line["task_id"], line["annotator"])]
            assert line["revision"] == sum(not row["branch"] for row in mine)
        branches = connection.execute(select(BRANCHES)).mappings().all()
        assert branches
        for branch in branches:
            late = [row for row in active if row["branch"] == branch["branch"]]
            assert branch["revision"] == branch["fork_revision"] + len(late)
            assert {row["session"] for row in late} == {branch["session"]}
        submissions = connection.execute(select(SUBMISSIONS)).mappings().all()
    assert submissions
    for submission in submissions:
        main = workspace.operations.read(submission["task_id"], submission["annotator"])
        again = fold(workspace.rounds.prefill(submission["task_id"]), main)
        assert (submission["revision"], submission["masks"]) == (again.revision, len(again.masks))


def act_at_random(workspace: Workspace, lease: Lease, random_numbers: random.Random) -> None:
    pages = [Page(session=f"{lease.token[:8]}-{number}") for number in range(2)]
    for number in range(12):
        page = random_numbers.choice(pages)
        name = random_numbers.choice(["p0", "p1", "a", "b"])
        kind = random_numbers.choice(["add", "change", "remove", "accept", "reject", "undo", "redo", "note"])
        payload = {"note": {"text": str(number)}, "undo": {}, "redo": {}}.get(kind, made(name))
        workspace.operations.append(lease.token, [page(kind, payload)])
    if random_numbers.random() < 0.7:
        state = workspace.operations.state(lease.task.task_id, lease.annotator)
        workspace.submissions.submit(lease.token, state.revision)
