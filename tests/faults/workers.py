"""The work that faults hit: real processes, forked from a warm parent, that write real shards and fold them.

A worker can be told to strike itself at its n-th step. A step is a call of its store, a call that changes the disk
(fsync, rename, link, unlink), and the moment between checking a table and changing it: everything between two writes.
"""

import ctypes
import gc
import hashlib
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from storage import rle
from storage.dataset import Dataset
from storage.errors import StoreError
from storage.formats import documents
from storage.objects import probing, s3
from storage.protocol import cleaning, commits, plans, redo
from storage.protocol.commits import Commit
from storage.protocol.inputs import MaskKey, image_inputs, photo_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, Reject, image_id_of, image_key, mask_id_of
from storage.tables import contents, delta, fold_log, folds, query, snapshots
from storage.verification import verify
from tests.faults import truth

Job = Callable[[Any], Any]  # of a Dataset; of None where no dataset was named
STORE_READS = ("get", "get_range", "open", "head", "list", "unfinished")
STORE_WRITES = ("write", "put", "put_file", "put_if_absent", "delete", "remove_unfinished")
DISK_STEPS = ("fsync", "replace", "link", "unlink")
KILL, FREEZE = signal.SIGKILL, signal.SIGSTOP
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
STORE_FAILED, FAILED = 3, 4  # exit codes: a StoreError, which may have been meant; anything else, which never is


# What workers do


def make_image(number: int) -> tuple[ImageRecord, bytes]:
    data = truth.photo(number)
    sha256 = hashlib.sha256(data).hexdigest()
    record = ImageRecord(
        image_id=image_id_of(sha256),
        key=image_key(image_id_of(sha256)),
        height=truth.HEIGHT,
        width=truth.WIDTH,
        format="jpg",
        nbytes=len(data),
        source=f"photo-{number}",
        source_sha256=sha256,
        stored_sha256=sha256,
        license="CC0-1.0",
        country="",
    )
    return record, data


def make_masks(image: ImageRecord, plan: Plan, shard: PlannedShard) -> list[MaskRecord]:
    number = int(image.source.partition("-")[2])
    masks = []
    for ordinal in range(truth.MASKS_PER_IMAGE):
        runs = rle.encode(truth.mask_HW(number, ordinal, int(plan.settings["variant"])))
        masks.append(
            MaskRecord(
                mask_id=mask_id_of(plan.plan_id, shard.name, shard.generation, image.image_id, ordinal),
                image_id=image.image_id,
                rle=runs,
                box_xyxy=rle.box_xyxy(runs),
                area_px=rle.area(runs),
                predicted_iou=0.9,
                stability_score=0.95,
                point_xy=(1.5, 2.5),
                crop_xyxy=(0, 0, image.width, image.height),
                provenance=Provenance(
                    stage="fully_automatic", model_id="m", plan_id=plan.plan_id, config_hash=plan.settings_hash
                ),
            )
        )
    return masks


def renamed(mask: MaskRecord) -> MaskRecord:
    """The same mask under an id of its own."""
    return replace(mask, mask_id=mask.mask_id ^ 1)


def reject(source: str) -> Reject:
    return Reject(source=source, source_sha256="", reason="truncated", detail="ends early", stage="ingest")


def write_images(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit:
    """An image shard as its plan's inputs say; a redo adds the photographs that were bad."""
    inputs = [key.source for key in photo_inputs(dataset.plan(plan.home).shard(shard.name).inputs)]
    bad = [each for each in inputs if each.startswith("bad-")]
    if shard.generation == 0:
        photos = [make_image(int(each.partition("-")[2])) for each in inputs if each not in bad]
        return dataset.write_images(plan, shard, photos, [reject(each) for each in bad])
    before = previous(dataset, plan, shard)
    photos = [] if before.generation else [make_image(int(each.partition("-")[2])) for each in bad]
    return dataset.write_images(plan, shard, photos, inherited=before)


def write_masks(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit:
    """A mask shard as its plan's settings say: all images anew, or those that its forerunner lacks."""
    images = [image for image, _ in dataset.read_images(image_inputs(shard.inputs)[0])]
    inherited, rejects = None, []
    if plan.settings["inherit"]:
        inherited = previous(dataset, plan, shard)
        there = {image.key for image, _ in dataset.read_masks(inherited)}
        images = [image for image in images if image.key not in there]
    else:
        skip = int(plan.settings["skip"])
        rejects, images = [reject(image.source) for image in images[:skip]], images[skip:]
    masked = [(image, make_masks(image, plan, shard)) for image in images]
    return dataset.write_masks(plan, shard, masked, rejects, model_id="m", inherited=inherited)


def previous(dataset: Dataset, plan: Plan, shard: PlannedShard) -> Commit:
    return dataset.previous(plan, shard)


def write_unit(plan_id: str, name: str) -> Job:
    """The job of one planned shard."""

    def work(dataset: Dataset) -> None:
        plan = dataset.plan(plan_id)
        write = write_images if plan.kind == "images" else write_masks
        write(dataset, plan, plan.shard(name))

    return work


def withdraw(pairs: list[tuple[int, int]], reason: str) -> Job:
    return lambda dataset: dataset.withdraw(pairs, reason).address


def fold(dataset: Dataset) -> None:
    dataset.fold()


def clean(dataset: Dataset) -> None:
    dataset.maintenance.clean(delete=True)


def finish(dataset: Dataset) -> None:
    """What the next run does after any crash: every missing shard of every plan, then the tables."""
    for plan in dataset.plans():
        for shard in dataset.missing(plan):
            if plan.kind == "withdrawals":
                pairs = [(each.image_id, each.mask_id) for each in shard.inputs if isinstance(each, MaskKey)]
                try:
                    dataset.withdraw(pairs, str(plan.settings["reason"]))
                except ValueError:  # a redo replaced some of them meanwhile
                    dataset.maintenance.close(plan)
            else:
                write_unit(plan.plan_id, shard.name)(dataset)
    dataset.fold()


# How they are started and struck


@dataclass(frozen=True, kw_only=True)
class Strike:
    """What a worker does to itself. `at`: the step before which it strikes; None: never."""

    at: int | None = None
    signal: int = KILL
    cut_file_at: int | None = None  # bytes; a longer file ends there, and its writer with it
    no_space_after: int | None = None  # bytes; a longer file fails with an error instead
    clock_off_by: timedelta = timedelta(0)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a worker ended. `signal` 0: by itself. `message`: the error, if there was one."""

    signal: int
    code: int
    message: str
    steps: int
    answer: Any


class Worker:
    """A forked process at a job upon the dataset at `uri` ("" for none).

    The parent must have no threads and must never have opened a table.
    """

    def __init__(self, uri: str, job: Job, strike: Strike | None = None) -> None:
        self.log, write_end = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self.log)
                _run(uri, job, strike or Strike(), write_end)
            finally:
                os._exit(FAILED)
        os.close(write_end)
        self.ended: Ended | None = None

    def stop(self) -> None:
        """SIGSTOP, and waits until it holds (or the worker has ended)."""
        os.kill(self.pid, signal.SIGSTOP)
        self.wait_for_stop()

    def wait_for_stop(self) -> bool:
        """Whether it stopped; else it has ended."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._reap(status)
        return False

    def thaw(self) -> None:
        if self.ended is None:
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.ended is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Ended:
        if self.ended is None:
            self._reap(os.waitpid(self.pid, 0)[1])
        assert self.ended is not None
        return self.ended

    def _reap(self, status: int) -> None:
        with os.fdopen(self.log, "rb") as log:
            data = log.read()
        message, steps, answer = pickle.loads(data) if data else ("", 0, None)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
        self.ended = Ended(signal=killed, code=code, message=message, steps=steps, answer=answer)


def end_with_parent() -> None:
    """The kernel ends this process, stopped or not, when its parent ends."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def warm_up() -> None:
    """Loads here what every worker would load first, and keeps the collector from touching, so copying, it there."""
    for schema in ("dataset", "plan", "commit", "fold", "done_fold", "snapshot"):
        documents._validator(schema)
    import deltalake.writer  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    gc.freeze()


def _run(uri: str, job: Job, strike: Strike, log: int) -> None:
    """The child's whole life."""
    code, message, steps, answer = 0, "", _Steps(strike), None
    try:
        end_with_parent()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the Delta library's threads print whole backtraces
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _limit_files(strike)
        if strike.clock_off_by:
            _shift_clock(strike.clock_off_by)
        if uri:
            dataset = Dataset.open(uri)
            steps.install(dataset)
        answer = job(dataset if uri else None)
    except StoreError as error:
        code, message = STORE_FAILED, str(error)
    except BaseException:
        code, message = FAILED, traceback.format_exc()
    steps.strike = Strike()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with os.fdopen(log, "wb") as pipe:
        pickle.dump((message, steps.taken, answer), pipe)
    sys.stdout.flush()
    os._exit(code)


class _Steps:
    """Counts a worker's steps, and strikes before the one it was told."""

    def __init__(self, strike: Strike) -> None:
        self.strike, self.taken = strike, 0

    def step(self) -> None:
        if self.taken == self.strike.at:
            self.taken += 1
            os.kill(os.getpid(), self.strike.signal)
            return
        self.taken += 1

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return call(*args, **kwargs)

        return stepped

    def install(self, dataset: Dataset) -> None:
        dataset.store = SteppedStore(dataset.store, self.step)
        for name in DISK_STEPS:
            setattr(os, name, self.before(getattr(os, name)))
        delta.CommitProperties = self.before(delta.CommitProperties)  # type: ignore[attr-defined, assignment]


class SteppedStore:
    """A store that calls `step` before each of its calls."""

    def __init__(self, store: Any, step: Callable[[], None]) -> None:
        self._store, self._step = store, step

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        if name not in (*STORE_READS, *STORE_WRITES):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            self._step()
            answer = attribute(*args, **kwargs)
            return iter(list(answer)) if isinstance(answer, Iterator) and name in ("list", "unfinished") else answer

        return call


def _limit_files(strike: Strike) -> None:
    """A limit on the size of files: the signal it sends ends a process in the middle of a write, or is an error."""
    limit = strike.cut_file_at if strike.cut_file_at is not None else strike.no_space_after
    if limit is None:
        return
    fatal = strike.cut_file_at is not None
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fatal else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def _shift_clock(offset: timedelta) -> None:
    """This process's clock, as storage reads it, is off by so much."""
    real_time = time.time

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + offset

    time.time = lambda: real_time() + offset.total_seconds()
    for module in (
        commits,
        cleaning,
        contents,
        fold_log,
        folds,
        plans,
        probing,
        query,
        redo,
        s3,
        snapshots,
        verify,
    ):
        if hasattr(module, "datetime"):
            vars(module)["datetime"] = Shifted
