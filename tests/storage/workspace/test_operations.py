from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from storage.errors import NotFound
from storage.workspace.checking import InvalidOperation
from storage.workspace.lines import OutOfOrder
from storage.workspace.records import Lease
from storage.workspace.workspace import Workspace
from tests.workspaces import Page, made, open_round, operation, rectangle


@pytest.fixture
def lease(workspace: Workspace) -> Lease:
    open_round(workspace, images=2)
    return workspace.leases.claim("ann")[0]


def names(workspace: Workspace, lease: Lease, **line: str) -> list[str]:
    return [mask.mask for mask in workspace.operations.state(lease.task.task_id, lease.annotator, **line).masks]


def test_operations_come_back_as_they_were_sent(workspace: Workspace, lease: Lease) -> None:
    page = Page()
    sent = [page("add", made("a", clicks=2, prompts=[{"x": 1.5}])), page("note", {"text": "é\n"}), page("undo")]
    result = workspace.operations.append(lease.token, sent)
    assert (result.stored, result.revision, result.branch) == (tuple(each.op_id for each in sent), 2, "")
    stored = workspace.operations.read(lease.task.task_id, "ann")
    assert [(each.op_id, each.kind, each.payload, each.revision) for each in stored] == [
        (each.op_id, each.kind, each.payload, revision) for each, revision in zip(sent, (1, 1, 2), strict=True)
    ]
    assert abs(stored[0].client_time - sent[0].client_time) < timedelta(milliseconds=1)
    assert abs(stored[0].server_time - datetime.now(UTC)) < timedelta(minutes=1)


def test_sending_again_changes_nothing(workspace: Workspace, lease: Lease) -> None:
    page = Page()
    first, second = page("add", made("a")), page("add", made("b"))
    workspace.operations.append(lease.token, [first])
    again = workspace.operations.append(lease.token, [first, second])
    assert (again.stored, again.known, again.revision) == ((second.op_id,), (first.op_id,), 2)
    assert workspace.operations.append(lease.token, [first, second]).stored == ()
    assert names(workspace, lease) == ["a", "b"]


def test_an_op_id_with_other_content_is_refused(workspace: Workspace, lease: Lease) -> None:
    first = operation("add", made("a"))
    workspace.operations.append(lease.token, [first])
    with pytest.raises(InvalidOperation, match="stored with other content; make a new UUID"):
        workspace.operations.append(lease.token, [replace(first, payload=made("b"))])


def test_another_annotators_op_id_is_refused(workspace: Workspace, lease: Lease) -> None:
    first = operation("add", made("a"))
    workspace.operations.append(lease.token, [first])
    (other,) = workspace.leases.claim("bob")
    with pytest.raises(InvalidOperation, match="stored with other content"):
        workspace.operations.append(other.token, [first])


def test_a_stale_revision_becomes_a_branch_and_can_be_merged(workspace: Workspace, lease: Lease) -> None:
    one, two = Page(session="one"), Page(session="two")
    workspace.operations.append(lease.token, [one("add", made("a")), one("add", made("b"))])
    late = workspace.operations.append(lease.token, [two("add", made("c"))])
    assert late.branch
    assert late.reason == "the main line has moved on"
    later = workspace.operations.append(lease.token, [two("add", made("d"))])
    assert later.branch == late.branch
    assert names(workspace, lease) == ["a", "b"]
    assert names(workspace, lease, branch=late.branch) == ["c", "d"]

    assert [each.branch for each in workspace.operations.branches(lease.task.task_id)] == [late.branch]
    merged = workspace.operations.merge(late.branch, lease.token, actor="ann")
    assert merged.revision == 4
    assert names(workspace, lease) == ["a", "b", "c", "d"]
    workspace.operations.merge(late.branch, lease.token, actor="ann")
    assert names(workspace, lease) == ["a", "b", "c", "d"]
    assert workspace.operations.branches(lease.task.task_id) == []


def test_a_stale_token_becomes_a_branch_that_the_next_annotator_can_merge(workspace: Workspace, lease: Lease) -> None:
    page = Page()
    workspace.operations.append(lease.token, [page("add", made("a"))])
    workspace.leases.release(lease.token, actor="lea")
    late = workspace.operations.append(lease.token, [page("add", made("b"))])
    assert (late.reason, late.revision, late.expires_at) == ("the lease has ended", 1, None)
    assert names(workspace, lease, branch=late.branch) == ["a", "b"]

    (other,) = workspace.leases.claim("bob")
    assert other.task == lease.task
    workspace.operations.append(other.token, [Page()("add", made("own"))])
    workspace.operations.merge(late.branch, other.token, actor="lea")
    assert names(workspace, other) == ["own", "b"]


def test_a_session_stays_on_its_branch_and_a_new_session_joins_the_main_line(
    workspace: Workspace, lease: Lease
) -> None:
    one, two = Page(session="one"), Page(session="two")
    workspace.operations.append(lease.token, [one("add", made("a"))])
    branch = workspace.operations.append(lease.token, [two("add", made("b"))]).branch
    assert workspace.operations.append(lease.token, [two("add", made("c"))]).branch == branch
    assert workspace.operations.append(lease.token, [Page(base=1, session="three")("add", made("d"))]).branch == ""
    assert names(workspace, lease) == ["a", "d"]


def test_operations_whose_predecessors_are_missing_are_asked_for(workspace: Workspace, lease: Lease) -> None:
    page = Page()
    first, second = page("add", made("a")), page("add", made("b"))
    with pytest.raises(OutOfOrder, match="only 0 have arrived") as caught:
        workspace.operations.append(lease.token, [second])
    assert caught.value.revision == 0
    workspace.operations.append(lease.token, [first, second])
    assert names(workspace, lease) == ["a", "b"]


def test_late_operations_whose_predecessors_are_missing_are_asked_for(workspace: Workspace, lease: Lease) -> None:
    page = Page()
    first, second, third = (page("add", made(name)) for name in "abc")
    workspace.operations.append(lease.token, [first])
    workspace.leases.release(lease.token, actor="lea")
    (again,) = workspace.leases.claim("ann")
    newer = Page(base=again.revision, session="newer")
    workspace.operations.append(again.token, [newer("add", made("d")), newer("add", made("e"))])
    with pytest.raises(OutOfOrder, match="only 1 have arrived"):
        workspace.operations.append(lease.token, [third])
    late = workspace.operations.append(lease.token, [second])
    assert workspace.operations.append(lease.token, [third]).branch == late.branch
    assert names(workspace, lease, branch=late.branch) == ["a", "b", "c"]
    assert names(workspace, lease) == ["a", "d", "e"]


def test_activity_never_conflicts(workspace: Workspace, lease: Lease) -> None:
    workspace.operations.append(lease.token, [operation("add", made("a"))])
    activity = operation("activity", {"inputs": [[1.0, "a"], [2.0, None]], "hidden": [[3.0, 4.0]]}, base=0)
    assert workspace.operations.append(lease.token, [activity]).branch == ""
    workspace.submissions.submit(lease.token, 1)
    late = operation("activity", {"inputs": [[5.0, "a"]]})
    assert workspace.operations.append(lease.token, [late]).branch == ""


def test_work_after_submitting_becomes_a_branch(workspace: Workspace, lease: Lease) -> None:
    page = Page()
    workspace.operations.append(lease.token, [page("add", made("a"))])
    workspace.submissions.submit(lease.token, 1)
    assert workspace.operations.append(lease.token, [page("add", made("b"))]).branch
    assert names(workspace, lease) == ["a"]


def test_a_malformed_operation_is_refused_with_its_call(workspace: Workspace, lease: Lease) -> None:
    good, bad = operation("add", made("good")), operation("add", {"mask": "a"}, base=1)
    with pytest.raises(InvalidOperation, match="'rle' is missing") as caught:
        workspace.operations.append(lease.token, [good, bad])
    assert caught.value.op_id == bad.op_id
    assert workspace.operations.read(lease.task.task_id, "ann") == []


def test_malformed_envelopes_are_refused(workspace: Workspace, lease: Lease) -> None:
    good = operation("add", made("a"))
    for changed, problem in (
        ({"op_id": "1"}, "badly formed"),
        ({"op_id": "c232ab00-9414-11ec-b3c8-9f6bdeced846"}, "version 7"),
        ({"session": ""}, "session"),
        ({"sequence": -1}, "sequence -1"),
        ({"base_revision": 2.5}, "base_revision 2.5"),
        ({"kind": "paint"}, "kind 'paint'"),
        ({"client_time": datetime(2026, 1, 1)}, "with its time zone"),
        ({"payload": []}, "payload is a list"),
    ):
        with pytest.raises(InvalidOperation, match=problem):
            workspace.operations.append(lease.token, [replace(good, **changed)])
    with pytest.raises(ValueError, match="same op_id"):
        workspace.operations.append(lease.token, [good, good])
    with pytest.raises(NotFound, match="token is unknown"):
        workspace.operations.append("forged", [good])


def test_clocks_hours_apart_do_no_harm(workspace: Workspace, lease: Lease) -> None:
    page = Page()
    for number, hours in enumerate((48, -48, 0)):
        each = replace(page("add", made(f"m{number}")), client_time=datetime.now(UTC) + timedelta(hours=hours))
        workspace.operations.append(lease.token, [each])
    assert names(workspace, lease) == ["m0", "m1", "m2"]


def test_a_branch_that_is_not_wanted_is_dismissed_and_stays_stored(workspace: Workspace, lease: Lease) -> None:
    workspace.operations.append(lease.token, [operation("add", made("a"))])
    branch = workspace.operations.append(lease.token, [operation("add", made("b"), session="two")]).branch
    workspace.operations.dismiss(branch, actor="lea")
    assert workspace.operations.branches(lease.task.task_id) == []
    assert [each.state for each in workspace.operations.branches(lease.task.task_id, state=None)] == ["dismissed"]
    assert names(workspace, lease, branch=branch) == ["b"]
    with pytest.raises(NotFound, match="no such branch"):
        workspace.operations.dismiss("branch-x", actor="lea")


def test_masks_of_other_annotators_are_not_seen(workspace: Workspace) -> None:
    open_round(workspace, images=1, overlap=2, first=50)
    ann, bob = workspace.leases.claim("ann")[0], workspace.leases.claim("bob")[0]
    workspace.operations.append(ann.token, [operation("add", made("a", rectangle(1)))])
    assert names(workspace, ann) == ["a"]
    assert names(workspace, bob) == []
