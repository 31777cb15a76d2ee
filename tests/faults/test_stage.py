"""The checks of the stage under fire find nothing in a sound dataset, and what was lost or doubled in another."""

from pathlib import Path

from engine.model.weights import load_model
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker
from storage.dataset import Dataset
from tests.faults import stage
from tests.faults.checks.files import FolderFiles
from tests.faults.checks.findings import FOREIGN, LOST, UNFINISHED
from tests.tiny_network import save_tiny_model

SHARDS = 2


def findings(dataset: Dataset, expected: dict[int, list[str]]) -> set[tuple[str, str]]:
    found = stage.StageChecker(FolderFiles(Path(dataset.uri)), expected).check(complete=True)
    return {(finding.kind, finding.thing) for finding in found}


def test_a_sound_dataset_has_no_findings_and_any_other_has(tmp_path: Path) -> None:
    dataset, weights = stage.make_dataset(tmp_path, SHARDS), save_tiny_model(tmp_path)
    expected = stage.expected_masks(SHARDS, weights)
    assert [len(masks) for masks in expected.values()] == [27] * SHARDS * stage.PHOTOS_PER_SHARD
    (plan,) = plan_masks(dataset, load_model(weights).identity, stage.CONFIG, images_per_shard=stage.PHOTOS_PER_SHARD)
    worker = ShardWorker(weights, stage.CONFIG, dataset.uri)
    worker.mask_shard(plan.plan_id, plan.shards[0].name)
    dataset.fold()
    assert findings(dataset, expected) == {(UNFINISHED, "shard")}
    worker.mask_shard(plan.plan_id, plan.shards[1].name)
    dataset.fold()
    assert findings(dataset, expected) == set()
    assert findings(dataset, {**expected, 3: [*expected[3], "another mask"]}) == {(LOST, "mask")}
    assert findings(dataset, {**expected, 3: []}) == {(FOREIGN, "mask")}
    assert findings(dataset, {**expected, SHARDS * stage.PHOTOS_PER_SHARD: []}) == {(LOST, "image")}
