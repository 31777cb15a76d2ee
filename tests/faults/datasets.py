"""Small datasets for the harness, and the jobs beside writing shards: planning, redoing, withdrawing, rebuilding."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from storage.dataset import Dataset
from storage.model_versions import CARD_NAME, WEIGHTS_NAME
from storage.objects import probing
from storage.objects.local import LocalStore
from storage.protocol.plans import Plan, PlannedShard
from storage.tables.fold_log import newest_done
from storage.tables.withdrawals import withdraw
from tests.faults import workers
from tests.faults.processes import Job
from tests.image_records import photo_key

KINDS = ("photo", "photo", "bad")  # what an image shard of three inputs is made from


def copy_dataset(source: Path, target: Path) -> None:
    """A copy that needs no probe of put-if-absent at its place, as if it had been made there."""
    shutil.copytree(source, target)
    note_probe(target)


def note_probe(root: Path) -> None:
    path = root / probing._note_key(LocalStore(root))
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")


def make_base(dataset: Dataset) -> None:
    """Two image shards and two mask shards, folded, and a snapshot of them; one image shard still to be written."""
    images = plan_images(dataset, range(2), first=0)
    workers.finish(dataset)
    plan_masks(dataset, images, variant=1, skip=1)
    workers.finish(dataset)
    dataset.snapshot()
    plan_images(dataset, range(1), first=100)


def plan_images(dataset: Dataset, shards: range, first: int) -> Plan:
    """Shards of two good photographs and a bad one."""
    planned = [
        PlannedShard(
            name=f"{shard:05d}",
            inputs=tuple(photo_key(f"{kind}-{first + 3 * shard + n}") for n, kind in enumerate(KINDS)),
        )
        for shard in shards
    ]
    return dataset.new_plan("images", planned, {"first": first})


def plan_masks(dataset: Dataset, images: Plan, *, variant: int, skip: int) -> Plan:
    planned = [PlannedShard(name=shard.name, inputs=(images.address(shard),)) for shard in images.shards]
    return dataset.new_plan("masks", planned, {"variant": variant, "skip": skip, "inherit": False})


def redo_all(dataset: Dataset, plan_id: str, settings: dict[str, Any]) -> Plan:
    plan = dataset.plan(plan_id)
    return dataset.maintenance.plan_redo(plan, [shard.name for shard in plan.shards], settings)


def of_kind(dataset: Dataset, kind: str) -> list[Plan]:
    return [plan for plan in dataset.plans() if plan.kind == kind and not plan.redoes]


def prepare_masks(dataset: Dataset) -> None:
    images = of_kind(dataset, "images")[0]
    plan_masks(dataset, images, variant=2, skip=0)


def prepare_redo(dataset: Dataset) -> None:
    """Of the images that have no masks yet."""
    dataset.maintenance.plan_redo(of_kind(dataset, "masks")[0], ["00000"], {"variant": 3, "skip": 0, "inherit": True})


def prepare_whole_redo(dataset: Dataset) -> None:
    dataset.maintenance.plan_redo(of_kind(dataset, "masks")[0], ["00000"], {"variant": 4, "skip": 0, "inherit": False})


def prepare_clean(dataset: Dataset) -> None:
    """What beaten and crashed attempts leave."""
    for plan in (of_kind(dataset, "images")[0], of_kind(dataset, "masks")[0]):
        folder = Path(dataset.uri) / "data" / plan.plan_id / "00000"
        for path in list(folder.iterdir()):
            (folder / f"g0-{'0' * 32}{path.suffix}").write_bytes(path.read_bytes())
            (folder / f".gigamask-tmp-abc-g0-{'1' * 32}{path.suffix}").write_bytes(path.read_bytes()[:100])


def last_plan(dataset: Dataset) -> Plan:
    return max(dataset.plans(), key=lambda plan: plan.created_at)


def write_first_missing(dataset: Dataset) -> None:
    plan = last_plan(dataset)
    workers.write_unit(plan.plan_id, plan.shards[0].name)(dataset)


def then_write(prepare: Job) -> Job:
    def both(dataset: Dataset) -> None:
        prepare(dataset)
        write_first_missing(dataset)

    return both


def some_masks(dataset: Dataset) -> list[tuple[int, int]]:
    rows = dataset.query("SELECT image_id, mask_id FROM masks WHERE ordinal = 1 ORDER BY mask_id").to_pylist()
    return [(row["image_id"], row["mask_id"]) for row in rows]


def withdraw_some(dataset: Dataset) -> None:
    masks = some_masks(dataset)
    if masks:  # else they are withdrawn
        try:
            dataset.withdraw(masks, "shows a number plate")
        except ValueError as error:
            if "are not in fold" not in str(error) or set(masks) & set(some_masks(dataset)):
                raise  # the refusal is right only where a redo has replaced the masks since they were chosen


def withdraw_unfolded(dataset: Dataset) -> None:
    """Writes the record and stops before its fold."""
    withdraw(dataset.store, newest_done(dataset.store), some_masks(dataset), "shows a number plate")


def nine_versions(dataset: Dataset) -> None:
    """Tables whose next version is one with a checkpoint, and a record to fold."""
    while max(newest_done(dataset.store).versions.values()) < 9:
        plan_images(dataset, range(1), first=200 + 3 * newest_done(dataset.store).number)
        workers.finish(dataset)
    plan_images(dataset, range(1), first=300)
    write_first_missing(dataset)


def write_again(dataset: Dataset) -> None:
    """A worker that comes to a shard that is finished."""
    plan = of_kind(dataset, "masks")[0]
    workers.write_unit(plan.plan_id, "00000")(dataset)


def nothing(dataset: Dataset) -> None:
    pass


def snapshot(dataset: Dataset) -> str:
    return dataset.snapshot().snapshot_id


def rebuild(dataset: Dataset) -> None:
    dataset.maintenance.rebuild_tables()


def publish_model(dataset: Dataset) -> None:
    """A version whose weights and card are small files."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, name) for name in (WEIGHTS_NAME, CARD_NAME)}
        for name, path in paths.items():
            path.write_text(name)
        dataset.models.publish("m-1", paths)
