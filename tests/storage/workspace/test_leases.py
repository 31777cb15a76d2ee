import time

import pytest

from storage.errors import NotFound
from storage.workspace.leases import StaleLease
from storage.workspace.workspace import Workspace
from tests.workspaces import Page, made, open_round


def test_a_task_is_given_to_one_annotator_only(workspace: Workspace) -> None:
    open_round(workspace, images=3)
    ann, bob = workspace.leases.claim("ann", 2), workspace.leases.claim("bob", 2)
    assert [lease.task.image_id for lease in ann] == [1, 2]
    assert [lease.task.image_id for lease in bob] == [3]
    assert workspace.leases.claim("bob") == []


def test_a_task_with_an_overlap_goes_to_as_many_annotators_each_once(workspace: Workspace) -> None:
    open_round(workspace, images=1, overlap=2)
    assert len(workspace.leases.claim("ann", 2)) == 1
    assert len(workspace.leases.claim("bob", 2)) == 1
    assert workspace.leases.claim("rita") == []


def test_nobody_gets_a_task_again_that_they_skipped_but_others_do(workspace: Workspace) -> None:
    open_round(workspace, images=1)
    (lease,) = workspace.leases.claim("ann")
    workspace.leases.skip(lease.token, "too dark")
    assert workspace.leases.claim("ann") == []
    assert len(workspace.leases.claim("bob")) == 1


def test_nobody_gets_a_task_again_that_they_submitted(workspace: Workspace) -> None:
    open_round(workspace, images=1, overlap=2)
    (lease,) = workspace.leases.claim("ann")
    workspace.submissions.submit(lease.token, 0)
    assert workspace.leases.claim("ann") == []
    assert len(workspace.leases.claim("bob")) == 1


def test_a_task_that_was_handed_back_can_be_claimed_by_anybody_with_the_work_kept(workspace: Workspace) -> None:
    open_round(workspace, images=1)
    (lease,) = workspace.leases.claim("ann")
    workspace.operations.append(lease.token, [Page()("add", made("a"))])
    workspace.leases.hand_back(lease.token)
    (again,) = workspace.leases.claim("ann")
    assert again.revision == 1
    assert again.token != lease.token


def test_rounds_and_tasks_of_higher_priority_come_first(workspace: Workspace) -> None:
    open_round(workspace, images=1, first=1)
    urgent = open_round(workspace, images=1, first=2, priority=5)
    assert [lease.task.image_id for lease in workspace.leases.claim("ann", 2)] == [2, 1]
    assert workspace.leases.claim("bob", round_id=urgent.round_id) == []


def test_no_more_tasks_are_given_than_one_may_hold(place: str) -> None:
    with Workspace.open(place, max_held=2) as workspace:
        workspace.users.add("ann", "annotator")
        open_round(workspace, images=5)
        assert len(workspace.leases.claim("ann", 5)) == 2
        assert workspace.leases.claim("ann") == []
        assert [lease.task.image_id for lease in workspace.leases.held("ann")] == [1, 2]


def test_tasks_of_a_round_that_was_cancelled_keep_nobody_from_other_tasks(place: str) -> None:
    with Workspace.open(place, max_held=1) as workspace:
        workspace.users.add("ann", "annotator")
        ended = open_round(workspace, images=1, first=1)
        assert len(workspace.leases.claim("ann")) == 1
        workspace.rounds.cancel(ended.round_id)
        open_round(workspace, images=1, first=2)
        assert [lease.task.image_id for lease in workspace.leases.claim("ann")] == [2]


def test_an_expired_lease_goes_to_the_next_annotator(place: str) -> None:
    with Workspace.open(place, lease_s=0.2) as workspace:
        for name in ("ann", "bob"):
            workspace.users.add(name, "annotator")
        open_round(workspace, images=1)
        (lease,) = workspace.leases.claim("ann")
        assert workspace.leases.claim("bob") == []
        time.sleep(0.3)
        (taken,) = workspace.leases.claim("bob")
        assert taken.task == lease.task
        with pytest.raises(StaleLease, match="has ended \\(expired\\); claim the task again"):
            workspace.leases.heartbeat(lease.token)


def test_an_expired_lease_that_nobody_took_goes_on(place: str) -> None:
    with Workspace.open(place, lease_s=0.2) as workspace:
        workspace.users.add("ann", "annotator")
        open_round(workspace, images=1)
        (lease,) = workspace.leases.claim("ann")
        time.sleep(0.3)
        result = workspace.operations.append(lease.token, [Page()("add", made("a"))])
        assert result.branch == ""
        assert result.expires_at > lease.expires_at
        assert workspace.submissions.submit(lease.token, 1).masks == 1


def test_a_heartbeat_extends_a_lease(place: str) -> None:
    with Workspace.open(place) as workspace:
        workspace.users.add("ann", "annotator")
        open_round(workspace)
        (lease,) = workspace.leases.claim("ann")
        extended = workspace.leases.heartbeat(lease.token)
        assert extended.expires_at > lease.expires_at
        assert 590 < (extended.expires_at - extended.granted_at).total_seconds() < 610


def test_a_forged_token_is_refused(workspace: Workspace) -> None:
    with pytest.raises(NotFound, match="token is unknown to this workspace"):
        workspace.leases.heartbeat("forged")


def test_paused_users_and_paused_rounds_get_nothing_new_but_can_finish(workspace: Workspace) -> None:
    opened = open_round(workspace, images=2)
    (lease,) = workspace.leases.claim("ann")
    workspace.users.pause("ann")
    assert workspace.leases.claim("ann") == []
    workspace.users.pause("ann", paused=False)
    workspace.rounds.pause(opened.round_id)
    assert workspace.leases.claim("ann") == []
    workspace.submissions.submit(lease.token, 0)
    workspace.rounds.reopen(opened.round_id)
    assert len(workspace.leases.claim("ann")) == 1


def test_a_disabled_user_is_refused(workspace: Workspace) -> None:
    open_round(workspace)
    workspace.users.disable("ann")
    with pytest.raises(ValueError, match="'ann' is disabled"):
        workspace.leases.claim("ann")
    with pytest.raises(NotFound, match="no such user"):
        workspace.leases.claim("nobody")


def test_a_lead_can_release_a_lease(workspace: Workspace) -> None:
    open_round(workspace, images=1)
    (lease,) = workspace.leases.claim("ann")
    workspace.leases.release(lease.token, actor="lea")
    assert len(workspace.leases.claim("bob")) == 1
    assert workspace.leases.owner(lease.token) == "ann"
    assert [(entry.actor, entry.action) for entry in workspace.audit_log()][-1] == ("lea", "release lease")


def test_skipping_needs_a_reason(workspace: Workspace) -> None:
    open_round(workspace)
    (lease,) = workspace.leases.claim("ann")
    with pytest.raises(ValueError, match="reason for skipping: expected 1 to 500 characters"):
        workspace.leases.skip(lease.token, "  ")
