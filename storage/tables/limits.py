"""SQL under limits of time and memory: a query in a process of its own, which is killed when it exceeds them.

The engine takes what memory it needs and cannot be stopped from outside, so a cross join of two tables could take the
machine down. The process is a fresh interpreter (the engine's threads forbid fork); it reads its request from stdin,
writes its answer as an Arrow stream to an unnamed file, and ends with whoever started it.
"""

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from storage.errors import Corrupt, NotFound, StoreError
from storage.objects.stores import ObjectStore
from storage.tables.query import TablesState

MIN_MEMORY_BYTES = 512 << 20
"""Smallest memory limit: the interpreter, the engine and its threads need about half of it before the first row."""
ANSWER_FRACTION = 0.25
"""Largest answer, as a fraction of the memory limit; the caller's process holds it on top of that limit."""
RAISED = 3
"""Exit status of the query's process after it wrote its error to stderr."""
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from storage.tables.limited_process import main; main()"
_ERRORS: dict[str, type[Exception]] = {"ValueError": ValueError, "StoreError": StoreError}
_ERRORS |= {"Corrupt": Corrupt, "NotFound": NotFound}


class LimitExceeded(ValueError):
    """Failure of a query that needed more time or memory than `QueryLimits` allow.

    The message names the limit and states how to raise it.
    """


def default_memory_bytes() -> int:
    """Return three quarters of the memory of this machine, or of the container that this process is in."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container, or one without a limit: its file holds "max"
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return max(MIN_MEMORY_BYTES, memory * 3 // 4)


@dataclass(frozen=True, kw_only=True)
class QueryLimits:
    """Maximum time and memory that a query may use."""

    max_seconds: float = 600.0
    """Wall-clock seconds from the start of the query's process to its answer."""
    max_memory_bytes: int = field(default_factory=default_memory_bytes)
    """Bytes of memory of the query's process; its answer may have a quarter of them. Enforced on Linux."""

    def __post_init__(self) -> None:
        if not 0 < self.max_seconds < 10**9:
            raise ValueError(f"max_seconds {self.max_seconds}: expected more than 0 and less than a billion")
        if self.max_memory_bytes < MIN_MEMORY_BYTES:
            raise ValueError(
                f"max_memory {self.max_memory_bytes / 2**30:.3g} GiB: a query needs at least "
                f"{MIN_MEMORY_BYTES / 2**30:.3g} GiB"
            )

    def exceeded_time(self) -> LimitExceeded:
        """Make the error for a query that took too long."""
        return LimitExceeded(
            f"query: not done after {self.max_seconds:g} seconds; ask for less (a condition, fewer rows to join), or "
            "raise the limit: --max-seconds, in Python QueryLimits(max_seconds=...)"
        )

    def exceeded_memory(self, what: str) -> LimitExceeded:
        """Make the error for a query that needed too much memory; `what` precedes "its memory limit" in the message."""
        return LimitExceeded(
            f"query: {what} its memory limit of {self.max_memory_bytes / 2**30:.3g} GiB; ask for less (a condition, "
            "fewer columns, an aggregate), or raise the limit: --max-memory, in Python "
            "QueryLimits(max_memory_bytes=...)"
        )


def query_limited(store: ObjectStore, done: TablesState, sql: str, limits: QueryLimits) -> pa.Table:
    """Answer one SQL statement as `query` does, but in a separate process with limits on time and memory.

    Raises:
        LimitExceeded: The query needed more time or memory than `limits` allow. The class is a ValueError.
        ValueError: The statement is wrong or would not only read.
        StoreError: The tables cannot be read.
    """
    # The request
    request = {
        "parent": os.getpid(),
        "uri": store.uri,
        "folder": done.folder,
        "versions": dict(done.versions),
        "sql": sql,
        "max_seconds": limits.max_seconds,
        "max_memory_bytes": limits.max_memory_bytes,
        "max_answer_bytes": int(limits.max_memory_bytes * ANSWER_FRACTION),
    }

    # The process, which writes its answer to a file
    with tempfile.TemporaryFile() as file:
        try:
            # `run` kills the process when time is up or when this process is interrupted. Ctrl-C in a terminal reaches
            # only this process, because the new one has a session of its own.
            process = subprocess.run(
                [sys.executable, "-P", "-c", _PROGRAM, *sys.path],
                input=json.dumps(request).encode(),
                stdout=file,
                stderr=subprocess.PIPE,
                timeout=limits.max_seconds,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise limits.exceeded_time() from error
        if process.returncode != 0:
            raise _error(process.returncode, process.stderr.decode(errors="replace"), limits)

        # The answer's columns are pages of the file: mapped, not copied, and kept while they are used.
        return pa.ipc.open_stream(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).read_all()


def _error(status: int, written: str, limits: QueryLimits) -> Exception:
    """Make the error for the way in which the query's process ended."""
    lines = written.strip().splitlines() or [""]
    if status == RAISED:
        got = json.loads(lines[-1])
        if got["kind"] == "MemoryError":
            return limits.exceeded_memory(got["message"])
        return _ERRORS.get(got["kind"], StoreError)(got["message"])
    if status == -signal.SIGALRM:
        return limits.exceeded_time()
    # At the memory limit the engine's allocator aborts and its threads panic, each with a message of its own.
    if "memory allocation of" in written or "Cannot allocate memory" in written or "MemoryError" in written:
        return limits.exceeded_memory("it exceeded")
    if status == -signal.SIGKILL:
        return LimitExceeded(
            "query: the system killed its process, probably because the machine ran out of memory; ask for less, or "
            "lower --max-memory to leave room for other programs"
        )
    if "overflowed its stack" in written or status == -signal.SIGSEGV:
        return ValueError("SQL: the statement is nested too deeply for the engine; split it")
    return StoreError(f"query: its process ended with status {status} ({lines[-1].strip() or 'no message'})")
