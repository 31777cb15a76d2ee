"""Tasks, leases and operations through the HTTP interface: what is refused, and that nothing is lost."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from stages.annotator.app import make_app
from stages.rounds.close import close_round
from storage import rle
from storage.dataset import Dataset
from storage.workspace.masks import mask_to_json
from storage.workspace.records import RoundSpec, TaskSpec
from tests.stages.annotator.in_process import Site, error_of
from tests.workspaces import uuid7


def square(x0: int = 10, y0: int = 10, side: int = 20, *, size: tuple[int, int] = (64, 96)) -> dict[str, Any]:
    mask_HW = np.zeros(size, dtype=bool)
    mask_HW[y0 : y0 + side, x0 : x0 + side] = True
    return mask_to_json(rle.encode(mask_HW))


def op(kind: str, base: int, *, session: str = "page", sequence: int = 0, **payload: Any) -> dict[str, Any]:
    return {
        "op_id": uuid7(),
        "session": session,
        "sequence": sequence,
        "base_revision": base,
        "kind": kind,
        "payload": payload,
        "client_time": datetime.now(UTC).isoformat(),
    }


def add(name: str, base: int, **more: Any) -> dict[str, Any]:
    return op("add", base, mask=name, rle=square(), **more)


def claim(client: TestClient, count: int = 1) -> Any:
    answer = client.post("/api/tasks/claim", json={"count": count})
    assert answer.status_code == 200, answer.text
    return answer.json()


def send(client: TestClient, token: str, *operations: dict[str, Any]) -> Any:
    return client.post("/api/operations", json={"token": token, "operations": list(operations)})


def test_a_task_goes_from_claim_to_submission(site: Site, ann: TestClient, rita: TestClient) -> None:
    site.open_round()
    first, second = claim(ann, 2)
    assert first["image_url"] == f"/api/images/{first['image_id']}"
    assert first["model_id"].startswith("tiny-")
    assert [lease["task_id"] for lease in ann.get("/api/tasks/held").json()] == [first["task_id"], second["task_id"]]
    stored = send(ann, first["token"], add("m1", 0), op("change", 1, mask="m1", rle=square(side=30)))
    assert stored.status_code == 200
    assert stored.json()["revision"] == 2
    state = ann.get(f"/api/tasks/{first['task_id']}/state").json()
    assert [(mask["mask"], mask["rle"]["area"], mask["edits"]) for mask in state["masks"]] == [("m1", 900, 1)]
    line = ann.get(f"/api/tasks/{first['task_id']}/line").json()
    assert (line["given"], [(each["kind"], each["revision"]) for each in line["operations"]]) == (
        [],
        [("add", 1), ("change", 2)],
    )
    done = ann.post("/api/tasks/submit", json={"token": first["token"], "revision": 2})
    assert (done.status_code, done.json()["masks"]) == (200, 1)
    assert ann.post("/api/tasks/submit", json={"token": first["token"], "revision": 2}).json() == done.json()
    submission = done.json()["submission_id"]
    assert rita.get(f"/api/submissions/{submission}").json()["masks"] == state["masks"]


def test_operations_sent_twice_are_stored_once(site: Site, ann: TestClient) -> None:
    site.open_round()
    (lease,) = claim(ann)
    operations = [add("m1", 0), add("m2", 1)]
    assert send(ann, lease["token"], *operations).json()["stored"] == [each["op_id"] for each in operations]
    again = send(ann, lease["token"], *operations)
    assert again.status_code == 200
    assert (again.json()["stored"], len(again.json()["known"]), again.json()["revision"]) == ([], 2, 2)


def test_operations_out_of_order_are_refused_whole_with_where_to_go_on(site: Site, ann: TestClient) -> None:
    site.open_round()
    (lease,) = claim(ann)
    refused = send(ann, lease["token"], add("m2", 1))
    assert error_of(refused, 409) == "out_of_order"
    assert refused.json()["details"] == {"revision": 0}
    assert ann.get(f"/api/tasks/{lease['task_id']}/state").json()["revision"] == 0


def test_work_of_a_second_tab_becomes_a_branch_that_can_be_compared_and_merged(site: Site, ann: TestClient) -> None:
    site.open_round()
    (lease,) = claim(ann)
    task, token = lease["task_id"], lease["token"]
    send(ann, token, add("m1", 0, clicks=1))
    late = send(ann, token, add("other", 0, clicks=2) | {"session": "tab-2"})
    assert error_of(late, 409) == "stored_on_branch"
    branch = late.json()["details"]["branch"]
    assert ann.get(f"/api/tasks/{task}/branches").json()[0]["branch"] == branch
    both = ann.get(f"/api/branches/{branch}", params={"task_id": task}).json()
    assert [[mask["mask"] for mask in both[side]["masks"]] for side in ("branch", "main", "common")] == [
        ["other"],
        ["m1"],
        [],
    ]
    merged = ann.post(f"/api/branches/{branch}/merge", params={"task_id": task}, json={"token": token})
    assert merged.json()["revision"] == 2
    masks = ann.get(f"/api/tasks/{task}/state").json()["masks"]
    assert [mask["mask"] for mask in masks] == ["m1", "other"]
    assert ann.get(f"/api/tasks/{task}/branches").json() == []


def test_work_after_the_lease_ended_is_kept_on_a_branch(site: Site, ann: TestClient, lea: TestClient) -> None:
    site.open_round()
    (lease,) = claim(ann)
    send(ann, lease["token"], add("m1", 0))
    assert lea.post("/api/tasks/release", json={"token": lease["token"]}).status_code == 200
    late = send(ann, lease["token"], add("m2", 1))
    assert error_of(late, 409) == "stored_on_branch"
    assert "the lease has ended" in late.json()["message"]
    assert error_of(ann.post("/api/tasks/heartbeat", json={"token": lease["token"]}), 409) == "lease_ended"
    assert error_of(ann.post("/api/tasks/submit", json={"token": lease["token"], "revision": 1}), 409) == "lease_ended"
    branch = late.json()["details"]["branch"]
    both = ann.get(f"/api/branches/{branch}", params={"task_id": lease["task_id"]}).json()
    assert [mask["mask"] for mask in both["branch"]["masks"]] == ["m1", "m2"]
    (line,) = lea.get(f"/api/rounds/{lease['round_id']}/branches").json()
    assert (line["branch"]["branch"], line["branch"]["annotator"], line["image_id"]) == (
        branch,
        "ann",
        lease["image_id"],
    )
    dismissed = ann.post(f"/api/branches/{branch}/dismiss", params={"task_id": lease["task_id"]})
    assert dismissed.status_code == 200
    assert lea.get(f"/api/rounds/{lease['round_id']}/branches").json() == []
    settled = ann.post(f"/api/branches/{branch}/settle", params={"task_id": lease["task_id"]})
    assert settled.status_code == 200
    (stored,) = site.server.workspace.operations.branches(lease["task_id"], state="merged")
    assert stored.branch == branch


def test_another_persons_task_can_be_neither_read_nor_written(site: Site, ann: TestClient, bob: TestClient) -> None:
    site.open_round()
    (lease,) = claim(ann)
    token, task = lease["token"], lease["task_id"]
    send(ann, token, add("m1", 0))
    late = send(ann, token, add("x", 0) | {"session": "tab-2"})
    branch = late.json()["details"]["branch"]
    for path in ("heartbeat", "hand-back"):
        assert error_of(bob.post(f"/api/tasks/{path}", json={"token": token}), 403) == "not_yours"
    assert error_of(bob.post("/api/tasks/skip", json={"token": token, "reason": "x"}), 403) == "not_yours"
    assert error_of(bob.post("/api/tasks/submit", json={"token": token, "revision": 1}), 403) == "not_yours"
    assert error_of(send(bob, token, add("m2", 1)), 403) == "not_yours"
    assert error_of(bob.get(f"/api/tasks/{task}/state", params={"annotator": "ann"}), 403) == "not_yours"
    assert error_of(bob.get(f"/api/tasks/{task}/branches", params={"annotator": "ann"}), 403) == "not_yours"
    assert error_of(bob.get(f"/api/branches/{branch}", params={"task_id": task}), 403) == "not_yours"
    dismissed = bob.post(f"/api/branches/{branch}/dismiss", params={"task_id": task})
    assert error_of(dismissed, 403) == "not_yours"
    (other,) = claim(bob)
    merged = bob.post(f"/api/branches/{branch}/merge", params={"task_id": task}, json={"token": other["token"]})
    assert error_of(merged, 403) == "not_yours"
    assert ann.get(f"/api/tasks/{task}/state").json()["revision"] == 1


def test_forged_tokens_and_unknown_things_are_not_found(site: Site, ann: TestClient, lea: TestClient) -> None:
    site.open_round()
    (lease,) = claim(ann)
    assert error_of(send(ann, "forged", add("m1", 0)), 404) == "not_found"
    assert error_of(ann.post("/api/tasks/heartbeat", json={"token": "forged"}), 404) == "not_found"
    assert error_of(ann.get("/api/tasks/999/state"), 404) == "not_found"
    assert error_of(ann.get("/api/branches/none", params={"task_id": lease["task_id"]}), 404) == "not_found"
    assert error_of(ann.get("/api/rounds/none"), 404) == "not_found"
    assert error_of(lea.post("/api/users/none/pause"), 404) == "not_found"


@pytest.mark.parametrize("task_id", [2**63, 2**80, -1, "x"])
def test_numbers_that_no_database_holds_are_refused(ann: TestClient, task_id: object) -> None:
    assert error_of(ann.get(f"/api/tasks/{task_id}/state"), 422) == "malformed"
    answer = ann.post("/api/branches/b/merge", params={"task_id": str(task_id)}, json={"token": "t"})
    assert error_of(answer, 422) == "malformed"


def test_submitting_another_revision_than_the_stored_one_is_refused(site: Site, ann: TestClient) -> None:
    site.open_round()
    (lease,) = claim(ann)
    send(ann, lease["token"], add("m1", 0))
    refused = ann.post("/api/tasks/submit", json={"token": lease["token"], "revision": 5})
    assert error_of(refused, 409) == "stale_revision"
    assert refused.json()["details"] == {"revision": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rle": square(size=(10, 10), side=3, x0=0, y0=0)}, "the image 64 x 96"),
        ({"rle": {"size": [64, 96], "counts": "0"}}, "add up to 0, expected 64 x 96"),
        ({"rle": {"size": [64, 96], "counts": "\u00e9"}}, "expected '0' to 'o'"),
        ({"rle": {"size": [64, 96], "counts": square(side=0)["counts"]}}, "has no pixel"),
        ({"rle": {"size": [64, 96]}}, "COCO's compressed form"),
        ({"rle": {"size": [2**20, 2**20], "counts": "0"}}, "together below 2"),
        ({"rle": {"size": [64, 96], "counts": "0" * 5_000_000}}, "at most"),
        ({"rle": [1, 2]}, "COCO's compressed form"),
        ({"mask": ""}, "text of 1 to 64"),
        ({"clicks": -1}, "whole number"),
    ],
)
def test_a_mask_that_is_none_of_its_image_is_refused_and_nothing_of_its_call_is_stored(
    site: Site, ann: TestClient, change: dict[str, Any], message: str
) -> None:
    site.open_round()
    (lease,) = claim(ann)
    wrong = add("m2", 1)
    wrong["payload"] |= change
    refused = send(ann, lease["token"], add("m1", 0), wrong)
    assert error_of(refused, 422) == "invalid_operation"
    assert refused.json()["details"] == {"op_id": wrong["op_id"]}
    assert message in refused.json()["message"]
    assert len(refused.json()["message"]) < 1000
    assert ann.get(f"/api/tasks/{lease['task_id']}/state").json()["revision"] == 0


def test_a_skipped_task_is_never_offered_again_and_others_get_it(site: Site, ann: TestClient, bob: TestClient) -> None:
    site.open_round(images=1)
    (lease,) = claim(ann)
    skipped = ann.post("/api/tasks/skip", json={"token": lease["token"], "reason": "too dark"})
    assert skipped.status_code == 200
    assert claim(ann) == []
    assert claim(bob)[0]["task_id"] == lease["task_id"]


def test_a_round_whose_model_is_gone_is_given_out_and_its_clicks_say_so(site: Site, ann: TestClient) -> None:
    round_id = site.open_round()
    tasks = site.server.workspace.rounds.tasks(round_id)
    site.server.workspace.rounds.cancel(round_id)
    again = tuple(TaskSpec(image_id=task.image_id, height=task.height, width=task.width) for task in tasks)
    settings = {"model": "gone-000000000000"}
    site.server.workspace.rounds.open(RoundSpec(stage="assisted_manual", tasks=again, settings=settings))
    (lease,) = claim(ann)
    assert (lease["model_id"], lease["is_ready"]) == ("gone-000000000000", False)
    body = {"clicks": [{"x": 5, "y": 5}], "model": lease["model_id"]}
    refused = ann.post(f"/api/images/{lease['image_id']}/predict", json=body)
    assert error_of(refused, 404) == "not_found"
    assert "got model 'gone-000000000000', expected one of tiny-" in refused.json()["message"]


def test_an_annotator_holds_three_tasks_at_most(site: Site, ann: TestClient) -> None:
    site.open_round()
    assert len(claim(ann, 3)) == 3
    assert claim(ann) == []
    handed_back = ann.post("/api/tasks/hand-back", json={"token": ann.get("/api/tasks/held").json()[0]["token"]})
    assert handed_back.status_code == 200
    assert len(claim(ann)) == 1


def test_the_masks_that_the_dataset_has_of_a_task_are_read_but_not_where_people_are_measured(
    tmp_path: Path, annotated: Dataset, site: Site
) -> None:
    shutil.copytree(annotated.uri, tmp_path / "copy")  # the shared dataset is only read
    copy = Dataset.open(tmp_path / "copy")
    server = replace(site.server, dataset=copy)
    own = Site(server=server, app=make_app(server))
    ann, bob = own.logged_in("ann"), own.logged_in("bob")
    first = own.open_round(1)
    (lease,) = claim(ann)
    path = f"/api/tasks/{lease['task_id']}/committed"
    assert ann.get(path).json() == []
    send(ann, lease["token"], add("m1", 0), op("add", 1, mask="m2", rle=square(40, 20)))
    ann.post("/api/tasks/submit", json={"token": lease["token"], "revision": 2})
    assert ann.get(path).json() == []  # submitted is not committed
    close_round(copy, server.workspace, first)

    # Another round about the same image
    own.open_round(1)
    (later,) = claim(bob)
    found = bob.get(f"/api/tasks/{later['task_id']}/committed").json()
    assert sorted((each["counts"], each["area"]) for each in found) == sorted(
        (each["counts"], 400) for each in (square(), square(40, 20))
    )

    # Where known masks are compared, or images that begin empty, nobody is shown any
    for settings in ({"gold": "SELECT image_id, mask_id FROM masks"}, {"empty_fraction": 0.5}):
        task = TaskSpec(image_id=int(later["image_id"]), height=64, width=96)
        spec = RoundSpec(stage="semi_automatic", tasks=(task,), settings=settings)
        task_id = server.workspace.rounds.tasks(server.workspace.rounds.open(spec).round_id)[0].task_id
        assert error_of(bob.get(f"/api/tasks/{task_id}/committed"), 403) == "not_shown"
    assert error_of(bob.get(f"/api/tasks/{later['task_id']}/committed"), 403) == "not_shown"  # the image is there, too
    assert error_of(bob.get("/api/tasks/9999/committed"), 404) == "not_found"
