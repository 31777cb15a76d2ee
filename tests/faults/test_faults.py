"""A seeded hundred faults, and proof that the checks can fail: faults planted in the bytes, and a protocol broken."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake

from storage.dataset import Dataset
from storage.protocol.commits import begin_attempt
from storage.protocol.inputs import image_inputs
from storage.protocol.plans import make_plan, put_plan
from storage.records import MaskRecord
from storage.tables.contents import put_masks
from tests.faults import datasets, sabotage, workers
from tests.faults.checks.checker import Checker
from tests.faults.checks.files import FolderFiles
from tests.faults.checks.findings import DAMAGED, DOUBLED, FOREIGN, LOST, TORN
from tests.paths import ROOT

SUMS = ("lost", "doubled", "torn", "false_alarms", "missed")


def harness(folder: Path, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, the lines, and what went to standard error. A process of its own: it forks."""
    command = [sys.executable, "-m", "tests.faults.harness", "--folder", str(folder), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=280)
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()], run.stderr


def by_metric(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {line["metric"]: line["value"] for line in lines}


@pytest.mark.slow
def test_some_faults_of_all_kinds_lose_double_and_tear_nothing_and_verify_knows(tmp_path: Path) -> None:
    status, lines, errors = harness(tmp_path, "--faults", "25", "--seed", "4", "--jobs", "1")
    assert {name: lines[-1][name] for name in SUMS} == dict.fromkeys(SUMS, 0), errors
    assert list(lines[-1]) == ["faults", *SUMS]
    assert status == 0, errors
    figures = by_metric(lines[:-1])
    assert figures["faults"] == lines[-1]["faults"] >= 25
    assert figures["failed workers"] == 0
    assert figures["verify runs"] > 25
    assert figures["masks checked"] > 100


@pytest.fixture(scope="module")
def sabotaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What the harness says of the protocol broken in each way: the figures by metric."""
    _, lines, errors = harness(tmp_path_factory.mktemp("sabotaged"), "--sabotage", "--faults", "60", "--seed", "1")
    return by_metric(lines), errors


@pytest.mark.parametrize("kind", sabotage.KINDS)
@pytest.mark.slow
def test_a_broken_protocol_is_noticed(sabotaged: tuple[dict[str, Any], str], kind: str) -> None:
    figures, errors = sabotaged
    assert 0 < figures[f"sabotage of {kind}: noticed"] <= 60, errors


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    dataset = Dataset.create(tmp_path_factory.mktemp("sound") / "dataset")
    datasets.make_base(dataset)
    workers.finish(dataset)
    return dataset


@pytest.fixture
def dataset(sound: Dataset, tmp_path: Path) -> Dataset:
    shutil.copytree(sound.uri, tmp_path / "dataset")
    return Dataset.open(tmp_path / "dataset")


def test_a_redo_that_names_another_record_is_reported(dataset: Dataset) -> None:
    plan = datasets.of_kind(dataset, "masks")[0]
    (planned,) = dataset.maintenance.plan_redo(plan, ["00000"], {"variant": 9, "skip": 0, "inherit": False}).shards
    wrong = replace(planned, previous="0" * 64)
    settings = {"variant": 9, "skip": 0, "inherit": False}
    redo = put_plan(dataset.store, make_plan("masks", [wrong], settings, redoes=plan.plan_id))
    workers.write_unit(redo.plan_id, "00000")(dataset)
    dataset.fold()
    assert (FOREIGN, "record") in findings(dataset)


def findings(dataset: Dataset) -> set[tuple[str, str]]:
    found = Checker(FolderFiles(Path(dataset.uri))).check(complete=True)
    return {(finding.kind, finding.thing) for finding in found}


def write_wrong_masks(dataset: Dataset, change: Callable[[list[MaskRecord]], list[MaskRecord]]) -> None:
    """A shard whose worker changed its masks before writing them; everything else is as it should be."""
    plan = datasets.plan_masks(dataset, datasets.of_kind(dataset, "images")[1], variant=7, skip=0)
    (shard,) = plan.shards
    images = [image for image, _ in dataset.read_images(image_inputs(shard.inputs)[0])]
    attempt = begin_attempt(dataset.store, plan, shard)
    put_masks(attempt, [(image, change(workers.make_masks(image, plan, shard))) for image in images])
    attempt.commit()
    dataset.fold()


def test_a_sound_dataset_has_no_findings(dataset: Dataset) -> None:
    assert findings(dataset) == set()


def test_a_mask_that_its_worker_dropped_is_lost(dataset: Dataset) -> None:
    write_wrong_masks(dataset, lambda masks: masks[1:])
    assert findings(dataset) == {(LOST, "mask")}


def test_a_mask_written_twice_is_doubled(dataset: Dataset) -> None:
    write_wrong_masks(dataset, lambda masks: [*masks, workers.renamed(masks[0])])
    assert findings(dataset) == {(DOUBLED, "mask")}


def test_a_row_written_twice_or_left_out_is_reported(dataset: Dataset) -> None:
    table = DeltaTable(dataset.store.table_uri("tables", "masks"))
    write_deltalake(table, table.to_pyarrow_table().slice(0, 2), mode="append")
    publish(dataset, masks=table.version())
    assert findings(dataset) == {(DOUBLED, "row of masks")}
    table.delete()
    publish(dataset, masks=table.version())
    assert findings(dataset) == {(LOST, "row of masks")}


def test_a_table_whose_file_or_log_is_torn_is_reported(dataset: Dataset) -> None:
    files = sorted(Path(dataset.uri, "tables", "masks").glob("*.parquet"))
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[:-20])
    assert findings(dataset) == {(TORN, "table")}
    files[0].write_bytes(whole)
    sorted(Path(dataset.uri, "tables", "images", "_delta_log").glob("*.json"))[-1].unlink()
    assert findings(dataset) == {(TORN, "table")}


@pytest.mark.slow
def test_tables_of_different_folds_are_reported_and_seen_by_a_reader(dataset: Dataset, tmp_path: Path) -> None:
    publish(dataset, masks=0)
    assert findings(dataset) == {(LOST, "row of masks")}
    script = (
        "import sys, time; from pathlib import Path; from tests.faults import reader\n"
        "from tests.faults.checks import files\n"
        "uri, report = sys.argv[1:]\n"
        "some = reader.Reader(uri, lambda: files.FolderFiles(Path(uri)), Path(report)); time.sleep(2)\n"
        "print(len(some.stop().torn))"
    )
    command = [sys.executable, "-c", script, dataset.uri, str(tmp_path / "report")]
    assert int(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=60).stdout) > 0


def test_objects_that_are_gone_or_changed_are_reported(dataset: Dataset) -> None:
    tar, *_ = sorted(Path(dataset.uri, "data").rglob("*.tar"))
    data = tar.read_bytes()
    tar.write_bytes(data[:600] + b"?" + data[601:])
    assert findings(dataset) == {(DAMAGED, "object")}
    tar.unlink()
    assert findings(dataset) == {(LOST, "object")}


def publish(dataset: Dataset, **versions: int) -> None:
    """The newest done fold names these versions instead."""
    path = max(Path(dataset.uri, "folds").glob("*.done.json"))
    fields = json.loads(path.read_text())
    fields["versions"] |= versions
    path.write_text(json.dumps(fields))
