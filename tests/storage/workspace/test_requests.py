"""Requests that come again: one round, one extension, and one clear error for an id that is used for something else."""

import pytest

from storage.errors import Conflict, NotFound
from storage.workspace.database import connect
from storage.workspace.migrate import migrate_to, schema_of
from storage.workspace.records import ClientRequest, RoundSpec, RoundState, TaskSpec
from storage.workspace.requests import RequestReused
from storage.workspace.rounds import Rounds
from storage.workspace.workspace import Workspace
from tests.workspaces import HEIGHT, WIDTH, open_round, uuid7


def images(*numbers: int) -> tuple[TaskSpec, ...]:
    return tuple(TaskSpec(image_id=number, height=HEIGHT, width=WIDTH) for number in numbers)


def asked(**content: object) -> ClientRequest:
    return ClientRequest(request_id=uuid7(), content=content)


SPEC = RoundSpec(stage="assisted_manual", tasks=images(1, 2))


def test_a_request_that_comes_again_gets_the_round_it_opened_whatever_became_of_it(workspace: Workspace) -> None:
    request = asked(images=2, overlap_fraction=0.5)
    assert workspace.rounds.opened_by(request) is None
    first, is_new = workspace.rounds.open_once(SPEC, request)
    assert is_new
    assert workspace.rounds.open_once(SPEC, request) == (first, False)
    assert workspace.rounds.opened_by(request) == first
    workspace.rounds.cancel(first.round_id)
    again, is_new = workspace.rounds.open_once(SPEC, request)
    assert (again.round_id, again.state, is_new) == (first.round_id, RoundState.CANCELLED, False)
    assert len(workspace.rounds.read_all()) == 1
    assert [entry.action for entry in workspace.audit_log(newest=2)] == ["open round", "cancel round"]


def test_a_request_that_comes_again_extends_a_round_once(workspace: Workspace) -> None:
    opened = open_round(workspace, images=2)
    request = asked(images=2)
    for _ in range(2):
        assert workspace.rounds.extend(opened.round_id, images(2, 3), request=request) == 1
    # Images chosen anew, as those of a random order are, change nothing
    assert workspace.rounds.extend(opened.round_id, images(4, 5), request=request) == 1
    assert workspace.rounds.extended_by(opened.round_id, request) == 1
    assert [task.image_id for task in workspace.rounds.tasks(opened.round_id)] == [1, 2, 3]
    workspace.rounds.begin_closing(opened.round_id)
    assert workspace.rounds.extend(opened.round_id, images(4), request=request) == 1
    with pytest.raises(ValueError, match="is closing; expected"):
        workspace.rounds.extend(opened.round_id, images(4), request=asked(images=1))


def test_a_request_that_failed_is_not_remembered(workspace: Workspace) -> None:
    request = asked(images=0)
    with pytest.raises(ValueError, match="no images"):
        workspace.rounds.open_once(RoundSpec(stage="assisted_manual", tasks=()), request)
    with pytest.raises(NotFound, match="no such round"):
        workspace.rounds.extend("round-x", images(1), request=request)
    assert workspace.rounds.open_once(SPEC, request)[1]


def test_an_id_that_another_request_has_is_refused_in_one_clear_error(workspace: Workspace) -> None:
    request = asked(images=2, seed=1)
    first, _ = workspace.rounds.open_once(SPEC, request)
    other = ClientRequest(request_id=request.request_id, content={"images": 3, "seed": 1, "name": "b"})
    with pytest.raises(
        RequestReused, match=rf"was sent before, to open round {first.round_id}, and now with .*\(images, name\)"
    ):
        workspace.rounds.open_once(SPEC, other)
    with pytest.raises(RequestReused, match=rf"\(extend round {first.round_id}\); repeat a request as it was"):
        workspace.rounds.extend(first.round_id, images(3), request=request)
    extension, second = asked(images=1), open_round(workspace, first=10)
    workspace.rounds.extend(first.round_id, images(3), request=extension)
    with pytest.raises(Conflict, match=f"extend round {second.round_id}"):
        workspace.rounds.extend(second.round_id, images(20), request=extension)
    assert len(workspace.rounds.tasks(second.round_id)) == 3
    assert len(workspace.rounds.read_all()) == 2


def test_a_workspace_of_before_keeps_its_rounds_and_takes_requests(place: str) -> None:
    database = connect(place)
    with database.write() as connection:
        migrate_to(connection, "0002")
    before = Rounds(database).open(SPEC)
    database.close()
    with Workspace.open(place) as workspace:
        with workspace.database.read() as connection:
            assert schema_of(connection) == "0004"
        assert workspace.rounds.read_all() == [before]
        request = asked(images=1)
        assert workspace.rounds.extend(before.round_id, images(3), request=request) == 1
        assert workspace.rounds.extend(before.round_id, images(4), request=request) == 1
        assert len(workspace.rounds.tasks(before.round_id)) == 3
