import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
import ray
from ray import cloudpickle
from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayActorError, RuntimeEnvSetupError

from engine.automatic.config import GenerateConfig
from engine.automatic.generate import Generated
from engine.model.weights import load_model
from stages.cluster import worker_handle
from stages.cluster.ledger import Ledger, PlanStopped
from stages.cluster.pool import PoolConfig
from stages.cluster.progress import PlanCounter, PlanProgress, PlanResult
from stages.cluster.run import _collect, run_plan
from stages.cluster.session import ray_session
from stages.cluster.worker_handle import WorkerHandle
from stages.fully_automatic.outcomes import MaskedImage
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardFailed, ShardWorker
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.protocol.plans import Plan, PlannedShard, make_plan
from storage.records import ImageRecord, Reject

CONFIG = GenerateConfig(points_per_side=3, predicted_iou_threshold=-100.0, min_region_px=0, max_area_fraction=None)
TWO = PoolConfig(workers=2, threads=1)
ONE = PoolConfig(workers=1, threads=1)

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers below reach their actors by their code


class KilledOnce(ShardWorker):
    """Is killed, as by the kernel, at the second photograph it sees; but only one worker of all, only once."""

    seen = 0
    tombstone: Path

    def mask_image(self, plan: Plan, shard: PlannedShard, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        self.seen += 1
        if self.seen == 2:
            try:
                self.tombstone.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().mask_image(plan, shard, image, data)


class Poisoned(ShardWorker):
    """Loses its process at one photograph, every time."""

    def mask_image(self, plan: Plan, shard: PlannedShard, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        if image.source == "photos/3.png":
            os._exit(7)
        return super().mask_image(plan, shard, image, data)


class Deranged(ShardWorker):
    """Can mask nothing more after one photograph, as after a fault of the GPU."""

    is_deranged = False

    def generate(self, image: ImageRecord, data: bytes) -> Generated:
        self.is_deranged |= image.source == "photos/3.png"
        if self.is_deranged:
            raise RuntimeError("an illegal memory access was encountered")
        return super().generate(image, data)

    def check(self) -> None:
        if self.is_deranged:
            raise ShardFailed("an illegal memory access was encountered")


class Homeless(ShardWorker):
    """Loses its process while it is made."""

    def __init__(self, *args: object) -> None:
        os._exit(8)


class Unwritable(ShardWorker):
    """Cannot write one of the shards."""

    def mask_image(self, plan: Plan, shard: PlannedShard, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        if image.source == "photos/3.png":
            self.dataset = Dataset.open("/dev/null/nowhere")
        return super().mask_image(plan, shard, image, data)


class Wrong(ShardWorker):
    """Raises ValueError over one of the shards."""

    def mask_image(self, plan: Plan, shard: PlannedShard, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        if image.source == "photos/3.png":
            raise ValueError("this shard alone")
        return super().mask_image(plan, shard, image, data)


@pytest.fixture(scope="module", autouse=True)
def ray_on_this_machine() -> Iterator[None]:
    with ray_session(TWO, num_cpus=2, num_gpus=0):  # whatever the machine has
        yield


@pytest.fixture
def photographed(dataset: Dataset, photo_folder: Path) -> Dataset:
    ingest_photos([photo_folder], dataset)
    return dataset


@pytest.fixture
def plan(photographed: Dataset, tiny_model: Path) -> Plan:
    """Eight photographs in four shards."""
    (plan,) = plan_masks(photographed, load_model(tiny_model).identity, CONFIG, images_per_shard=2)
    return plan


def committed_sources(dataset: Dataset, result: PlanResult) -> Counter[str]:
    """How often each photograph was masked or rejected, by the commit records."""
    sources = {
        image.image_id: image.source for shard in dataset.image_shards() for image, _ in dataset.read_images(shard)
    }
    masked = [sources[image.image_id] for commit in result.commits for image, _ in dataset.read_masks(commit)]
    return Counter([*masked, *(reject.source for reject in result.rejects)])


EVERY_PHOTO_ONCE = Counter(f"photos/{number}.png" for number in range(8))


def test_a_plan_is_masked_and_its_progress_told(photographed: Dataset, plan: Plan, tiny_model: Path) -> None:
    told: list[PlanProgress] = []
    result = run_plan(photographed, plan, partial(ShardWorker, tiny_model, CONFIG, photographed.uri), TWO, told.append)
    assert (result.images, result.rejects, result.failed, result.deaths) == (8, (), {}, 0)
    assert (result.new_shards, result.new_images, result.new_masks) == (4, 8, result.masks)
    assert committed_sources(photographed, result) == EVERY_PHOTO_ONCE
    assert (told[0].images, told[0].images_total, told[0].shards_total) == (0, 8, 4)
    assert (told[-1].images, told[-1].shards, told[-1].masks) == (8, 4, result.masks)
    assert [each.images for each in told] == sorted(each.images for each in told)
    again = run_plan(photographed, plan, partial(ShardWorker, tiny_model, CONFIG, photographed.uri), TWO)
    assert again.commits == result.commits
    assert (again.new_shards, again.new_images, again.workers) == (0, 0, 0)


def test_a_worker_that_is_killed_loses_and_doubles_nothing(
    photographed: Dataset, plan: Plan, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def make_worker() -> ShardWorker:
        worker = KilledOnce(tiny_model, CONFIG, photographed.uri)
        worker.tombstone = tmp_path / "tombstone"
        return worker

    result = run_plan(photographed, plan, make_worker, TWO)
    assert (result.deaths, result.failed) == (1, {})
    assert committed_sources(photographed, result) == EVERY_PHOTO_ONCE
    assert result.rejects == ()
    assert photographed.maintenance.verify().faults == ()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("kind", "code"), [(Poisoned, 7), (Deranged, 1)])
def test_a_photograph_that_kills_its_process_becomes_a_reject(
    photographed: Dataset, plan: Plan, tiny_model: Path, kind: type[ShardWorker], code: int
) -> None:
    result = run_plan(photographed, plan, partial(kind, tiny_model, CONFIG, photographed.uri), ONE)
    assert result.failed == {}
    assert committed_sources(photographed, result) == EVERY_PHOTO_ONCE
    (reject,) = result.rejects
    assert (reject.source, reject.reason, reject.stage) == ("photos/3.png", "killed_worker", "fully_automatic")
    assert reject.detail == f"the process that masked it died: exit code {code}"
    assert result.deaths >= 2


def test_a_worker_that_never_lives_blames_no_photograph(photographed: Dataset, tiny_model: Path) -> None:
    (plan,) = plan_masks(photographed, load_model(tiny_model).identity, CONFIG, images_per_shard=8)
    result = run_plan(photographed, plan, partial(Homeless, tiny_model, CONFIG, photographed.uri), ONE)
    assert (result.commits, list(result.failed)) == ((), [plan.shards[0].name])
    assert "a child process died while starting: exit code 8" in result.failed[plan.shards[0].name]


def test_a_shard_that_cannot_be_written_stays_missing_and_the_others_go_on(
    photographed: Dataset, plan: Plan, tiny_model: Path
) -> None:
    result = run_plan(photographed, plan, partial(Unwritable, tiny_model, CONFIG, photographed.uri), ONE)
    assert len(result.failed) == 1
    assert [shard.name for shard in photographed.missing(plan)] == list(result.failed)


def test_a_value_error_of_one_shard_is_that_shards_failure_and_the_others_go_on(
    photographed: Dataset, plan: Plan, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run_plan(photographed, plan, partial(Wrong, tiny_model, CONFIG, photographed.uri), ONE)
    assert list(result.failed.values()) == ["ValueError: this shard alone"]
    assert (result.new_shards, [shard.name for shard in photographed.missing(plan)]) == (3, list(result.failed))
    assert "in mask_image" in caplog.text


def test_the_plan_of_another_config_is_one_clear_error(photographed: Dataset, plan: Plan, tiny_model: Path) -> None:
    other = replace(CONFIG, points_per_side=2)
    with pytest.raises(ValueError, match="this worker was made for"):
        run_plan(photographed, plan, partial(ShardWorker, tiny_model, other, photographed.uri), ONE)


def test_an_unknown_model_is_one_clear_error(photographed: Dataset, plan: Plan) -> None:
    with pytest.raises(ValueError, match="unknown model 'vit_z'"):
        run_plan(photographed, plan, partial(ShardWorker, "vit_z", CONFIG, photographed.uri), ONE)


@pytest.mark.parametrize(("config", "at_most"), [(PoolConfig(threads=4), 0), (PoolConfig(workers=8), 2)])
def test_workers_that_this_machine_has_no_room_for_are_refused(
    photographed: Dataset, plan: Plan, tiny_model: Path, config: PoolConfig, at_most: int
) -> None:
    with pytest.raises(ValueError, match=f"there are 2 cores, .* at most {at_most} workers"):
        run_plan(photographed, plan, partial(ShardWorker, tiny_model, CONFIG, photographed.uri), config)


def test_a_worker_that_a_cluster_has_no_room_for_keeps_nothing_waiting(
    photographed: Dataset, plan: Plan, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "WAITING_PATIENCE_S", 0.0)
    told: list[PlanProgress] = []
    three = PoolConfig(address="auto", workers=3, threads=1)  # of the two cores of the cluster that is there
    make_worker = partial(ShardWorker, tiny_model, CONFIG, photographed.uri)
    result = run_plan(photographed, plan, make_worker, three, told.append)
    assert committed_sources(photographed, result) == EVERY_PHOTO_ONCE
    assert told[-1].waiting_workers >= 1
    assert max(each.workers for each in told) <= 2


class Raising:
    """Stands in for `ray.get`: the errors below take a machine out of memory or a broken cluster."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, _: object) -> NoReturn:
        raise self.error


@pytest.mark.parametrize("error", [OutOfMemoryError("killed by the memory monitor"), RayActorError()])
def test_a_worker_lost_with_its_memory_is_a_death(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    shard = PlannedShard(name="000000")
    ledger, worker = Ledger([shard]), WorkerHandle(lambda: None)
    job = ledger.take(is_idle=True)
    assert job is not None
    worker.has_answered = True
    worker.jobs[ray.put(0)] = job
    monkeypatch.setattr(ray, "get", Raising(error))
    _collect(ledger, [worker], PlanCounter(make_plan("masks", [], {}), [], 0.0))
    assert (ledger.deaths, ledger.waiting, worker.is_up) == (1, 1, False)
    worker._take_status(ray.put(0))  # the question after its counts ends as well
    assert not worker.is_up


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeEnvSetupError("no such image"), "no such image"),
        (ActorUnschedulableError("its node is gone"), "its node is gone"),
    ],
)
def test_workers_that_can_never_start_stop_the_run(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    ledger, worker = Ledger([PlannedShard(name="000000")]), WorkerHandle(lambda: None)
    monkeypatch.setattr(ray, "get", Raising(error))
    with pytest.raises(PlanStopped, match=f"a worker cannot start: .*{message}"):
        worker._take_status(ray.put(0))
    job = ledger.take(is_idle=True)
    assert job is not None
    worker.jobs[ray.put(0)] = job
    with pytest.raises(PlanStopped, match=f"a worker cannot start: .*{message}"):
        _collect(ledger, [worker], PlanCounter(make_plan("masks", [], {}), [], 0.0))


DRIVER = """
import os, signal, sys, time
from functools import partial
from stages.cluster.pool import PoolConfig
from stages.cluster.run import run_plan
from stages.fully_automatic.worker import ShardWorker
from storage.dataset import Dataset
from engine.automatic.config import GenerateConfig

class Slow(ShardWorker):
    def mask_image(self, *args):
        time.sleep(1)
        return super().mask_image(*args)

def die_on_the_way(now):
    if now.shards:
        os.kill(os.getpid(), signal.SIGKILL)

uri, plan_id, model = sys.argv[1:]
dataset = Dataset.open(uri)
make_worker = partial(Slow, model, GenerateConfig(**CONFIG), uri)
run_plan(dataset, dataset.plan(plan_id), make_worker, PoolConfig(workers=1), die_on_the_way)
"""


def test_a_killed_driver_goes_on_when_started_again(photographed: Dataset, plan: Plan, tiny_model: Path) -> None:
    program = DRIVER.replace("CONFIG", repr(asdict(CONFIG)))
    command = [sys.executable, "-c", program, photographed.uri, plan.plan_id, str(tiny_model)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, timeout=120).returncode == -signal.SIGKILL
    left = len(photographed.missing(plan))
    assert 0 < left < 4
    result = run_plan(photographed, plan, partial(ShardWorker, tiny_model, CONFIG, photographed.uri), ONE)
    assert len(result.commits) == 4
    assert 0 < result.new_shards <= left  # the killed driver's worker may have finished what it had in hand
    assert committed_sources(photographed, result) == EVERY_PHOTO_ONCE
