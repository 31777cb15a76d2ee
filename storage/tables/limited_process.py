"""Program of the process that answers one query under limits; `storage/tables/limits.py` starts it."""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
"""Number of the option of Linux's prctl that sets the signal sent when the parent dies."""
_ALARM_AFTER_S = 5.0
"""Seconds after the time limit at which this process ends itself.

The parent kills it on time; the alarm is for a parent that died on a system without prctl.
"""


@dataclass(frozen=True, kw_only=True)
class _State:
    """Location of the tables of a done fold."""

    folder: str
    versions: Mapping[str, int]


def main() -> None:
    """Read a query from stdin and answer it on stdout, as an Arrow stream.

    On an error, write one line of JSON to stderr and exit with status 3.
    """
    # The request and its limits
    request = json.load(sys.stdin)
    _end_with(request["parent"])
    _limit(request["max_seconds"], request["max_memory_bytes"])

    # Everything large is imported under the limits.
    import pyarrow as pa

    from storage.errors import Corrupt, NotFound, StoreError
    from storage.objects.stores import open_store
    from storage.tables.limits import RAISED
    from storage.tables.query import query

    # The answer, or the error in one line
    kind = ""
    try:
        state = _State(folder=request["folder"], versions=request["versions"])
        answer = query(open_store(request["uri"]), state, request["sql"])
        if answer.nbytes > request["max_answer_bytes"]:
            raise MemoryError
        with pa.ipc.new_stream(sys.stdout.buffer, answer.schema) as writer:
            writer.write_table(answer)
        sys.stdout.buffer.flush()
    except MemoryError as error:
        kind, message = "MemoryError", "its answer has more than a quarter of" if not error.args else "it exceeded"
    except (Corrupt, NotFound, StoreError) as error:
        kind, message = type(error).__name__, str(error)
    except ValueError as error:
        short = isinstance(error.__cause__, MemoryError) or "memory allocation" in str(error).lower()
        kind, message = ("MemoryError", "it exceeded") if short else ("ValueError", str(error))
    except OSError as error:
        kind, message = "StoreError", f"query: its answer could not be written ({error})"
    if kind:
        print(json.dumps({"kind": kind, "message": message}), file=sys.stderr, flush=True)
    os._exit(RAISED if kind else 0)  # the engine's threads need not be waited for


def _end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, however the parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(1)


def _limit(max_seconds: float, max_memory_bytes: int) -> None:
    """Limit time and memory, write no core file, and be the first process killed when memory runs out."""
    signal.setitimer(signal.ITIMER_REAL, max_seconds + _ALARM_AFTER_S)
    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, max_memory_bytes)):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
