"""Requests under an id: the same by whichever way they come, and by whichever version they were stored."""

import uuid
from dataclasses import asdict, replace

import pytest

from stages.rounds.open import RoundRequest
from stages.rounds.requests import request_to_extend, request_to_open
from storage.workspace.records import ClientRequest, RoundSpec, TaskSpec
from storage.workspace.requests import RequestReused
from storage.workspace.workspace import Workspace

ASKED = RoundRequest(stage="assisted_manual", images=100, name="pilot", overlap=2)
TASKS = (TaskSpec(image_id=1, height=8, width=8),)


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param({"name": "pilot", "overlap": 2}, id="over HTTP: without defaults"),
        pytest.param(asdict(replace(ASKED, prefill="")), id="by the command of an earlier version: with all defaults"),
    ],
)
def test_a_request_that_was_stored_in_another_form_is_the_same(workspace: Workspace, stored: dict[str, object]) -> None:
    request_id = str(uuid.uuid4())
    before = ClientRequest(request_id=request_id, content=stored)
    opened, _ = workspace.rounds.open_once(RoundSpec(stage="assisted_manual", tasks=TASKS), before)
    assert workspace.rounds.opened_by(request_to_open(ASKED, request_id)) == opened
    for other in (replace(ASKED, images=5), replace(ASKED, overlap=1), replace(ASKED, stage="semi_automatic")):
        with pytest.raises(RequestReused) as refused:
            workspace.rounds.opened_by(request_to_open(other, request_id))
        assert refused.value.round_id == opened.round_id


def test_a_request_leaves_defaults_out_so_that_later_fields_do_not_change_it() -> None:
    request = request_to_open(ASKED, "id")
    assert request is not None
    assert request.content == {"name": "pilot", "overlap": 2}
    everything = request_to_open(replace(ASKED, images=None), "id")
    assert everything is not None
    assert everything.content["images"] is None
    assert request_to_open(ASKED, None) is None


def test_images_that_an_earlier_version_added_by_command_are_not_added_again(workspace: Workspace) -> None:
    opened = workspace.rounds.open(RoundSpec(stage="assisted_manual", tasks=TASKS))
    request_id = str(uuid.uuid4())
    before = ClientRequest(request_id=request_id, content={"images": 3, "query": ""})
    workspace.rounds.extend(opened.round_id, [replace(TASKS[0], image_id=2)], request=before)
    assert workspace.rounds.extended_by(opened.round_id, request_to_extend(request_id, images=3)) == 1
    with pytest.raises(RequestReused):
        workspace.rounds.extended_by(opened.round_id, request_to_extend(request_id, images=4))
