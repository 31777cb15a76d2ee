"""The program of a query's own process: see `storage/tables/limits.py`, which starts it."""

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

_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_ALARM_AFTER_S = 5.0  # whoever started it kills it on time; this is for when that one is gone where there is no prctl


@dataclass(frozen=True, kw_only=True)
class _State:
    """The tables of a done fold."""

    folder: str
    versions: Mapping[str, int]


def main() -> None:
    """Answer the request on stdin: an Arrow stream on stdout, or one line of JSON on stderr and exit status 3."""
    request = json.load(sys.stdin)
    _end_with(request["parent"])
    _limit(request["max_seconds"], request["max_memory_bytes"])

    # Everything large is imported under the limits.
    import pyarrow as pa

    from storage.errors import Corrupt, NotFound, StoreError
    from storage.objects.stores import open_store
    from storage.tables.limits import RAISED
    from storage.tables.query import query

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
    if os.getppid() != parent:  # it died before
        os._exit(1)


def _limit(max_seconds: float, max_memory_bytes: int) -> None:
    """Bound time and memory, leave no core file, and be the first to go where the machine's memory ends."""
    signal.setitimer(signal.ITIMER_REAL, max_seconds + _ALARM_AFTER_S)
    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, max_memory_bytes)):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
