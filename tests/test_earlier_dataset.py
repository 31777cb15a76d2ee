"""A dataset written by an earlier version is opened, queried, continued, folded and verified by this one."""

import hashlib
import json
import shutil
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from engine.automatic.config import GenerateConfig
from engine.model.weights import load_model
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker
from stages.ingest.config import IngestConfig
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.errors import Corrupt
from storage.formats.documents import FORMAT
from storage.marker import read_marker
from storage.tables.columns import SCHEMAS
from storage.tables.fold_log import newest_done
from storage.tables.snapshots import prove, take_snapshot
from tests.paths import DATA

WRITTEN = DATA / "dataset_0_1"
EXPECTED: dict[str, Any] = json.loads((WRITTEN / "expected.json").read_text())
INGEST = IngestConfig(images_per_shard=3, license="CC-BY-4.0", country="DE")
GENERATE = GenerateConfig(points_per_side=3, predicted_iou_threshold=-100.0, min_region_px=0, max_area_fraction=None)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(WRITTEN / "dataset.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
def folder(unpacked: Path, tmp_path: Path) -> Path:
    """A copy that the test may write to."""
    return Path(shutil.copytree(unpacked, tmp_path / "copy"))


@pytest.fixture
def dataset(folder: Path) -> Dataset:
    return Dataset.open(folder / "dataset")


def rows(dataset: Dataset, sql: str, snapshot: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dataset.query(sql, snapshot).to_pylist()
    return found


@pytest.mark.parametrize("snapshot", EXPECTED["snapshots"])
@pytest.mark.parametrize(
    ("table", "order"),
    [
        ("images", "image_id"),
        ("masks", "image_id, mask_id"),
        ("shards", "plan, shard"),
        ("rejects", "source, reason, stage"),
    ],
)
def test_its_snapshots_answer_as_the_code_that_took_them(unpacked: Path, snapshot: str, table: str, order: str) -> None:
    expected = EXPECTED["snapshots"][snapshot][table]
    columns = ", ".join(name if name != "closed" else "attempt IS NULL AS closed" for name in expected[0])
    found = rows(Dataset.open(unpacked / "dataset"), f"SELECT {columns} FROM {table} ORDER BY {order}", snapshot)
    assert found == expected


def test_its_plans_keep_their_names_settings_and_missing_shards(unpacked: Path) -> None:
    dataset = Dataset.open(unpacked / "dataset")
    plans = dataset.plans()
    assert [
        {
            "plan_id": plan.plan_id,
            "kind": str(plan.kind),
            "redoes": plan.redoes,
            "settings_hash": plan.settings_hash,
            "shards": [shard.name for shard in plan.shards],
        }
        for plan in plans
    ] == EXPECTED["plans"]
    assert {plan.plan_id: [shard.name for shard in dataset.missing(plan)] for plan in plans} == EXPECTED["missing"]


def test_its_masks_are_read_pixel_by_pixel(unpacked: Path) -> None:
    dataset = Dataset.open(unpacked / "dataset")
    homes = [plan for plan in dataset.plans() if plan.kind == "masks" and not plan.redoes]
    read = {
        f"{mask.image_id}/{mask.mask_id}": hashlib.sha256(
            json.dumps([mask.rle.height, mask.rle.width, mask.rle.counts.tolist()]).encode()
        ).hexdigest()[:16]
        for home in homes
        for commit in dataset.commits(home)
        for _, masks in dataset.read_masks(commit)
        for mask in masks
    }
    assert read == EXPECTED["mask_pixels"]


def test_the_same_masks_command_continues_its_plan_and_covers_new_images(folder: Path, dataset: Dataset) -> None:
    model = load_model(folder / "tiny.safetensors")
    plans = plan_masks(dataset, model.identity, GENERATE, images_per_shard=2)
    (open_plan,) = [plan_id for plan_id, names in EXPECTED["missing"].items() if names]
    assert plans[0].plan_id == open_plan

    worker = ShardWorker(folder / "tiny.safetensors", GENERATE, dataset.uri)
    made = [worker.mask_shard(plan.plan_id, shard.name) for plan in plans for shard in dataset.missing(plan)]
    dataset.fold()
    masked = rows(dataset, "SELECT sum(images) AS images FROM shards WHERE kind = 'masks' AND model_id <> ''")
    images = rows(dataset, "SELECT count(*) AS images FROM images")
    assert made
    assert masked == images
    assert plan_masks(dataset, model.identity, GENERATE, images_per_shard=2) == plans  # nothing is left uncovered


def test_its_photographs_are_known_when_they_are_ingested_again(folder: Path, dataset: Dataset) -> None:
    report = ingest_photos([folder / "first", folder / "second"], dataset, INGEST)
    before = rows(dataset, "SELECT count(*) AS images FROM images")
    dataset.fold()
    assert report.images == 0
    assert report.unchanged == 8  # the duplicate has a name that is known, too
    assert rows(dataset, "SELECT count(*) AS images FROM images")[0]["images"] == before[0]["images"] + 2


def test_it_folds_rebuilds_and_verifies_without_a_fault(dataset: Dataset) -> None:
    assert dataset.maintenance.verify().faults == ()
    assert dataset.fold().records == 1  # the second ingest was committed and not folded
    folded = rows(dataset, "SELECT image_id, mask_id FROM masks ORDER BY image_id, mask_id")
    dataset.maintenance.rebuild_tables()
    assert rows(dataset, "SELECT image_id, mask_id FROM masks ORDER BY image_id, mask_id") == folded
    assert dataset.maintenance.verify().faults == ()


def test_its_redo_and_its_withdrawal_go_on(dataset: Dataset) -> None:
    (people,) = [plan for plan in dataset.plans() if plan.settings.get("round") and not plan.redoes]
    (commit,) = dataset.commits(people)
    assert commit.generation == 1
    assert [asdict(reject) for reject in commit.rejects] == []
    next_redo = dataset.maintenance.plan_redo(people, ["000000"])
    assert next_redo.shards[0].generation == 2
    assert next_redo.shards[0].previous == commit.record_sha256

    (mask,) = rows(dataset, "SELECT image_id, mask_id FROM masks ORDER BY mask_id LIMIT 1")
    dataset.withdraw([(mask["image_id"], mask["mask_id"])], "taken back by the present version")
    left = rows(dataset, f"SELECT count(*) AS n FROM masks WHERE mask_id = {mask['mask_id']}")
    assert left == [{"n": 0}]


def test_it_is_upgraded_once_and_stays_what_it_was(dataset: Dataset) -> None:
    dataset.fold()
    before = rows(dataset, "SELECT image_id, mask_id FROM masks ORDER BY image_id, mask_id")
    report = dataset.maintenance.upgrade()
    assert (report.before, report.after, report.records > 0) == (1, FORMAT, True)
    assert read_marker(dataset.store)["requires"] == []
    assert dataset.maintenance.upgrade().records == 0
    assert rows(dataset, "SELECT image_id, mask_id FROM masks ORDER BY image_id, mask_id") == before
    assert rows(dataset, "SELECT count(*) AS n FROM annotations") == [{"n": 0}]
    assert set(newest_done(dataset.store).proofs) == set(SCHEMAS)
    assert dataset.maintenance.verify().faults == ()
    assert [snapshot.snapshot_id for snapshot in dataset.snapshots()] == [*EXPECTED["snapshots"]]


def test_its_next_snapshot_proves_itself_and_verify_names_what_cannot(dataset: Dataset) -> None:
    before = {f"snapshots/{snapshot.snapshot_id}.json" for snapshot in dataset.snapshots()}
    unproven = set(dataset.maintenance.verify().unproven)
    assert {key for key in unproven if key.startswith("snapshots/")} == before
    assert [key for key in unproven if key.startswith("folds/")]
    newest = newest_done(dataset.store)
    assert newest.proofs == {}
    for key in before:  # a snapshot that is there never changes
        dataset.store.delete(key)
    assert set(take_snapshot(dataset.store, newest).proofs) == set(newest.versions)
    snapshot = dataset.snapshot()
    prove(dataset.store, snapshot)
    assert dataset.maintenance.verify().unproven == ()
    version = snapshot.versions["masks"]
    dataset.store.delete(f"{snapshot.folder}/masks/_delta_log/{version:020d}.json")
    with pytest.raises(Corrupt):
        prove(dataset.store, snapshot)
