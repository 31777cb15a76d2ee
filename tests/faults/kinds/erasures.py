"""Erasures under fire: whoever erases, folds or masks is killed or frozen at each of its steps, and thawed too late.

After each the photograph and the outlines of its masks are searched for in every file. All other bytes of data/ must be
as they were, and the tables must hold what they hold where nobody is struck.
"""

import json
import random
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from storage.dataset import Dataset
from storage.progress import silent
from storage.protocol.erasures import Erasures
from storage.tables import erasing
from tests.faults import truth, workers
from tests.faults.checks.checker import Checker, differences
from tests.faults.checks.files import FolderFiles
from tests.faults.checks.findings import DAMAGED, FOREIGN, Finding
from tests.faults.datasets import copy_dataset, prepare_clean, prepare_masks, prepare_whole_redo, then_write
from tests.faults.kinds.cases import Case, Stage, Template, finish_and_clean
from tests.faults.kinds.every_step import CUTS
from tests.faults.processes import FREEZE, Job, Strike, Worker
from tests.faults.tally import Tally, done, expect_beaten, finished, in_child

ERASER_KILLED, ERASED_MEANWHILE, ERASER_CUT_OFF = "eraser killed", "frozen while another erased", "zeros cut off"
GONE = max(0, 1, key=truth.image_id)
"""Number of the photograph that is erased; of the two in its shard, the one that has masks from the beginning."""
VARIANTS = (1, 2, 4)
"""Masks of the photograph that the jobs make."""
WISH = "a person's wish"
LATE = "write masks beside an erasure"


def erase(dataset: Dataset) -> None:
    dataset.erase([truth.image_id(GONE)], WISH)


def erase_finish_and_clean(dataset: Dataset) -> None:
    erase(dataset)
    finish_and_clean(dataset)


def record_erasure(dataset: Dataset) -> None:
    """Dies after the record: nothing is overwritten."""
    erasing.finish = lambda store, *, but=(), on_progress=silent: Erasures()
    erasing.erase(dataset.store, [truth.image_id(GONE)], WISH)


def prepare_erasure(dataset: Dataset) -> None:
    """Two generations of masks, of which one is not folded, and what beaten attempts leave."""
    then_write(prepare_whole_redo)(dataset)
    prepare_clean(dataset)


def prepare_recorded(dataset: Dataset) -> None:
    prepare_erasure(dataset)
    record_erasure(dataset)


ERASURE_JOBS: dict[str, tuple[Job, Job]] = {
    "erase": (prepare_erasure, erase),
    "fold an erasure": (prepare_recorded, workers.fold),
    LATE: (prepare_masks, lambda dataset: write_masks(dataset)),
}
"""By name: how a dataset is prepared for a job, and the job."""


def write_masks(dataset: Dataset) -> None:
    plan = next(plan for plan in dataset.plans() if plan.settings.get("variant") == 2)
    workers.write_unit(plan.plan_id, plan.shards[0].name)(dataset)


def erasures(templates: Iterable[Template]) -> list[Case]:
    """Each way to strike at each step of each job."""
    cases = []
    for template in templates:
        for at in range(template.steps):
            for how, strike in ((ERASER_KILLED, Strike(at=at)), (ERASED_MEANWHILE, Strike(at=at, signal=FREEZE))):
                cases.append(Case(name=template.name, how=how, run=partial(one_step, template, how, strike)))
        for size in CUTS:
            run = partial(one_step, template, ERASER_CUT_OFF, Strike(cut_file_at=size))
            cases.append(Case(name=template.name, how=ERASER_CUT_OFF, run=run))
    return cases


def one_step(template: Template, how: str, strike: Strike, root: Path, dice: random.Random, tally: Tally) -> None:
    """Strikes once; then the image is erased, everything finished, and nothing else may have changed.

    Where masks come late, nobody erases again: the fold has to notice them.
    """
    place = strike.cut_file_at if strike.at is None else strike.at
    stage = Stage.copy(template, root, f"{template.name}, {how} at {place}", tally)
    worker = stage.start(template.job, strike)
    is_frozen = strike.signal == FREEZE
    struck = worker.wait_for_stop() if is_frozen else worker.wait().signal != 0
    tally.faults[f"{how}: {template.name}"] += struck
    comes_late = is_frozen and struck and template.name == LATE
    if is_frozen and struck:
        finished(stage.start(erase if comes_late else erase_finish_and_clean).wait(), tally, stage.when)
        worker.thaw()
    if is_frozen or not struck:
        expect_beaten(worker.wait(), tally)
    if dice.random() < 0.3:  # a reader in between
        finished(stage.start(read_all).wait(), tally, f"{stage.when}, read")
    stage.do(finish_and_clean if comes_late else erase_finish_and_clean, "and finished")
    tally.reads, tally.verified = tally.reads + 1, tally.verified + 1
    report(stage, template, tally)


def read_all(dataset: Dataset) -> None:
    """Every shard as its readers see it, whatever state the erasure is in."""
    for plan in dataset.plans():
        for shard in dataset.commits(plan) if plan.kind in ("images", "masks") else ():
            for _ in dataset.read_images(shard) if plan.kind == "images" else dataset.read_masks(shard):
                pass


def report(stage: Stage, template: Template, tally: Tally) -> None:
    expected = unstruck(template, stage.root.with_name("unstruck"))
    found, alarms = in_child(lambda: look(stage.root, template.folder, expected))
    tally.findings += [replace(each, what=f"{stage.when}: {each.what}") for each in found]
    tally.false_alarms += [f"{stage.when}: {each}" for each in alarms]


def unstruck(template: Template, trial: Path) -> Mapping[str, Counter[Any]]:
    """What the tables hold where nobody is struck; found out once for a template."""
    known = trial.with_name(f"{template.folder.name}.json")
    if not known.exists():
        copy_dataset(template.folder, trial)
        for job in (template.job, erase_finish_and_clean):
            done(Worker(str(trial), job))
        tables = in_child(lambda: {name: list(rows.elements()) for name, rows in rows_of(trial).items()})
        shutil.rmtree(trial)
        known.write_text(json.dumps(tables))
    return {name: Counter(tuple(row) for row in rows) for name, rows in json.loads(known.read_text()).items()}


def rows_of(root: Path) -> dict[str, Counter[Any]]:
    """The rows of the newest fold, by what does not change from run to run."""
    checker = Checker(FolderFiles(root))
    done = checker.done(checker.newest_done())
    columns = {
        "images": ("image_id", "plan", "shard"),
        "masks": ("image_id", "mask_id", "plan", "shard", "generation"),
        "rejects": ("source", "reason", "plan", "shard"),
    }
    return {
        name: Counter(
            tuple(row[column] for column in columns[name])
            for row in checker.rows(done["folder"], name, done["versions"][name])
        )
        for name in columns
    }


def look(root: Path, before: Path, expected: Mapping[str, Counter[Any]]) -> tuple[list[Finding], list[str]]:
    """Findings, and what `verify` names although nothing is wrong."""
    findings = [Finding(kind=FOREIGN, thing="erased image", what=f"{key} holds it") for key in traces(root)]
    findings += [Finding(kind=DAMAGED, thing="object", what=key) for key in changed_elsewhere(root, before)]
    got = rows_of(root)
    for name, rows in expected.items():
        findings += differences(f"row of {name}", rows, got[name])
    if any(row[0] == truth.image_id(GONE) for name in ("images", "masks") for row in got[name]):
        findings.append(Finding(kind=FOREIGN, thing="erased image", what="the tables hold it"))
    faults = Dataset.open(str(root)).maintenance.verify().faults
    return findings, [f"{fault.key}: {fault.what}" for fault in faults]


def traces(root: Path) -> list[str]:
    """Files that hold the bytes of the photograph, or the run lengths of one of its masks."""
    wanted = [truth.photo(GONE), *outlines()]
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return [path.relative_to(root).as_posix() for path in files if any(each in path.read_bytes() for each in wanted)]


def outlines() -> Iterator[bytes]:
    """The photograph's masks as annotation files write them."""
    for variant in VARIANTS:
        for ordinal in range(truth.MASKS_PER_IMAGE):
            pixels_HW = truth.mask_HW(GONE, ordinal, variant).astype(np.uint8)
            counts = coco.encode(np.asfortranarray(pixels_HW))["counts"].decode()
            yield json.dumps(counts).encode()


def changed_elsewhere(root: Path, before: Path) -> list[str]:
    """Objects that differ from what they were, other than by zeros in place of the image."""
    changed = []
    for path in sorted((before / "data").rglob("*.*")):
        key = path.relative_to(before).as_posix()
        if path.is_file() and not path.name.startswith(".") and (root / key).exists():
            expected = bytearray(path.read_bytes())
            for start, nbytes in own_ranges(path) if path.suffix == ".tar" else ():
                expected[start : start + nbytes] = bytes(nbytes)
            changed += [key] if (root / key).read_bytes() != expected else []
    return changed


def own_ranges(path: Path) -> list[tuple[int, int]]:
    """Where a tar holds the image's files."""
    with tarfile.open(path) as tar:
        return [(info.offset_data, info.size) for info in tar if info.name.startswith(f"{truth.image_id(GONE):016x}.")]
