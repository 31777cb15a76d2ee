"""Strangers' files among a dataset's own, and parts that are destroyed before their fold: nobody is disturbed by them.

A stranger's file is what file managers, editors, network file systems and sloppy copies leave. `verify` names those in
the folders of plans, records, folds and snapshots. A destroyed part is named, too; its record stays out of the tables
if its rows are lost, everything else goes on, and a redo of its shard brings it back.
"""

import random
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from storage.dataset import Dataset
from tests.faults import workers
from tests.faults.checks.files import OWN, FolderFiles
from tests.faults.datasets import last_plan, plan_images, rebuild, snapshot
from tests.faults.kinds.cases import Case, Stage, Template, finish_and_clean
from tests.faults.tally import Destroyed, Tally, in_child

FOREIGN_FILES, POISONED = "strangers' files", "part destroyed before its fold"
FILES = (
    ".DS_Store",
    "._00000",
    ".nfs000000000001a2b3",
    "x.json~",
    "Thumbs.db",
    "notes.txt",
    "00000001.json.bak",
    "a b.json",
)
FOLDERS = ("empty", ".Trash-1000", "x.json", "@eaDir")
HOMES = ("plans", "commits", "commits/*", "folds", "snapshots", "models", "data", "data/*", "data/*/*", "tables")


def foreign_files(templates: Iterable[Template]) -> list[Case]:
    """Several of them, in folders drawn at random, before each job."""
    return [
        Case(name=template.name, how=FOREIGN_FILES, run=partial(among_foreign_files, template))
        for template in templates
    ]


def among_foreign_files(template: Template, root: Path, dice: random.Random, tally: Tally) -> None:
    stage = Stage.copy(template, root, f"{template.name} among strangers' files", tally)
    planted = [key for _ in range(4) for key in plant(root, dice)]
    tally.faults[f"{FOREIGN_FILES}: {template.name}"] += 1
    stage.do(template.job, f"the job, {planted}")
    stage.do(look_around, f"status and queries, {planted}")
    stage.do(dice.choice([rebuild, snapshot, finish_and_clean]), f"upkeep, {planted}")
    named = [key for key in planted if key.startswith(tuple(OWN))]
    stage.finish(Destroyed(planted=named))


def plant(root: Path, dice: random.Random) -> list[str]:
    """Plants a file, or an empty folder, somewhere; gives the keys of files."""
    home = dice.choice(sorted(path for path in root.glob(dice.choice(HOMES)) if path.is_dir()) or [root])
    if dice.random() < 0.3:
        (home / dice.choice(FOLDERS)).mkdir(exist_ok=True)
        return []
    path = home / dice.choice(FILES)
    if path.exists():
        return []
    path.write_bytes(dice.randbytes(dice.choice([0, 10, 4096])))
    return [path.relative_to(root).as_posix()]


def look_around(dataset: Dataset) -> None:
    dataset.status()
    dataset.snapshots()
    dataset.models.ids()
    dataset.query("SELECT count(*) FROM masks")
    dataset.maintenance.clean()


# Parts that are destroyed


def _deleted(files: FolderFiles, key: str, dice: random.Random) -> None:
    files.delete(key)


def _emptied(files: FolderFiles, key: str, dice: random.Random) -> None:
    files.put(key, b"")


def _cut_off(files: FolderFiles, key: str, dice: random.Random) -> None:
    data = files.get(key)
    files.put(key, data[: dice.randrange(1, len(data))])


def _changed(files: FolderFiles, key: str, dice: random.Random) -> None:
    data = bytearray(files.get(key))
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    files.put(key, bytes(data))


def _replaced(files: FolderFiles, key: str, dice: random.Random) -> None:
    alike = [
        each for each in files.keys(f"{key.partition('/')[0]}/") if each.rpartition(".")[2] == key.rpartition(".")[2]
    ]
    others = [each for each in alike if files.get(each) != files.get(key)]
    files.put(key, files.get(dice.choice(others)))


WAYS: dict[str, Callable[[FolderFiles, str, random.Random], None]] = {
    "deleted": _deleted,
    "emptied": _emptied,
    "cut off": _cut_off,
    "changed": _changed,
    "replaced": _replaced,
}


TO_FOLD = ("fold new shards", "fold new masks", "fold a newer generation", "fold a withdrawal")
"""Jobs that fold the records of the plan made last."""


def poisoned_parts(templates: Iterable[Template]) -> list[Case]:
    """Each part of a record that the job would fold, destroyed in each way."""
    return [
        Case(name=template.name, how=POISONED, run=partial(one_poison, template, role, way))
        for template in templates
        for role in ("tar", "parquet")
        for way in WAYS
    ]


def one_poison(template: Template, role: str, way: str, root: Path, dice: random.Random, tally: Tally) -> None:
    stage = Stage.copy(template, root, f"{template.name}, {role} {way} before its fold", tally)
    files = FolderFiles(root)
    keys = in_child(lambda: parts_of_last_plan(Dataset.open(root), role))
    if not keys:
        return
    key = dice.choice(keys)
    destroyed = Destroyed(originals={key: files.get(key)})
    WAYS[way](files, key, dice)
    tally.faults[f"{POISONED}: {role} {way}"] += 1

    # Everything else goes on
    stage.do(template.job, "the job")
    stage.look(destroyed=destroyed)
    stage.do(partial(others_go_on, first=4000), "others")
    if dice.random() < 0.5 and "withdrawal" not in template.name:
        stage.do(rebuild, "a rebuild")
    stage.do(snapshot, "a snapshot")
    stage.promise()
    stage.finish(destroyed)

    # The shard is made again
    if "withdrawal" not in template.name:
        stage.do(partial(redo_destroyed, key=key), "a redo")
        stage.finish(destroyed)


def parts_of_last_plan(dataset: Dataset, role: str) -> list[str]:
    """Keys of the parts that the newest record of the plan made last has of its own."""
    plan = last_plan(dataset)
    own = f"data/{plan.home}/{plan.shards[0].name}/g{plan.shards[0].generation}-"
    parts = dataset.commit_of(plan.address(plan.shards[0])).parts
    return [part.key for part in parts if part.key.startswith(own) and part.key.endswith(role)]


def others_go_on(dataset: Dataset, first: int) -> None:
    plan_images(dataset, range(1), first=first)
    workers.finish(dataset)


def redo_destroyed(dataset: Dataset, key: str) -> None:
    """A new generation of the shard, made from its inputs alone."""
    _, plan_id, shard, _ = key.split("/")
    plan = dataset.plan(plan_id)
    settings = {"variant": 90, "skip": 0, "inherit": False}
    dataset.maintenance.plan_redo(plan, [shard], settings)
    workers.finish(dataset)
