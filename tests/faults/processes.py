"""Real processes, forked from a warm parent, and how they are struck.

A worker can be told to strike itself at its n-th step. A step is a call of its store, a call that changes the disk
(fsync, rename, link, unlink), and the moment between checking a table and changing it: everything between two writes.
"""

import ctypes
import gc
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from storage.dataset import Dataset
from storage.errors import StoreError
from storage.formats import documents
from storage.objects import probing, s3
from storage.protocol import cleaning, commits, plans, redo
from storage.tables import contents, delta, fold_log, folds, query, snapshots
from storage.verification import verify
from tests.faults.lost_replies import LostReply, Puts

Job = Callable[[Any], Any]  # of a Dataset; of None where no dataset was named
COMPACTION_EVERY = 6
"""Folds from one compaction to the next."""
STORE_READS = ("get", "get_range", "open", "head", "list", "unfinished")
STORE_WRITES = (
    *("write", "put", "put_file", "put_if_absent", "overwrite_with_zeros"),
    *("delete", "remove_unfinished"),
)
DISK_STEPS = ("fsync", "replace", "link", "unlink")
KILL, FREEZE = signal.SIGKILL, signal.SIGSTOP
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
STORE_FAILED, FAILED = 3, 4  # exit codes: a StoreError, which may have been meant; anything else, which never is


@dataclass(frozen=True, kw_only=True)
class Strike:
    """What a worker does to itself. `at`: the step before which it strikes; None: never."""

    at: int | None = None
    signal: int = KILL
    cut_file_at: int | None = None  # bytes; a longer file ends there, and its writer with it
    no_space_after: int | None = None  # bytes; a longer file fails with an error instead
    clock_off_by: timedelta = timedelta(0)
    lost_reply: LostReply | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a worker ended. `signal` 0: by itself. `message`: the error, if there was one."""

    signal: int
    code: int
    message: str
    steps: int
    puts: list[str]
    """Keys or table names that it has put, in order."""
    answer: Any


class Worker:
    """A forked process at a job upon the dataset at `uri` ("" for none; `root`: where the job makes one).

    `more_steps`: has further steps counted, those that are not steps of the dataset at `uri`. The parent must have no
    threads and must never have opened a table.
    """

    def __init__(
        self,
        uri: str,
        job: Job,
        strike: Strike | None = None,
        *,
        root: str | os.PathLike[str] = "",
        more_steps: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self.log, write_end = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self.log)
                _run(uri, job, strike or Strike(), Puts(root or uri), write_end, more_steps)
            finally:
                os._exit(FAILED)
        os.close(write_end)
        self._said: bytes | None = None
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

    def ends_within(self, seconds: float) -> bool:
        """Whether it has ended by then; it may be standing still."""
        until = time.monotonic() + seconds
        while self.ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._reap(status)
            elif time.monotonic() > until:
                return False
            else:
                time.sleep(0.005)
        return True

    def thaw(self) -> None:
        if self.ended is None:
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.ended is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Ended:
        if self.ended is None:
            self._read()  # before it has ended: a long answer does not fit into the pipe
            self._reap(os.waitpid(self.pid, 0)[1])
        assert self.ended is not None
        return self.ended

    def _read(self) -> None:
        with os.fdopen(self.log, "rb") as log:
            self._said = log.read()

    def _reap(self, status: int) -> None:
        if self._said is None:
            self._read()
        message, steps, puts, answer = pickle.loads(self._said) if self._said else ("", 0, [], None)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
        self.ended = Ended(signal=killed, code=code, message=message, steps=steps, puts=puts, answer=answer)


def end_with_parent() -> None:
    """The kernel ends this process, stopped or not, when its parent ends."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def warm_up() -> None:
    """Loads here what every worker would load first, and keeps the collector from touching, so copying, it there.

    From now on small folds are compacted after a few, not after 64, and `verify` starts two threads, not 16.
    """
    folds._COMPACTION_EVERY = COMPACTION_EVERY
    verify._THREADS = 2
    for schema in ("dataset", "plan", "commit", "fold", "done_fold", "snapshot"):
        documents._validator(schema)
    import deltalake.writer  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    gc.freeze()


def _run(
    uri: str,
    job: Job,
    strike: Strike,
    puts: Puts,
    log: int,
    more_steps: Callable[[Callable[[], None]], None] | None,
) -> None:
    """The child's whole life."""
    code, message, steps, answer = 0, "", _Steps(strike), None
    try:
        end_with_parent()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the Delta library's threads print whole backtraces
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _limit_files(strike)
        if strike.clock_off_by:
            _shift_clock(strike.clock_off_by)
        if strike.lost_reply:
            puts.install(strike.lost_reply)
        if uri:
            dataset = Dataset.open(uri)
            steps.install(dataset)
        if more_steps:
            more_steps(steps.step)
        answer = job(dataset if uri else None)
    except StoreError as error:
        code, message = STORE_FAILED, str(error)
    except BaseException:
        code, message = FAILED, traceback.format_exc()
    steps.strike = Strike()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with os.fdopen(log, "wb") as pipe:
        pickle.dump((message, steps.taken, puts.done, answer), pipe)
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
    """A store that calls `step` before each of its calls, or before those named."""

    def __init__(
        self, store: Any, step: Callable[[], None], calls: Sequence[str] = (*STORE_READS, *STORE_WRITES)
    ) -> None:
        self._store, self._step, self._calls = store, step, calls

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        if name not in self._calls:
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
