import time

from stages.cluster.ledger import Ledger
from stages.cluster.progress import ImageCounts, PlanCounter, WorkerProgress
from stages.fully_automatic.outcomes import ShardResult
from storage.dataset import Dataset
from storage.protocol.inputs import ImageRange, ShardAddress
from storage.protocol.plans import PlannedShard
from storage.records import Reject


def test_progress_adds_what_was_before_what_is_done_and_what_is_under_way(dataset: Dataset) -> None:
    images = ShardAddress(plan_id="images-0", shard="0")
    ranges = [ImageRange(shard=images, start=4 * n, stop=4 * n + 4) for n in range(3)]
    shards = [PlannedShard(name=str(n), inputs=(each,)) for n, each in enumerate(ranges)]
    plan = dataset.new_plan("masks", shards, {})
    rejects = [Reject(source=name, source_sha256="", reason="failed", detail="", stage="") for name in "abcd"]
    before = dataset.write_masks(plan, shards[0], [], rejects)
    counter, ledger = PlanCounter(plan, [before], time.perf_counter()), Ledger(shards[1:])
    job = ledger.take(is_idle=True)
    assert job is not None
    counter.add(ShardResult(plan_id=plan.plan_id, shard="1", images=4, masks=50, rejects=0, seconds=1.0, is_new=True))
    ledger.record_done(job)
    now = counter.progress(ledger, [ImageCounts(images=2, masks=7, rejects=1)], workers=1, waiting_workers=2)
    assert (now.shards, now.shards_total, now.images, now.images_total) == (2, 3, 10, 12)
    assert (now.masks, now.rejects, now.new_images, now.new_masks) == (57, 5, 6, 57)
    assert (now.workers, now.waiting_workers, now.deaths) == (1, 2, 0)


def test_a_workers_rate_counts_from_its_first_answer() -> None:
    assert WorkerProgress(place="host:7", images=6, masks=9, seconds=4.0).images_per_s == 1.5
    assert WorkerProgress(place="host:7", images=0, masks=0, seconds=0.0).images_per_s == 0.0
