"""The server follows the promoted model of its dataset: promotions and rollbacks reach annotators without a restart."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.model.sam import build_sam
from engine.model.weights import save_model
from stages.annotator.access import Access, AccessConfig
from stages.annotator.app import make_app
from stages.annotator.config import SessionsConfig
from stages.annotator.server import Server
from stages.annotator.sessions import Sessions
from storage.dataset import Dataset
from storage.model_versions import CARD_NAME, WEIGHTS_NAME
from storage.protocol.promotions import Decided, Decision, roll_back
from storage.workspace.workspace import Workspace
from tests.stages.annotator.in_process import Site
from tests.tiny_network import TINY, tiny_card


@pytest.fixture
def versions(annotated: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Two versions of the dataset; the first is promoted."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ids = []
    for seed in range(2):
        torch.manual_seed(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        model_id = save_model(folder / WEIGHTS_NAME, build_sam(TINY), replace(tiny_card(), name=f"tiny{seed}"))
        annotated.models.publish(model_id, {name: folder / name for name in (WEIGHTS_NAME, CARD_NAME)})
        ids.append(model_id)
    _decide(annotated, Decision.START, ids[0], "")
    yield ids
    for key in list(annotated.store.list("promotions/")):
        annotated.store.delete(key)


@pytest.fixture
def followed(annotated: Dataset, versions: list[str], tmp_path: Path) -> Iterator[Site]:
    """A server whose default is the promoted model, and that looks for a new one ten times a second."""
    sessions = Sessions(annotated, ["promoted"], tmp_path / "cache", SessionsConfig(follow_every_s=0.1))
    with Workspace.open(tmp_path / "workspace.sqlite") as workspace:
        for name, role in (("ann", "annotator"), ("lea", "lead")):
            workspace.users.add(name, role)
        access = Access(workspace=workspace, config=AccessConfig(mode="team"))
        server = Server(dataset=annotated, workspace=workspace, sessions=sessions, access=access)
        yield Site(server=server, app=make_app(server))
    sessions.close()


def test_annotators_of_an_open_round_get_what_is_promoted_and_rolled_back(followed: Site, versions: list[str]) -> None:
    dataset, (first, second) = followed.server.dataset, versions
    lea, ann = followed.logged_in("lea"), followed.logged_in("ann")
    opened = lea.post("/api/rounds", json={"stage": "assisted_manual", "images": 1})
    assert opened.status_code == 200, opened.text
    (lease,) = ann.post("/api/tasks/claim", json={}).json()
    assert lease["model_id"] == first

    def model_of_lease() -> str:
        return str(ann.post("/api/tasks/heartbeat", json={"token": lease["token"]}).json()["model_id"])

    _decide(dataset, Decision.PROMOTION, second, first)
    assert _becomes(model_of_lease, second)
    roll_back(dataset.promotions, None, "ann", "")
    assert _becomes(model_of_lease, first)

    predict = f"/api/images/{lease['image_id']}/predict"

    # A page that still names the model it began with is answered by that one
    body = {"clicks": [{"x": 20, "y": 20}], "model": second}
    by_second = ann.post(predict, json=body).json()
    assert by_second["model_id"] == second

    # and an object that was begun with it goes on with the present one, if the page sends its mask
    continued = {"continued": {"prediction_id": by_second["prediction_id"], "candidate": 0}}
    assert "begin anew or send the mask" in ann.post(predict, json=body | continued | {"model": first}).text
    mask = {"mask": {name: by_second["candidates"][0]["rle"][name] for name in ("size", "counts")}}
    answer = ann.post(predict, json=body | continued | mask | {"model": first})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["model_id"], answer.json()["basis"]) == (first, "mask")


def test_a_promoted_model_that_cannot_be_loaded_leaves_the_one_before(
    followed: Site, versions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    sessions = followed.server.sessions
    _decide(followed.server.dataset, Decision.PROMOTION, "lost-1", versions[0])
    assert _becomes(lambda: "no model 'lost-1'" in caplog.text, True)
    assert sessions.models.ids() == [versions[0]]
    _decide(followed.server.dataset, Decision.PROMOTION, versions[1], "lost-1")
    assert _becomes(lambda: sessions.models.ids(), [versions[1]])


def _decide(dataset: Dataset, decision: Decision, model_id: str, over: str) -> None:
    decided = Decided(decision=decision, model_id=model_id, over=over, key=model_id, made_by="test", reason="test")
    dataset.promotions.add(decided)


def _becomes(read: Callable[[], object], wanted: object, *, within_s: float = 30.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if read() == wanted:
            return True
        time.sleep(0.05)
    return False
