"""Datasets with a workspace, prepared for what is struck: images, masks, and a round that people are at work on.

The round has prefilled images, one that two people saw, a gold image, accepted and late work, and a task in progress.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stages.rounds import close
from storage.dataset import Dataset
from storage.workspace.records import GivenMask, RoundSpec, TaskSpec
from storage.workspace.workspace import Workspace
from tests.faults import datasets, truth, workers
from tests.faults.datasets import copy_dataset
from tests.faults.rounds.clients import Page, claim, made
from tests.faults.rounds.databases import Databases
from tests.faults.rounds.promises import Promises
from tests.faults.rounds.steps import open_dataset

IMAGES_PER_SHARD = 2
"""Most images in a mask shard of a round, so that closing writes several."""


@dataclass(frozen=True, kw_only=True)
class World:
    """A dataset and its workspace, and what was promised there."""

    root: Path
    """Folder of the dataset, which is below it, and of the workspace, where that is a file."""
    place: str
    """Address of the workspace."""
    databases: Databases
    promises: Promises = field(default_factory=Promises)
    round_id: str = ""
    """The round that people are at work on."""
    taken_back: frozenset[tuple[str, str]] = frozenset()
    """Pairs of round and annotator whose masks were withdrawn after closing."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What a job needs to know."""

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    def copy(self, root: Path) -> "World":
        """The same world at another place."""
        root.mkdir(parents=True)
        copy_dataset(self.dataset, root / "dataset")
        place = self.databases.copy(self.place, root)
        return replace(self, root=root, place=place, promises=self.promises.copy(), facts=dict(self.facts))

    def open(self) -> "Opened":
        """The world opened by a worker, which closes rounds in small shards from now on."""
        close.MAX_IMAGES = IMAGES_PER_SHARD
        return Opened(
            dataset=open_dataset(self.dataset), workspace=Workspace.open(self.place, max_held=100), world=self
        )


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A world opened by a worker: its calls are steps."""

    dataset: Dataset
    workspace: Workspace
    world: World


def make_base(world: World) -> World:
    """Eight images with three masks each, and the round over six of them; the world with what was promised in it."""
    dataset = Dataset.create(world.dataset)
    images = datasets.plan_images(dataset, range(4), first=0)
    workers.finish(dataset)
    datasets.plan_masks(dataset, images, variant=1, skip=0)
    workers.finish(dataset)
    with Workspace.open(world.place, max_held=100) as workspace:
        for name, role in (("ann", "annotator"), ("bob", "annotator"), ("rita", "reviewer"), ("lea", "lead")):
            workspace.users.add(name, role)
        numbers = [number for shard in range(3) for number in (3 * shard, 3 * shard + 1)]
        round_id = open_base_round(dataset, workspace, numbers)
        world = replace(world, round_id=round_id)
        answer_base_round(workspace, round_id, world.promises)
    return world


def open_base_round(dataset: Dataset, workspace: Workspace, numbers: list[int]) -> str:
    """The round over the images of these photographs."""
    first, second, twice, golden, *rest = [truth.image_id(number) for number in numbers]
    gold = (GivenMask(mask="g", rle=prefill_of(dataset, golden)[0].rle),)
    tasks = [
        task_of(first, prefill=prefill_of(dataset, first)),
        task_of(second, prefill=prefill_of(dataset, second)),
        task_of(twice, overlap=2),
        task_of(golden, gold=gold),
        *(task_of(each) for each in rest),
    ]
    return workspace.rounds.open(RoundSpec(stage="semi_automatic", name="base", tasks=tuple(tasks))).round_id


def task_of(image_id: int, **more: Any) -> TaskSpec:
    return TaskSpec(image_id=image_id, height=truth.HEIGHT, width=truth.WIDTH, **more)


def prefill_of(dataset: Dataset, image_id: int) -> tuple[GivenMask, ...]:
    """The masks that the dataset has of an image."""
    rows = dataset.masks_of_image(image_id).to_pylist()
    return tuple(
        GivenMask(
            mask=f"p{number}",
            rle=dataset.read_mask(image_id, row["mask_id"]).rle,
            model_id=row["model_id"],
            source=f"{image_id}/{row['mask_id']}",
        )
        for number, row in enumerate(sorted(rows, key=lambda row: row["ordinal"]))
    )


def answer_base_round(workspace: Workspace, round_id: str, promises: Promises) -> None:
    """People answer all of the round but its last task."""
    # ann edits prefilled masks: changes, rejects, adds, takes back, merges, splits
    page = claimed(workspace, "ann", promises)
    edits = [
        page.make("accept", {"mask": "p0"}),
        page.make("change", made("p1", 201)),
        page.make("reject", {"mask": "p2"}),
        page.make("add", made("m1", 202)),
        page.make("add", made("m2", 203)),
        page.make("undo"),
    ]
    page.send(workspace, edits)
    page.submit(workspace)
    page = claimed(workspace, "ann", promises)
    merged = {**made("m1", 204), "masks": ["p0", "p1"]}
    split = {"mask": "p2", "into": [made("m2", 205), made("m3", 206)]}
    page.send(workspace, [page.make("merge", merged), page.make("split", split)])
    page.submit(workspace)

    # Both see the third image, and bob's view of it is accepted; then the gold image and another one
    for name, masks in (("ann", 2), ("bob", 3), ("bob", 1), ("bob", 2)):
        page = claimed(workspace, name, promises)
        page.draw(workspace, masks)
        page.submit(workspace)
    third = next(each for each in workspace.submissions.read(round_id=round_id) if each.annotator == "bob")
    workspace.submissions.accept(third.submission_id, actor="rita")

    # ann loses the last task to bob, goes on writing, and so makes a branch; bob hands it back
    page = claimed(workspace, "ann", promises)
    page.draw(workspace, 2)
    workspace.leases.release(page.token, actor="lea")
    page.draw(workspace, 1)
    other = claimed(workspace, "bob", promises)
    other.draw(workspace, 1)
    workspace.leases.hand_back(other.token)


def claimed(workspace: Workspace, annotator: str, promises: Promises) -> Page:
    page = claim(workspace, annotator, promises)
    assert page is not None
    return page
