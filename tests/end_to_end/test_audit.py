"""`gigamask audit` from the draw to SQL: simulated annotators improve masks over HTTP."""

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.ingest.ingest import ingest_photos
from stages.simulated.annotator import SimulatedAnnotator
from stages.simulated.behaviour import Behaviour, in_mind
from stages.simulated.client import Client, Log
from storage import rle
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange
from storage.protocol.plans import PlannedShard
from storage.records import MaskRecord, Provenance, mask_id_of
from storage.rle import Rle
from storage.workspace.workspace import Workspace
from tests.annotators.harness import free_port, start_server
from tests.annotators.photos import make_photos
from tests.conftest import Gigamask
from tests.tiny_network import save_tiny_model

PASSWORD = "a password of simulated annotators"
LARGEST = 4
"""Number of masks of each image."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """A folder with a dataset `data` whose automatic masks are near the truth."""

    folder: Path
    truth: Mapping[int, Sequence[Rle]]


def store_automatic_masks(dataset: Dataset, truth: Mapping[int, Sequence[Rle]]) -> None:
    """Store masks as the fully automatic stage would: each near a true mask, at an IoU of about 0.6 to 1."""
    rng = np.random.default_rng(3)
    (commit,) = dataset.image_shards()
    inputs = (ImageRange(shard=commit.address, start=0, stop=commit.images),)
    plan = dataset.new_plan("masks", [PlannedShard(name="000000", inputs=inputs)], {})
    content = []
    for image, _ in dataset.read_images(commit):
        masks = []
        for ordinal, true in enumerate(truth[image.image_id]):
            mask = rle.encode(in_mind(rle.decode(true), float(rng.uniform(0.6, 1.0)), rng))
            masks.append(
                MaskRecord(
                    mask_id=mask_id_of(plan.plan_id, "000000", 0, image.image_id, ordinal),
                    image_id=image.image_id,
                    rle=mask,
                    box_xyxy=rle.box_xyxy(mask),
                    area_px=rle.area(mask),
                    predicted_iou=0.9,
                    stability_score=0.9,
                    point_xy=(1.0, 1.0),
                    crop_xyxy=(0, 0, image.width, image.height),
                    provenance=Provenance(stage="fully_automatic", model_id="seed-1", plan_id=plan.plan_id),
                )
            )
        content.append((image, masks))
    dataset.write_masks(plan, plan.shards[0], content)
    dataset.fold()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("audit")
    photos = make_photos(folder / "photos", 5, side=96)
    truth = {number: sorted(masks, key=lambda mask: -rle.area(mask))[:LARGEST] for number, masks in photos.items()}
    dataset = Dataset.create(folder / "data")
    ingest_photos([folder / "photos"], dataset)
    dataset.fold()
    store_automatic_masks(dataset, truth)
    with Workspace.open(folder / "data" / "workspace.sqlite") as workspace:
        for name in ("a1", "a2"):
            workspace.users.add(name, "annotator", password=PASSWORD)
    return Home(folder=folder, truth=truth)


@pytest.fixture
def command(gigamask: Gigamask, home: Home) -> Callable[..., Any]:
    def run(*arguments: str) -> Any:
        done = gigamask(*arguments, cwd=home.folder)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def address(home: Home) -> Iterator[str]:
    """Address of the annotation server that the command starts."""
    port, model = free_port(), str(save_tiny_model(home.folder))
    server = start_server(home.folder, str(home.folder / "data" / "workspace.sqlite"), port, model)
    yield f"http://127.0.0.1:{port}"
    server.send_signal(signal.SIGTERM)
    server.wait(60)


def improve(home: Home, url: str, name: str) -> int:
    """Do tasks until none is left, as an exact annotator who uses the brush where clicks do not do."""
    behaviour = Behaviour(boundary_iou=(0.97, 1.0), good_iou=0.93, poor_iou=0.93, max_clicks=2, pace=1e9)
    behaviour = replace(behaviour, skip_fraction=0, hand_back_fraction=0)
    stop, log = threading.Event(), Log(home.folder / f"{name}.jsonl")
    client = Client(url, name, PASSWORD, log, stop=stop)
    rng = np.random.default_rng(int(name[1:]))
    done = SimulatedAnnotator(client, home.truth.__getitem__, behaviour, rng=rng, stop=stop).work(max_tasks=100)
    client.close()
    log.close()
    return done


@pytest.mark.slow
def test_an_audit_from_the_draw_to_sql(
    home: Home, command: Callable[..., Any], gigamask: Gigamask, address: str
) -> None:
    options = ("--dataset", "data", "--sample", "4", "--seed", "7", "--json")
    drawn = command("audit", *options)
    assert (drawn["is_new"], drawn["images"], drawn["images_done"], drawn["above_90"]) == (True, 4, 0, None)

    assert improve(home, address, "a1") + improve(home, address, "a2") == 4
    result = command("audit", *options)
    assert (result["round_id"], result["is_new"], result["images_done"]) == (drawn["round_id"], False, 4)
    with Workspace.open(home.folder / "data" / "workspace.sqlite") as workspace:
        drawn_images = [task.image_id for task in workspace.rounds.tasks(drawn["round_id"])]
    assert result["masks"] == sum(len(home.truth[image_id]) for image_id in drawn_images)
    assert result["simulated"]
    assert 0 < result["above_90"] < result["above_75"] <= 1
    low, high = result["above_90_interval"]
    assert low <= result["above_90"] <= high
    assert 0.6 < result["mean_iou"] < 0.95

    page = gigamask("round", "report", drawn["round_id"], "--dataset", "data", "--output", "page.html", cwd=home.folder)
    assert page.returncode == 0, page.stderr
    html = (home.folder / "page.html").read_text()
    assert "4 of 4 are done" in html
    assert f"{100 * result['above_90']:.1f} % [" in html

    closed = command("round", "close", drawn["round_id"], "--dataset", "data", "--json")
    assert closed["withdrawn"] > 0
    sql = (
        "SELECT count(*) AS masks, avg(CASE WHEN prefill_iou > 0.9 THEN 1.0 ELSE 0.0 END) AS above_90, "
        "avg(prefill_iou) AS mean_iou FROM annotations WHERE prefill_iou IS NOT NULL "
        f"AND round_id = '{drawn['round_id']}'"
    )
    (row,) = command("query", "--dataset", "data", "--format", "json", sql)
    assert row["masks"] == result["masks"]
    assert row["above_90"] == pytest.approx(result["above_90"])
    assert row["mean_iou"] == pytest.approx(result["mean_iou"], abs=1e-6)
