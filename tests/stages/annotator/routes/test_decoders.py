"""Decoders for clients that decode prompts by themselves, through the HTTP interface, and their cache."""

import hashlib
import json
import sys
from pathlib import Path

import onnx
import pytest
from fastapi.testclient import TestClient

from engine.interactive.zoom import WINDOW_HANDICAP
from engine.model import onnx_decoder
from engine.model.weights import Model, load_model
from stages.annotator.decoders import RUNTIME_FILES, Decoders, find_runtime
from tests.stages.annotator.in_process import Site, error_of


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return load_model(tiny_model)


def test_the_decoder_of_the_served_model_can_be_read_and_kept(ann: TestClient) -> None:
    view = ann.get("/api/decoder").json()
    answer = ann.get("/api/decoder/onnx", params={"model": view["model_id"]})
    assert hashlib.sha256(answer.content).hexdigest() == view["sha256"]
    assert answer.headers["x-model-id"] == view["model_id"]
    assert "immutable" in answer.headers["cache-control"]
    graph = onnx.load_from_string(answer.content).graph
    assert [each.name for each in graph.input] == list(onnx_decoder.INPUTS)
    assert [each.name for each in graph.output] == list(onnx_decoder.OUTPUTS)
    assert view["window_handicap"] == WINDOW_HANDICAP
    again = ann.get("/api/decoder/onnx", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_decoder_of_no_model_is_not_found_and_needs_a_login(site: Site, ann: TestClient) -> None:
    assert error_of(ann.get("/api/decoder", params={"model": "gone"}), 404) == "not_found"
    assert error_of(ann.get("/api/decoder/onnx", params={"model": "gone"}), 404) == "not_found"
    assert error_of(site.anyone().get("/api/decoder/onnx"), 401) == "login_required"


def test_an_embedding_carries_the_hash_of_its_bytes(ann: TestClient, image_ids: list[int]) -> None:
    path = f"/api/images/{image_ids[0]}"
    answer = ann.get(f"{path}/embedding")
    assert answer.headers["x-sha256"] == hashlib.sha256(answer.content).hexdigest()
    facts = ann.get(f"{path}/facts").json()
    assert facts["layers"] == [0]
    assert len(facts["layers"]) == len(facts["windows"])


def test_an_exported_decoder_is_kept_on_disk_and_a_damaged_one_is_made_again(model: Model, tmp_path: Path) -> None:
    first = Decoders(tmp_path).get(model)
    (path,) = tmp_path.rglob("*.onnx")
    assert path.parent.name == model.model_id
    written = path.stat().st_mtime_ns
    assert Decoders(tmp_path).get(model) == first
    assert path.stat().st_mtime_ns == written
    path.write_bytes(path.read_bytes()[:-1])
    assert Decoders(tmp_path).get(model) == first
    assert hashlib.sha256(path.read_bytes()[32:]).hexdigest() == first.sha256


def test_without_onnx_the_server_starts_and_the_page_is_told_why_it_cannot_decode(
    ann: TestClient, model: Model, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    decoders = Decoders(tmp_path)
    decoders.prepare(model)
    monkeypatch.setattr(site.server.sessions, "decoders", decoders)
    view = ann.get("/api/decoder").json()
    assert view["sha256"] == ""
    assert "onnx is not installed" in view["reason"]
    assert error_of(ann.get("/api/decoder/onnx"), 404) == "not_found"


def test_the_runtime_is_found_in_the_pinned_version_and_whole(tmp_path: Path) -> None:
    folder = tmp_path / "vendor" / "onnxruntime-web-1.2.3"
    folder.mkdir(parents=True)
    for version, files, expected in (
        ("1.2.3", RUNTIME_FILES[:2], ""),
        ("1.2.4", RUNTIME_FILES, ""),
        ("1.2.3", RUNTIME_FILES, "vendor/onnxruntime-web-1.2.3"),
    ):
        (tmp_path / "package.json").write_text(json.dumps({"dependencies": {"onnxruntime-web": version}}))
        for name in files:
            (folder / name).touch()
        find_runtime.cache_clear()
        assert find_runtime(tmp_path) == expected
