"""Review: queues ordered by a verifier of the dataset, and a reviewer who accepts, fixes and sends back."""

import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from engine.logistic import Logistic
from engine.verifier.features import FEATURES
from engine.verifier.verifier import Gate, VerifierCard, save_verifier
from stages.annotator.app import make_app
from stages.annotator.sessions import Sessions
from stages.simulated.behaviour import Behaviour
from stages.simulated.client import Client, Log
from stages.simulated.reviewer import ReviewPolicy, SimulatedReviewer
from storage import rle
from storage.dataset import Dataset
from storage.rle import Rle
from storage.workspace.masks import mask_to_json
from tests.stages.annotator.in_process import Site
from tests.stages.annotator.routes.test_tasks import add, claim, send

PASSWORD = "a password of simulated annotators"


def box(x: int, y: int) -> Rle:
    mask_HW = np.zeros((64, 96), np.bool_)
    mask_HW[y : y + 20, x : x + 20] = True
    return rle.encode(mask_HW)


TRUTH = (box(2, 2), box(30, 2), box(60, 2), box(60, 40))
WRONG = box(5, 42)


def submit(client: TestClient, masks: Sequence[Rle], **scores: Any) -> Any:
    """Claim a task and submit these masks, named m0, m1, ..."""
    (lease,) = claim(client)
    for number, mask in enumerate(masks):
        operation = add(f"m{number}", number)
        operation["payload"] |= {"rle": mask_to_json(mask), **scores}
        assert send(client, lease["token"], operation).status_code == 200
    return client.post("/api/tasks/submit", json={"token": lease["token"], "revision": len(masks)}).json()


def test_a_simulated_reviewer_accepts_fixes_and_sends_back(site: Site, ann: TestClient, tmp_path: Path) -> None:
    site.open_round(images=3)
    good, faulty, bad = (submit(ann, masks) for masks in (TRUTH, [*TRUTH[:3], WRONG], [WRONG]))
    site.server.workspace.users.set_password("rita", PASSWORD)
    stop, log = threading.Event(), Log(tmp_path / "rita.jsonl")
    client = Client("", "rita", PASSWORD, log, stop=stop, http=site.anyone())
    behaviour = Behaviour(boundary_iou=(0.95, 0.99), mistake_fraction=0, lost_reply_fraction=0, pace=1e9)
    policy = ReviewPolicy(wrong_answer_fraction=0)
    reviewer = SimulatedReviewer(
        client, lambda image_id: TRUTH, policy, behaviour, rng=np.random.default_rng(0), stop=stop
    )
    assert reviewer.work() == {"accepted": 1, "fixed": 1, "sent_back": 1}
    log.close()

    by_id = {each.submission_id: each for each in site.server.workspace.submissions.read()}
    assert by_id[good["submission_id"]].state == "accepted"
    assert by_id[bad["submission_id"]].state == "sent_back"
    (fix,) = [each for each in by_id.values() if each.fixes]
    assert (fix.fixes, fix.annotator) == (faulty["submission_id"], "rita")
    masks = site.server.workspace.operations.state(fix.task_id, "rita").masks
    assert rle.iou_matrix(TRUTH, [mask.rle for mask in masks]).max(axis=1).min() > 0.8
    assert [mask.author for mask in masks] == ["ann"] * 3 + [""]
    verdicts = site.server.workspace.submissions.verdicts(submission_id=faulty["submission_id"])
    assert [(each.question, each.answer) for each in verdicts] == [
        *[("mask_good", "yes")] * 3,
        ("mask_good", "no"),
        ("nothing_missing", "no"),
    ]
    (again,) = claim(ann)
    assert again["reason"] == "simulated: 1 masks are wrong, 4 objects are missing"


@pytest.fixture
def verified(site: Site, annotated: Dataset, sessions: Sessions, tmp_path: Path) -> Site:
    """A site whose dataset has two verifiers; the one of more verdicts believes predicted IoU, the other doubts it."""
    shutil.copytree(annotated.uri, tmp_path / "copy")  # the shared dataset is only read
    dataset = Dataset.open(tmp_path / "copy")
    for masks, sign in ((10, -1.0), (200, 1.0)):
        weights = np.zeros(len(FEATURES))
        weights[FEATURES.index("predicted_iou")] = 4.0 * sign
        logistic = Logistic(mean_F=np.full(len(FEATURES), 0.5), std_F=np.ones(len(FEATURES)), weights_F=weights, bias=0)
        card = VerifierCard(
            name="verifier",
            features=FEATURES,
            model_id=sessions.models.ids()[0],
            gate=Gate(is_open=False, reason="closed", accept_probability=None),
            metrics={"masks": masks},
            training={},
        )
        path = tmp_path / str(masks) / "model.safetensors"
        path.parent.mkdir()
        verifier_id = save_verifier(path, logistic, card)
        dataset.models.publish(verifier_id, {file.name: file for file in (path, path.with_suffix(".json"))})
    server = replace(site.server, dataset=dataset)
    return Site(server=server, app=make_app(server))


def test_the_most_doubtful_masks_come_first_where_there_is_a_verifier(verified: Site) -> None:
    verified.open_round(images=3)
    ann, rita = verified.logged_in("ann"), verified.logged_in("rita")
    scores = (0.9, 0.2, None)
    sure, doubtful, unscored = (
        submit(ann, TRUTH[:1], predicted_iou=score, stability_score=score)["submission_id"] for score in scores
    )

    def asked(question: str) -> list[tuple[int, float | None]]:
        items = rita.get(f"/api/reviews/{question}").json()
        return [(item["submission"]["submission_id"], item["probability"]) for item in items]

    assert asked("mask_good") == [(sure, None), (doubtful, None), (unscored, None)]
    waiting = verified.server.workspace.submissions.read()
    until = time.monotonic() + 60
    while len(verified.server.doubts.probabilities(waiting)) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    order = asked("mask_good")
    assert [number for number, _ in order] == [doubtful, sure, unscored]
    assert [probability for _, probability in order] == [
        pytest.approx(0.231, abs=1e-3),
        pytest.approx(0.832, abs=1e-3),
        None,
    ]
    assert [number for number, _ in asked("nothing_missing")] == [doubtful, sure, unscored]


def test_without_a_verifier_the_oldest_question_comes_first(site: Site, ann: TestClient, rita: TestClient) -> None:
    site.open_round(images=2)
    numbers = [submit(ann, TRUTH[:1], predicted_iou=score)["submission_id"] for score in (0.9, 0.1)]
    asked = rita.get("/api/reviews/mask_good").json()
    assert [item["submission"]["submission_id"] for item in asked] == numbers
