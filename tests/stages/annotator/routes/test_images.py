"""Images, embeddings and masks through the HTTP interface."""

import hashlib
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from engine import images
from stages.annotator.access import Access, AccessConfig
from stages.annotator.app import make_app
from stages.annotator.server import Server
from tests.stages.annotator.in_process import Site, error_of
from tests.stages.annotator.routes.test_tasks import square

CLICK = {"x": 40.5, "y": 30.5}


@pytest.fixture
def path(image_ids: list[int]) -> str:
    return f"/api/images/{image_ids[0]}"


def test_an_image_is_served_as_stored_and_kept_for_ever(ann: TestClient, path: str) -> None:
    answer = ann.get(path)
    facts = ann.get(f"{path}/facts").json()
    assert answer.headers["content-type"] in ("image/png", "image/jpeg")
    assert hashlib.sha256(answer.content).hexdigest() == facts["sha256"]
    assert images.decode(answer.content).shape == (facts["height"], facts["width"], 3) == (64, 96, 3)
    assert "immutable" in answer.headers["cache-control"]
    assert "private" in answer.headers["cache-control"]
    again = ann.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_an_embedding_carries_the_hashes_that_it_belongs_to(
    site: Site, ann: TestClient, path: str, image_ids: list[int]
) -> None:
    facts = ann.get(f"{path}/facts").json()
    answer = ann.get(f"{path}/embedding", params={"window": 0})
    assert answer.headers["x-image-sha256"] == facts["sha256"]
    assert answer.headers["x-model-id"] == facts["model_id"]
    shape = [int(n) for n in answer.headers["x-shape"].split(",")]
    assert shape == facts["embedding_shape"]
    encoded = site.server.sessions.open(image_ids[0])
    expected = encoded.views.embed(encoded.views.windows[0].xyxy)[0].numpy()
    assert np.array_equal(np.frombuffer(answer.content, "<f2").reshape(shape).astype(np.float32), expected)
    missing = ann.get(f"{path}/embedding", params={"window": len(facts["windows"])})
    assert error_of(missing, 404) == "not_found"


def test_clicks_become_masks_and_the_next_click_continues_them(ann: TestClient, path: str) -> None:
    first = ann.post(f"{path}/predict", json={"clicks": [CLICK]}).json()
    assert len(first["candidates"]) == 3
    assert all(each["rle"]["size"] == [64, 96] for each in first["candidates"])
    body = {
        "clicks": [CLICK, {"x": 5, "y": 5, "positive": False}],
        "continued": {"prediction_id": first["prediction_id"], "candidate": 1},
    }
    second = ann.post(f"{path}/predict", json=body).json()
    assert (second["basis"], len(second["candidates"])) == ("logits", 1)
    assert second["image_sha256"] == ann.get(f"{path}/facts").json()["sha256"]
    gone = {**body, "continued": {"prediction_id": "gone", "candidate": 0}}
    assert error_of(ann.post(f"{path}/predict", json=gone), 404) == "not_found"
    with_mask = ann.post(f"{path}/predict", json={**gone, "mask": square()}).json()
    assert with_mask["basis"] == "mask"


def test_any_mask_is_refined_and_the_first_answer_changes_it_around_the_click_alone(ann: TestClient, path: str) -> None:
    answer = ann.post(f"{path}/refine", json={"mask": square(), "clicks": [CLICK]}).json()
    assert answer["basis"] == "mask"
    assert len(answer["candidates"]) == 2
    assert answer["candidates"][0]["rle"]["area"] >= 400


@pytest.mark.parametrize(
    ("route", "body", "message"),
    [
        ("predict", {"clicks": [{"x": 97, "y": 1}]}, "inside the 96x64 image"),
        ("predict", {}, "without clicks and without a box"),
        ("predict", {"box": [10, 10, 5, 20]}, "x0 < x1"),
        ("predict", {"clicks": [CLICK], "model": "gone"}, "got model 'gone'"),
        ("refine", {"mask": square(size=(10, 10), x0=0, y0=0, side=3), "clicks": [CLICK]}, "the image 64 x 96"),
        ("refine", {"mask": {"size": [64, 96], "counts": "!"}, "clicks": [CLICK]}, "expected '0' to 'o'"),
        ("wand", {"x": -1, "y": 0}, "inside the 96x64 image"),
        ("masks/polygon", {"rings": [[[0, 0], [97, 0], [0, 10]]]}, "clip it to the image"),
        ("masks/polygon", {"rings": [[[0, 0], [0, 0], [0, 0]]]}, "has no pixel"),
        ("masks/subtract", {"mask": square(), "other": square()}, "has no pixel"),
        ("masks/check", {"mask": {"size": [64, 96], "counts": "PPYo1"}}, "add up to"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(
    ann: TestClient, path: str, route: str, body: dict[str, Any], message: str
) -> None:
    answer = ann.post(f"{path}/{route}", json=body)
    assert answer.status_code in (404, 422), answer.text
    assert message in answer.json()["message"]


def test_masks_are_merged_split_and_cleaned(ann: TestClient, path: str) -> None:
    apart = [square(), square(x0=60, side=5)]
    merged = ann.post(f"{path}/masks/merge", json={"masks": apart}).json()
    assert merged["area"] == 425
    mask = {name: merged[name] for name in ("size", "counts")}
    parts = ann.post(f"{path}/masks/split", json={"mask": mask}).json()
    assert [part["area"] for part in parts] == [400, 25]
    cleaned = ann.post(f"{path}/masks/remove-islands", json={"mask": mask, "max_px": 25}).json()
    assert cleaned["counts"] == apart[0]["counts"]
    ring = [[10, 10], [30, 10], [30, 30], [10, 30]]
    hole = [[15, 15], [18, 15], [18, 18], [15, 18]]
    donut = ann.post(f"{path}/masks/polygon", json={"rings": [ring, hole]}).json()
    assert donut["area"] == 391
    holed = {name: donut[name] for name in ("size", "counts")}
    filled = ann.post(f"{path}/masks/fill-holes", json={"mask": holed, "max_px": 9}).json()
    assert filled["counts"] == apart[0]["counts"]
    assert ann.post(f"{path}/wand", json={"x": 5, "y": 5}).json()["area"] > 0
    assert ann.post(f"{path}/masks/check", json={"mask": mask}).json()["bbox"] == [10.0, 10.0, 55.0, 20.0]


@pytest.mark.parametrize("image_id", ["1", "9223372036854775807"])
def test_an_unknown_image_is_not_found(ann: TestClient, image_id: str) -> None:
    assert error_of(ann.get(f"/api/images/{image_id}"), 404) == "not_found"


@pytest.mark.parametrize("image_id", ["9223372036854775808", "x", "-1", "1.5", "1' OR 1"])
def test_what_is_no_id_is_refused(ann: TestClient, image_id: str) -> None:
    answer = ann.get(f"/api/images/{image_id}")
    assert error_of(answer, 422) == "malformed"
    assert "Value error" not in answer.text


def test_predictions_are_limited_for_each_account(site: Site, path: str) -> None:
    access = Access(workspace=site.server.workspace, config=AccessConfig(mode="team", predictions_per_s=2))
    parts = {name: getattr(site.server, name) for name in ("dataset", "workspace", "sessions")}
    limited = Site(server=Server(access=access, **parts), app=make_app(Server(access=access, **parts)))
    ann, bob = limited.logged_in("ann"), limited.logged_in("bob")
    answers = [ann.post(f"{path}/predict", json={"box": [0, 0, 20, 20]}) for _ in range(6)]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert bob.post(f"{path}/predict", json={"box": [0, 0, 20, 20]}).status_code == 200
