"""Rounds, reviews and people through the HTTP interface."""

import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from stages.annotator.app import make_app
from stages.annotator.sessions import Sessions
from stages.rounds.open import RoundRequest
from stages.rounds.requests import request_to_extend, request_to_open
from storage.dataset import Dataset
from tests.stages.annotator.in_process import Site, error_of
from tests.stages.annotator.routes.test_tasks import add, claim, send


def submitted(client: TestClient, *names: str) -> Any:
    """The submission of a task with masks of these names."""
    (lease,) = claim(client)
    send(client, lease["token"], *(add(name, number) for number, name in enumerate(names)))
    return client.post("/api/tasks/submit", json={"token": lease["token"], "revision": len(names)}).json()


def test_a_lead_opens_extends_pauses_and_reopens_a_round(lea: TestClient, ann: TestClient) -> None:
    opened = lea.post("/api/rounds", json={"images": 2, "name": "pilot", "guidelines": "All objects."})
    assert opened.status_code == 200
    found = opened.json()
    assert (found["tasks"], found["state"], found["created_by"]) == (2, "open", "lea")
    assert ann.get(f"/api/rounds/{found['round_id']}").json()["guidelines"] == "All objects."
    path = f"/api/rounds/{found['round_id']}"
    assert lea.post(f"{path}/extend", json={"images": 3}).json()["tasks"] == 5
    assert error_of(lea.post("/api/rounds", json={"images": 2, "model": "gone"}), 404) == "not_found"
    assert lea.post(f"{path}/pause").json()["state"] == "paused"
    assert claim(ann) == []
    assert lea.post(f"{path}/reopen").json()["state"] == "open"
    assert len(claim(ann)) == 1
    assert lea.post(f"{path}/cancel").json()["state"] == "cancelled"
    assert [each["state"] for each in ann.get("/api/rounds").json()] == ["cancelled"]


def test_a_request_whose_reply_was_lost_opens_and_extends_one_round(site: Site, lea: TestClient) -> None:
    body = {"images": 2, "name": "pilot", "request_id": str(uuid.uuid4())}
    (round_id,) = {lea.post("/api/rounds", json=body).json()["round_id"] for _ in range(3)}
    more = {"images": 1, "request_id": str(uuid.uuid4())}
    assert [lea.post(f"/api/rounds/{round_id}/extend", json=more).json()["tasks"] for _ in range(3)] == [3, 3, 3]
    assert [each.round_id for each in site.server.workspace.rounds.read_all()] == [round_id]

    # By the command it is the same request
    asked = RoundRequest(stage="assisted_manual", images=2, name="pilot")
    found = site.server.workspace.rounds.opened_by(request_to_open(asked, body["request_id"]))
    assert found is not None
    assert found.round_id == round_id
    by_command = request_to_extend(more["request_id"], images=1)
    assert site.server.workspace.rounds.extended_by(round_id, by_command) == 1

    # The same id for something else is one clear error
    for path, other in (
        ("", body | {"images": 3}),
        ("", body | {"priority": 1}),
        (f"/{round_id}/extend", more | {"images": 2}),
        (f"/{round_id}/extend", {"images": 1, "request_id": body["request_id"]}),
    ):
        refused = lea.post(f"/api/rounds{path}", json=other)
        assert error_of(refused, 409) == "request_reused"
        assert "give a new one a new id" in refused.json()["message"]
    assert error_of(lea.post("/api/rounds", json=body | {"request_id": "mine"}), 422) == "malformed"
    assert len(site.server.workspace.rounds.tasks(round_id)) == 3

    # Without an id every request counts
    assert lea.post("/api/rounds", json={"images": 1}).json()["round_id"] != round_id
    schemas = lea.get("/api/openapi.json").json()["components"]["schemas"]
    assert all("get" in schemas[name]["properties"]["request_id"]["description"] for name in ("OpenBody", "ExtendBody"))


@pytest.mark.parametrize(
    "query", ["2", "\x12", "DROP TABLE images", "SELECT nothing FROM images", "SELECT key FROM images"]
)
def test_a_wrong_query_of_images_is_wrong_content(site: Site, query: str) -> None:
    lea = site.logged_in("lea")
    round_id = site.open_round()
    opened = lea.post("/api/rounds", json={"stage": "assisted_manual", "query": query})
    extended = lea.post(f"/api/rounds/{round_id}/extend", json={"query": query, "images": 1})
    assert [error_of(each, 422) for each in (opened, extended)] == ["invalid", "invalid"]


def test_a_request_that_comes_again_before_it_was_answered_opens_one_round(site: Site, lea: TestClient) -> None:
    images = len(site.server.dataset.query("SELECT image_id FROM images"))
    first = {"images": images - 1, "request_id": str(uuid.uuid4())}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: lea.post("/api/rounds", json=first), range(4)))
        assert [each.status_code for each in answers] == [200] * 4
        (round_id,) = {each.json()["round_id"] for each in answers}
        # All images are in the round then: a second choice would find none
        last = {"images": 1, "request_id": str(uuid.uuid4())}
        answers = list(pool.map(lambda _: lea.post(f"/api/rounds/{round_id}/extend", json=last), range(4)))
    assert {each.json().get("tasks") for each in answers} == {images}
    assert len(site.server.workspace.rounds.read_all()) == 1


def test_the_figures_of_a_round_count_masks_and_people(
    site: Site, ann: TestClient, bob: TestClient, lea: TestClient
) -> None:
    round_id = site.open_round()
    submitted(ann, "a", "b")
    submitted(bob, "c")
    (lease,) = claim(bob)
    bob.post("/api/tasks/skip", json={"token": lease["token"], "reason": "blurred"})
    figures = lea.get(f"/api/rounds/{round_id}/figures").json()
    assert (figures["total"]["answers"], figures["total"]["masks_made"]) == (2, 3)
    people = [(p["annotator"], p["figures"]["answers"], p["skips"]) for p in figures["annotators"]]
    assert people == [("ann", 1, 0), ("bob", 1, 1)]
    assert figures["progress"]["done"] == 2


def test_each_question_is_asked_once_of_each_reviewer(site: Site, ann: TestClient, rita: TestClient) -> None:
    site.open_round()
    submission = submitted(ann, "a", "b")["submission_id"]
    asked = rita.get("/api/reviews/mask_good").json()
    assert [item["mask"]["mask"] for item in asked] == ["a", "b"]
    verdict = {"submission_id": submission, "question": "mask_good", "mask": "a", "answer": "no", "note": "ragged"}
    assert rita.post("/api/reviews/verdicts", json=verdict).status_code == 200
    assert [item["mask"]["mask"] for item in rita.get("/api/reviews/mask_good").json()] == ["b"]
    (whole,) = rita.get("/api/reviews/nothing_missing").json()
    assert [mask["mask"] for mask in whole["masks"]] == ["a", "b"]
    answer = {"submission_id": submission, "question": "nothing_missing", "answer": "yes"}
    assert rita.post("/api/reviews/verdicts", json=answer).status_code == 200
    assert rita.get("/api/reviews/nothing_missing").json() == []
    assert len(rita.get(f"/api/submissions/{submission}/verdicts").json()) == 2


def test_what_a_reviewer_sends_back_its_annotator_goes_on_with(site: Site, ann: TestClient, rita: TestClient) -> None:
    site.open_round(images=1)
    submission = submitted(ann, "a")["submission_id"]
    sent = rita.post(f"/api/submissions/{submission}/send-back", json={"reason": "the cup is missing"})
    assert sent.status_code == 200
    (lease,) = claim(ann)
    assert (lease["revision"], lease["reason"]) == (1, "the cup is missing")
    assert send(ann, lease["token"], add("cup", 1)).status_code == 200
    again = rita.post(f"/api/submissions/{submission}/send-back", json={"reason": "again"})
    assert error_of(again, 422) == "invalid"
    done = ann.post("/api/tasks/submit", json={"token": lease["token"], "revision": 2}).json()
    assert rita.post(f"/api/submissions/{done['submission_id']}/accept").status_code == 200


def test_a_reviewer_fixes_a_submission_and_is_asked_about_it_no_more(
    site: Site, ann: TestClient, rita: TestClient, lea: TestClient
) -> None:
    site.open_round()
    submission = submitted(ann, "a", "b")["submission_id"]
    lease = rita.post(f"/api/submissions/{submission}/fix").json()
    assert (lease["fixes"], lease["revision"], lease["is_ready"]) == (submission, 1, True)
    assert error_of(lea.post(f"/api/submissions/{submission}/fix"), 409) == "conflict"
    assert [held["fixes"] for held in rita.get("/api/tasks/held").json()] == [submission]
    state = rita.get(f"/api/tasks/{lease['task_id']}/state").json()
    assert [(mask["mask"], mask["author"]) for mask in state["masks"]] == [("a", "ann"), ("b", "ann")]
    change = add("b", 1) | {"kind": "change", "session": "fix"}
    assert send(rita, lease["token"], change).status_code == 200
    fix = rita.post("/api/tasks/submit", json={"token": lease["token"], "revision": 2}).json()
    assert (fix["state"], fix["fixes"], fix["annotator"]) == ("accepted", submission, "rita")
    for question in ("mask_good", "nothing_missing"):
        assert rita.get(f"/api/reviews/{question}").json() == lea.get(f"/api/reviews/{question}").json() == []
    masks = lea.get(f"/api/submissions/{fix['submission_id']}").json()["masks"]
    assert [(mask["mask"], mask["author"], mask["fixed_by"]) for mask in masks] == [
        ("a", "ann", ""),
        ("b", "ann", "rita"),
    ]
    refused = rita.post(f"/api/submissions/{submission}/send-back", json={"reason": "late"})
    assert error_of(refused, 422) == "invalid"
    assert error_of(rita.post("/api/submissions/999/fix"), 404) == "not_found"


def test_a_round_that_has_ended_is_not_reviewed_one_that_is_paused_is(
    site: Site, ann: TestClient, rita: TestClient, lea: TestClient
) -> None:
    round_id = site.open_round()
    submission = submitted(ann, "a")["submission_id"]

    def asked(**more: str) -> list[int]:
        queues = [rita.get(f"/api/reviews/{name}", params=more).json() for name in ("mask_good", "nothing_missing")]
        return [item["submission"]["submission_id"] for queue in queues for item in queue]

    for act, expected in (("pause", [submission] * 2), ("cancel", []), ("reopen", [submission] * 2)):
        assert lea.post(f"/api/rounds/{round_id}/{act}").status_code == 200
        assert asked() == asked(round_id=round_id) == expected
    site.server.workspace.rounds.begin_closing(round_id)
    assert asked() == asked(round_id=round_id) == []


def test_a_reviewer_is_not_asked_about_their_own_work(site: Site, rita: TestClient) -> None:
    site.open_round()
    submitted(rita, "a")
    assert rita.get("/api/reviews/mask_good").json() == []


def test_a_verdict_about_a_mask_that_is_not_there_is_refused(site: Site, ann: TestClient, rita: TestClient) -> None:
    site.open_round()
    submission = submitted(ann, "a")["submission_id"]
    verdict = {"submission_id": submission, "question": "mask_good", "mask": "z", "answer": "no"}
    assert error_of(rita.post("/api/reviews/verdicts", json=verdict), 422) == "invalid"


def test_a_paused_annotator_gets_no_new_tasks_and_the_log_says_who_did_it(
    site: Site, ann: TestClient, lea: TestClient
) -> None:
    site.open_round()
    claim(ann)
    assert lea.post("/api/users/ann/pause").status_code == 200
    assert claim(ann) == []
    assert len(lea.get("/api/users/ann/leases").json()) == 1
    assert lea.post("/api/users/ann/resume").status_code == 200
    assert len(claim(ann)) == 1
    log = lea.get("/api/audit").json()
    assert [(entry["actor"], entry["action"], entry["subject"]) for entry in log[-2:]] == [
        ("lea", "pause", "ann"),
        ("lea", "resume", "ann"),
    ]
    assert {user["name"]: user["role"] for user in lea.get("/api/users").json()}["rita"] == "reviewer"


def test_closing_a_round_takes_its_masks_into_the_dataset_once(
    tmp_path: Path, annotated: Dataset, sessions: Sessions, site: Site
) -> None:
    shutil.copytree(annotated.uri, tmp_path / "copy")  # the shared dataset is only read
    copy = Dataset.open(tmp_path / "copy")
    server = replace(site.server, dataset=copy)
    own = Site(server=server, app=make_app(server))
    round_id, ann, lea = own.open_round(), own.logged_in("ann"), own.logged_in("lea")
    assert error_of(lea.post(f"/api/rounds/{round_id}/close"), 409) == "round_unanswered"
    submitted(ann, "a", "b")
    (lease,) = claim(ann)
    send(ann, lease["token"], add("c", 0))
    refused = lea.post(f"/api/rounds/{round_id}/close", json={})
    assert error_of(refused, 409) == "round_unfinished"
    details = refused.json()["details"]
    assert (details["held"], details["drafted_masks"], details["answers"]) == (1, 1, 1)
    assert lea.get(f"/api/rounds/{round_id}").json()["state"] == "open"
    for body in ({"discard_unfinished": True}, None):
        closed = lea.post(f"/api/rounds/{round_id}/close", json=body).json()
        assert (closed["masks"], closed["images"]) == (2, 1)
    assert copy.query("SELECT count(*) AS masks FROM masks").to_pylist() == [{"masks": 2}]
    assert lea.get(f"/api/rounds/{round_id}").json()["state"] == "closed"
    assert error_of(lea.post(f"/api/rounds/{round_id}/reopen"), 422) == "invalid"
