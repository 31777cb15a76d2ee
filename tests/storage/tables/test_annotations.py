"""The table `annotations`: folded, withdrawn, rebuilt, verified, and added to a dataset that lacks it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties

from storage.dataset import Dataset
from storage.protocol.commits import Commit
from storage.protocol.inputs import image_inputs
from storage.tables import delta, folds
from storage.tables.columns import ANNOTATIONS
from storage.tables.fold_log import newest_done
from tests.storage.verification.test_verify import keys, republish

ROWS = "SELECT * FROM annotations ORDER BY image_id, mask_id"


def annotate(dataset: Dataset, samples: SimpleNamespace) -> list[Commit]:
    """Write masks for every image, with a row of `annotations` each."""
    plan = samples.plan_masks(dataset, {"stage": "assisted_manual"})
    commits = []
    for shard in plan.shards:
        images = [image for image, _ in dataset.read_images(image_inputs(shard.inputs)[0])]
        content = [(image, samples.make_masks(image, plan, shard)) for image in images]
        rows = [row_of(mask, plan.home, shard.name, number) for _, some in content for number, mask in enumerate(some)]
        table = pa.Table.from_pylist(rows, schema=ANNOTATIONS)
        commits.append(dataset.write_annotated_masks(plan, shard, content, table))
    return commits


def row_of(mask: Any, plan: str, shard: str, number: int) -> dict[str, object]:
    texts = dict.fromkeys(("stage", "round_id", "annotator_id", "origin", "model_id", "prompts", "verdict"), "x")
    truths = dict.fromkeys(("in_masks", "gold", "prefilled", "simulated"), True)
    numbers = dict.fromkeys(("task_id", "clicks", "strokes", "edits"), number)
    return {
        **texts,
        **truths,
        **numbers,
        "image_id": mask.image_id,
        "mask_id": mask.mask_id,
        "plan": plan,
        "shard": shard,
        "active_s": number + 0.5,
        "search_s": 0.25,
        "predicted_iou": None,
        "submitted_at": datetime(2026, 1, 2, tzinfo=UTC),
    }


@pytest.fixture
def annotated(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    samples.ingest(dataset)
    dataset.fold()
    annotate(dataset, samples)
    dataset.fold()
    return dataset


def test_annotations_join_their_masks(annotated: Dataset) -> None:
    sql = "SELECT m.area_px, a.active_s FROM masks m JOIN annotations a USING (image_id, mask_id)"
    assert annotated.query(sql).num_rows == 12
    (mean,) = annotated.query("SELECT avg(active_s) AS mean FROM annotations").to_pylist()
    assert mean == {"mean": 1.5}
    assert annotated.maintenance.verify().faults == ()


def test_withdrawing_a_mask_keeps_the_work_that_it_took(annotated: Dataset) -> None:
    (pair,) = annotated.query("SELECT image_id, mask_id FROM masks ORDER BY mask_id LIMIT 1").to_pylist()
    before = annotated.query(ROWS)
    annotated.withdraw([tuple(pair.values())], "wrong")
    assert annotated.query("SELECT count(*) AS n FROM masks").to_pylist() == [{"n": 11}]
    assert annotated.query(ROWS) == before
    assert annotated.maintenance.verify().faults == ()


def test_rebuilding_and_compacting_bring_the_same_rows(
    annotated: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = annotated.query(ROWS)
    annotated.maintenance.rebuild_tables()
    assert annotated.query(ROWS) == before
    monkeypatch.setattr(folds, "_COMPACTION_EVERY", 2)
    samples.ingest(annotated, first=50)
    annotated.fold()
    samples.ingest(annotated, first=80)
    annotated.fold()
    assert annotated.query(ROWS) == before
    assert annotated.maintenance.verify().faults == ()


def test_a_changed_row_is_named(annotated: Dataset) -> None:
    (row,) = annotated.query("SELECT * FROM annotations ORDER BY mask_id LIMIT 1").to_pylist()
    table = delta.open_table(annotated.store, "tables", "annotations")
    table.delete(f"mask_id = {row['mask_id']}")
    changed = pa.Table.from_pylist([row | {"active_s": 99.0}], schema=ANNOTATIONS)
    delta.appending("annotations", lambda: [changed])(
        delta.open_table(annotated.store, "tables", "annotations"), CommitProperties()
    )
    republish(annotated)
    assert "tables/annotations" in keys(annotated)


def test_a_lost_part_is_named_and_sets_its_record_aside(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset)
    dataset.fold()
    first, _ = annotate(dataset, samples)
    (part,) = first.annotations()
    dataset.store.delete(part.key)
    assert dataset.fold().set_aside == (str(first.address),)
    assert part.key in {fault.key for fault in dataset.maintenance.verify().faults}


def test_rows_with_other_columns_are_refused(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset)
    dataset.fold()
    plan = samples.plan_masks(dataset)
    with pytest.raises(ValueError, match="annotations: columns"):
        dataset.write_annotated_masks(plan, plan.shards[0], [], pa.table({"a": [1]}))


def without_the_table(dataset: Dataset) -> None:
    """Make the dataset look as an earlier version left it."""
    done = newest_done(dataset.store)
    path = Path(dataset.uri) / f"folds/{done.number:08d}.done.json"
    fields = json.loads(path.read_text())
    for key in ("versions", "proofs"):
        del fields[key]["annotations"]
    path.write_text(json.dumps(fields))
    log = Path(dataset.uri) / "tables/annotations/_delta_log"
    for file in log.iterdir():
        file.unlink()


@pytest.mark.parametrize("torn", [False, True])
def test_a_dataset_without_the_table_gets_it_at_the_next_fold(
    dataset: Dataset, samples: SimpleNamespace, torn: bool
) -> None:
    samples.ingest(dataset)
    dataset.fold()
    without_the_table(dataset)
    earlier = Dataset.open(dataset.uri)
    with pytest.raises(ValueError, match="annotations"):
        earlier.query("SELECT * FROM annotations")
    assert earlier.maintenance.verify().faults == ()
    snapshot = earlier.snapshot()
    if torn:
        (Path(dataset.uri) / "tables/annotations/_delta_log/00000000000000000000.json").write_bytes(b'{"proto')

    annotate(earlier, samples)
    earlier.fold()
    assert earlier.query(ROWS).num_rows == 12
    assert earlier.query("SELECT count(*) AS n FROM masks", snapshot=snapshot.snapshot_id).to_pylist() == [{"n": 0}]
    assert earlier.maintenance.verify().faults == ()


class Dies(Exception):
    pass


def test_a_fold_that_dies_after_adding_the_table_is_completed(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset)
    dataset.fold()
    without_the_table(dataset)
    annotate(dataset, samples)

    def die(step: str) -> None:
        if step == "make durable":
            raise Dies

    with pytest.raises(Dies):
        folds.fold(dataset.store, before_step=die)
    dataset.fold()
    assert dataset.query(ROWS).num_rows == 12
    assert dataset.maintenance.verify().faults == ()
