"""Two plans at once, over the same photos or the same images: beside each other, and around each other's commits.

Two processes plan, write and fold. Plans of equal settings meet at one record where their shards have the same inputs.
Otherwise the first record in the order of the folds owns an image; what the later one brings stays out of the tables
and is a row of `rejects`. The checker decides the same from the log and the bytes (checks/fold_order.py).
"""

import random
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange, Images, PhotoKey
from storage.protocol.plans import Plan, PlannedShard
from tests.faults import workers
from tests.faults.kinds.cases import Case, Stage, Template
from tests.faults.processes import FREEZE, Job, Strike
from tests.faults.tally import Tally, expect_beaten, finished

TWO_PLANS = "two plans at once"
MOST_STEPS = 130
"""Steps, among which one is drawn to freeze at."""


def ingest(
    dataset: Dataset, photos: Sequence[int] = (500, 501, 502, 503), licence: str = "", place: str = "0" * 12
) -> Plan:
    """Photos in shards of two; the licence is a setting, the place is where they are mounted."""
    keys = [PhotoKey(source=f"photo-{number}", place=place, nbytes=1, mtime_ns=0) for number in photos]
    shards = [PlannedShard.from_inputs(*keys[start : start + 2]) for start in range(0, len(keys), 2)]
    plan = dataset.new_plan("images", shards, {"license": licence})
    return work_through(dataset, plan)


def mask(dataset: Dataset, variant: int = 80, ranges: Sequence[tuple[int, int]] = ()) -> Plan:
    """Masks of all images that there are, shard by shard or in ranges of a shard."""
    inputs: list[Images] = []
    for commit in dataset.image_shards():
        if ranges:
            inputs += [ImageRange(shard=commit.address, start=start, stop=stop) for start, stop in ranges]
        else:
            inputs.append(commit.address)
    shards = [PlannedShard.from_inputs(each) for each in inputs]
    plan = dataset.new_plan("masks", shards, {"variant": variant, "skip": 0, "inherit": False})
    return work_through(dataset, plan)


def ingest_and_mask(dataset: Dataset, licence: str) -> None:
    ingest(dataset, licence=licence)
    mask(dataset)


def work_through(dataset: Dataset, plan: Plan) -> Plan:
    for shard in dataset.missing(plan):
        workers.write_unit(plan.plan_id, shard.name)(dataset)
    dataset.fold()
    return plan


PAIRS: dict[str, tuple[Job, Job]] = {
    "same photos": (ingest, ingest),
    "same photos, other settings": (ingest, partial(ingest, licence="CC-BY-4.0")),
    "same photos, other mount point": (ingest, partial(ingest, place="1" * 12)),
    "photos that overlap": (ingest, partial(ingest, photos=(502, 504, 503, 505))),
    "same images": (mask, mask),
    "same images, other settings": (mask, partial(mask, variant=81)),
    "same images, other ranges": (partial(mask, ranges=[(0, 1), (1, 2)]), mask),
    "masks around an ingest": (mask, partial(ingest_and_mask, licence="")),
    "photos and masks": (partial(ingest_and_mask, licence=""), partial(ingest_and_mask, licence="CC-BY-4.0")),
}
"""What two processes do at once."""


def two_plans(template: Template) -> list[Case]:
    """Each pair; both ways round, with one frozen around the other's commits or both at once."""
    return [
        Case(name=name, how=TWO_PLANS, run=partial(one_pair, template, name, turned, frozen))
        for name in PAIRS
        for turned in (False, True)
        for frozen in (False, True, True)
    ]


def one_pair(
    template: Template, name: str, turned: bool, frozen: bool, root: Path, dice: random.Random, tally: Tally
) -> None:
    first, second = reversed(PAIRS[name]) if turned else PAIRS[name]
    at = dice.randrange(MOST_STEPS) if frozen else None
    stage = Stage.copy(template, root, f"{name}{', turned' * turned}{f', frozen at {at}' * frozen}", tally)
    worker = stage.start(first, Strike(at=at, signal=FREEZE))
    if frozen:
        stopped = worker.wait_for_stop()
        stage.do(second, "the other plan")
        stage.look()
        if stopped:
            worker.thaw()
        expect_beaten(worker.wait(), tally)
    else:
        time.sleep(dice.uniform(0, 0.1))
        other = stage.start(second)
        finished(worker.wait(), tally, stage.when)
        finished(other.wait(), tally, stage.when)
    tally.faults[f"{TWO_PLANS}: {name}"] += 1
    stage.promise()
    stage.finish()
