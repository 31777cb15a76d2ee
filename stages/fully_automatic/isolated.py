"""A mask shard made in child processes, for one that killed its worker: the photograph at fault becomes a reject.

The child holds the model and is handed one photograph at a time. When it dies, or hangs in native code, the
photograph it had is the culprit; a new child takes the rest.
"""

import multiprocessing
import pickle
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from stages.fully_automatic.outcomes import (
    MaskedImage,
    ShardResult,
    committed,
    read_photographs,
    reject,
    result_of,
    write_outcomes,
)
from stages.fully_automatic.worker import ShardFailed, ShardWorker
from storage.dataset import Dataset
from storage.records import ImageRecord, Reject

PHOTOGRAPH_LIMIT_S = 7200.0
"""For one photograph. The slowest, vit_h with the paper's 21 crops on one core, may need an hour (an estimate)."""
START_LIMIT_S = 1800.0
"""For a child to load its model, from a slow disk too, and to mask a picture it knows."""


def run_isolated(
    make_worker: bytes,
    dataset: Dataset,
    plan_id: str,
    shard_name: str,
    on_image: Callable[[MaskedImage | Reject], None] | None = None,
) -> ShardResult:
    """`ShardWorker.run` with the work in child processes. `make_worker`: a pickled function that makes the worker.

    Raises ShardFailed where a child dies or hangs before its first photograph: then no photograph is at fault.
    """
    began = time.perf_counter()
    plan = dataset.plan(plan_id)
    shard = plan.shard(shard_name)
    done = committed(dataset, plan, shard)
    if done:
        return result_of(done, made=False)
    outcomes: list[MaskedImage | Reject] = []
    child: _Child | None = None
    try:
        for image, data in read_photographs(dataset, plan, shard):
            child = child or _Child(make_worker, plan_id, shard_name)
            outcome = child.mask(image, data)
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
    """A process with a worker in it, at the other end of a pipe."""

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
            raise ShardFailed(f"shard {shard_name}: a child process died while starting: {self.epitaph()}") from error

    def mask(self, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        """Mask an image in the child.

        Afterwards the child `is_gone` where the image killed or hung it, or left it unable to mask anything.
        """
        try:
            self._pipe.send((image, data))
            if self._pipe.poll(PHOTOGRAPH_LIMIT_S):
                answer: MaskedImage | Reject = self._pipe.recv()
                return answer
        except (EOFError, ConnectionError):
            self.is_gone = True
            return reject(image, "killed_worker", f"the process that masked it died: {self.epitaph()}")
        self._kill()
        return reject(image, "timed_out", f"not masked after {PHOTOGRAPH_LIMIT_S:.0f} s; its process was killed")

    def epitaph(self) -> str:
        """How the process ended."""
        self._process.join(timeout=60)
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def _kill(self) -> None:
        self.is_gone = True
        self._process.kill()
        self._process.join(timeout=60)
        self._pipe.close()

    def end(self) -> None:
        self._pipe.close()
        self._process.join(timeout=10)
        self._process.kill()


def _serve(pipe: Connection, make_worker: bytes, plan_id: str, shard_name: str) -> None:
    """The child's life: make the worker, then a photograph in, its outcome out, until the pipe is closed."""
    worker: ShardWorker = pickle.loads(make_worker)()
    plan = worker.plan(plan_id)
    shard = plan.shard(shard_name)
    worker.check()  # if this kills the process, no photograph is blamed
    pipe.send("ready")
    while True:
        try:
            image, data = pipe.recv()
        except EOFError:
            return
        pipe.send(worker.mask(plan, shard, image, data))
