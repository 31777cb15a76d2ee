"""The demo's limits and answers, over a whole application in this process."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import gigamask
from stages.annotator.config import SessionsConfig
from stages.annotator.demo.app import make_demo_app
from stages.annotator.demo.config import DemoConfig, check_config
from stages.annotator.demo.serve import open_demo
from stages.annotator.demo.visitors import Arrival, Demo, _address
from storage import rle
from tests.stages.annotator.in_process import error_of


@pytest.fixture
def photo(pictures: SimpleNamespace) -> bytes:
    data: bytes = pictures.encode(pictures.draw(3, height=64, width=96), "PNG")
    return data


@pytest.fixture
def demo(tiny_model: Path) -> Iterator[Demo]:
    config = DemoConfig(max_file_bytes=60_000, max_pixels=20_000, max_photos=2, photos_per_minute=6)
    with open_demo(str(tiny_model), None, config) as opened:
        yield opened


def visitor(demo: Demo, address: str = "198.51.100.7", host: str = "127.0.0.1") -> TestClient:
    app = make_demo_app(demo)
    return TestClient(app, base_url=f"http://{host}", client=(address, 1), raise_server_exceptions=False)


def send(client: TestClient, photo: bytes) -> dict[str, Any]:
    answer = client.post("/api/photos", content=photo)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_photo_is_clicked_on_and_everything_is_found_as_the_python_api_finds_it(
    demo: Demo, photo: bytes, tiny_model: Path, tmp_path: Path
) -> None:
    client = visitor(demo)
    assert client.get("/api/demo").json() == {"photo": None, "max_file_bytes": 60_000, "max_pixels": 20_000}
    sent = send(client, photo)
    assert (sent["width"], sent["height"]) == (96, 64)
    path = f"/api/images/{sent['image_id']}"
    clicked = client.post(f"{path}/predict", json={"clicks": [{"x": 40, "y": 30}]}).json()
    assert 1 <= len(clicked["candidates"]) <= 3
    found = client.post(f"{path}/everything").json()
    (tmp_path / "photo.png").write_bytes(photo)
    image_HW3 = gigamask.read_photo(tmp_path / "photo.png")
    expected = gigamask.generate_masks(gigamask.load_model(str(tiny_model)), image_HW3).masks
    assert len(found) == len(expected) > 0
    for mask, candidate in zip(expected, found, strict=True):
        counts = rle.from_coco(candidate["rle"]["counts"], height=64, width=96)
        assert np.array_equal(rle.decode(counts), rle.decode(mask.rle))


def test_what_is_no_photo_or_too_large_is_refused_in_a_sentence(demo: Demo, pictures: SimpleNamespace) -> None:
    client = visitor(demo)
    for content, status, code, part in [
        (b"", 422, "empty", "no bytes"),
        (b"#!/bin/sh\n" * 9, 422, "not_an_image", "no known image format"),
        (pictures.encode(pictures.draw(1, height=200, width=200), "PNG"), 413, "too_large", "20000 pixels"),
        (bytes(60_001), 413, "too_large", "60000 bytes"),
    ]:
        answer = client.post("/api/photos", content=content)
        assert error_of(answer, status) == code
        assert part in answer.json()["message"]


def test_a_burst_from_one_address_is_refused_and_another_address_is_served(demo: Demo, photo: bytes) -> None:
    greedy, patient = visitor(demo), visitor(demo, "198.51.100.8")
    answers = [greedy.post("/api/photos", content=photo) for _ in range(7)]
    assert [each.status_code for each in answers] == [200] * 6 + [429]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    image_id = send(patient, photo)["image_id"]
    for path, body in (("predict", {"clicks": [{"x": 5, "y": 5}]}), ("everything", None), ("facts", None)):
        ask = greedy.get if path == "facts" else greedy.post
        codes = [
            ask(f"/api/images/{image_id}/{path}", **({"json": body} if body else {})).status_code for _ in range(110)
        ]
        assert codes[0] == 200 or codes[0] == 429
        assert 429 in codes
        assert set(codes) <= {200, 429, 503}
    assert patient.get(f"/api/images/{image_id}/facts").status_code == 200


def test_only_the_last_photos_stay_in_memory_and_the_first_one_always(
    tiny_model: Path, demo: Demo, photo: bytes
) -> None:
    client = visitor(demo)
    ids = [send(client, photo)["image_id"] for _ in range(3)]
    assert len(set(ids)) == 3  # the same file, but nobody sees what another one sent
    forgotten = client.get(f"/api/images/{ids[0]}")
    assert error_of(forgotten, 404) == "not_found"
    assert "send the photo again" in forgotten.json()["message"]
    assert client.get(f"/api/images/{ids[2]}").content == photo

    with open_demo(str(tiny_model), photo, DemoConfig(max_photos=1)) as shown:
        client = visitor(shown)
        first = client.get("/api/demo").json()["photo"]["image_id"]
        for _ in range(2):
            send(client, photo)
        assert client.get(f"/api/images/{first}").content == photo


def test_photos_are_taken_while_others_wait_to_be_encoded(photo: bytes) -> None:
    config = DemoConfig(sessions=SessionsConfig(max_preparing=1))
    with open_demo("seed", None, config) as opened:  # it encodes 21 windows of a photo, slower than photos come
        client = visitor(opened)
        ids = {send(client, photo)["image_id"] for _ in range(6)}
        assert opened.sessions.preparing == 1
        clicked = client.post(f"/api/images/{min(ids)}/predict", json={"clicks": [{"x": 40, "y": 30}]})
        assert clicked.status_code == 200


def test_embeddings_stay_in_memory_up_to_their_limit(demo: Demo, photo: bytes) -> None:
    client = visitor(demo)
    image_id = send(client, photo)["image_id"]
    assert client.get(f"/api/images/{image_id}/embedding").status_code == 200
    cache = demo.sessions.encoder.cache
    assert cache.folder is None
    assert 0 < cache.memory_bytes <= demo.config.sessions.cache_memory_bytes


def test_answers_are_kept_by_no_browser_and_foreign_names_are_refused(demo: Demo, photo: bytes) -> None:
    client = visitor(demo)
    image_id = send(client, photo)["image_id"]
    for path in (f"/api/images/{image_id}", f"/api/images/{image_id}/embedding", "/api/demo"):
        assert client.get(path).headers["Cache-Control"] == "no-store"
    assert "script-src 'self'" in client.get("/").headers["Content-Security-Policy"]
    assert error_of(visitor(demo, host="evil.example").get("/api/demo"), 400) == "foreign_host"


def test_there_is_no_route_of_rounds_tasks_or_logins(demo: Demo) -> None:
    client = visitor(demo)
    for path in ("/api/me", "/api/rounds", "/api/tasks/held", "/api/reviews/mask_good", "/api/health", "/link"):
        assert client.get(path).status_code == 404, path
    assert client.post("/api/login", json={"name": "a", "password": "b"}).status_code in (404, 405)


def test_photos_on_their_way_are_limited_in_number_and_time() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append((await receive())["type"])

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async def note(message: Any) -> None:
        answers.append(message)

    async def two_at_once() -> None:
        arrival = Arrival(app, max_uploads=1, receive_s=0.05)
        scope = {"type": "http", "path": "/api/photos", "method": "POST", "headers": []}
        await asyncio.gather(arrival(scope, never, note), arrival(scope, never, note))

    received: list[str] = []
    answers: list[dict[str, Any]] = []
    with ThreadPoolExecutor(1) as thread:  # a browser of another test may have a loop in this one
        thread.submit(asyncio.run, two_at_once()).result()
    assert received == ["http.disconnect"]  # the first one took too long
    assert answers[0]["status"] == 503  # the second one was one too many


def test_a_visitor_with_ipv6_has_one_address_for_the_whole_network() -> None:
    assert _address("2001:db8::1") == _address("2001:db8::ffff:1") != _address("2001:db8:0:1::1")
    assert _address("::ffff:198.51.100.7") == "198.51.100.7"
    assert _address("testclient") == "testclient"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"host": "0.0.0.0"}, "--allow-plain-http"),
        ({"proxy": "proxy.example"}, "expected an IP address"),
        ({"tls_certificate": Path("missing.pem")}, "no such file"),
    ],
)
def test_an_exposed_demo_needs_tls_or_a_word(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        check_config(DemoConfig(**options))
    check_config(DemoConfig(host="0.0.0.0", allow_plain_http=True, proxy="127.0.0.1"))
