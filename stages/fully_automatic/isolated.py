"""Masking of a shard in child processes, for a shard that killed its worker twice: the image at fault becomes a reject.

The child process holds the model and gets one image at a time. If the child dies, or hangs in native code, the image it
got last is at fault. A new child masks the other images.
"""

import multiprocessing
import pickle
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from stages.fully_automatic.outcomes import (
    PROGRAM_ERRORS,
    MaskedImage,
    ShardResult,
    find_commit,
    read_images,
    reject_image,
    write_outcomes,
)
from stages.fully_automatic.worker import ShardFailed, ShardWorker
from storage.dataset import Dataset
from storage.records import ImageRecord, Reject

IMAGE_LIMIT_S = 7200.0
"""Maximum time for one image. The slowest, vit_h with the paper's 21 crops on one core, may need an hour (estimate)."""
START_LIMIT_S = 1800.0
"""Maximum time for a child process to load its model, even from a slow disk, and to mask a known image."""


def mask_shard_isolated(
    make_worker: bytes,
    dataset: Dataset,
    plan_id: str,
    shard_name: str,
    on_image: Callable[[MaskedImage | Reject], None] | None = None,
) -> ShardResult:
    """Mask and commit one shard as `ShardWorker.mask_shard` does, but in child processes.

    `make_worker` is a pickled function that makes the worker. `on_image` is called with each image's outcome.

    Raises:
        ShardFailed: A child process died or hung before its first image, so that no image is at fault.
        PROGRAM_ERRORS: A fault of this program, which no image may be blamed for.
    """
    began = time.perf_counter()
    plan = dataset.plan(plan_id)
    shard = plan.shard(shard_name)
    done = find_commit(dataset, plan, shard)
    if done:
        return ShardResult.from_commit(done, is_new=False)

    # Mask image by image; a child that is gone is replaced for the next one
    outcomes: list[MaskedImage | Reject] = []
    child: _Child | None = None
    try:
        for image, data in read_images(dataset, plan, shard):
            child = child or _Child(make_worker, plan_id, shard_name)
            outcome = child.mask_image(image, data)
            if child.is_gone:
                child = None
            outcomes.append(outcome)
            if on_image:
                on_image(outcome)
    finally:
        if child:
            child.end()

    return write_outcomes(dataset, plan, shard, outcomes, seconds=time.perf_counter() - began)


class _Child:
    """Child process that holds a worker and answers through a pipe."""

    def __init__(self, make_worker: bytes, plan_id: str, shard_name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(other_end, make_worker, plan_id, shard_name), daemon=True, name="isolated-worker"
        )
        self._process.start()
        other_end.close()
        self.is_gone = False
        try:
            if not self._pipe.poll(START_LIMIT_S):
                self._kill()
                raise ShardFailed(f"shard {shard_name}: a child process was not ready after {START_LIMIT_S:.0f} s")
            self._pipe.recv()  # ready
        except EOFError as error:
            how = self._describe_exit()
            raise ShardFailed(f"shard {shard_name}: a child process died while starting: {how}") from error

    def mask_image(self, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        """Mask one image.

        Afterwards `is_gone` is true if the image killed the child process, hung it or left it unable to mask.

        Raises:
            PROGRAM_ERRORS: A fault of this program; the note of the error has its traceback in the child process.
        """
        try:
            self._pipe.send((image, data))
            if self._pipe.poll(IMAGE_LIMIT_S):
                outcome: MaskedImage | Reject | Exception = self._pipe.recv()
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
        except (EOFError, ConnectionError):
            self.is_gone = True
            return reject_image(image, "killed_worker", f"the process that masked it died: {self._describe_exit()}")
        self._kill()
        return reject_image(image, "timed_out", f"not masked after {IMAGE_LIMIT_S:.0f} s; its process was killed")

    def end(self) -> None:
        """Close the pipe, which ends the child process; kill the process if it has not ended after 10 s."""
        self._pipe.close()
        self._process.join(timeout=10)
        self._process.kill()

    def _describe_exit(self) -> str:
        self._process.join(timeout=60)
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def _kill(self) -> None:
        self.is_gone = True
        self._process.kill()
        self._process.join(timeout=60)
        self._pipe.close()


def _serve(pipe: Connection, make_worker: bytes, plan_id: str, shard_name: str) -> None:
    """Run in the child process: make the worker, then take images and send their outcomes until the pipe is closed."""
    worker: ShardWorker = pickle.loads(make_worker)()
    plan = worker.open_plan(plan_id)
    shard = plan.shard(shard_name)
    worker.check()  # if this kills the process, no image is at fault
    pipe.send("ready")
    while True:
        try:
            image, data = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(worker.mask_image(plan, shard, image, data))
        except PROGRAM_ERRORS as error:
            error.add_note(traceback.format_exc())
            pipe.send(error)
