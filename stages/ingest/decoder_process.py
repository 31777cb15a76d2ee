"""Program of a process that reads and decodes photos one after another; `stages/ingest/decoders.py` starts it.

What a hostile file may do is bounded here: memory by RLIMIT_DATA, which is set anew for each photo, time by a timer of
processor time. Where neither helps, because a decoder crashes or never comes back, this process ends and nothing else.

    path, settings       -> read: SHA-256 of the file
    whether to decode it -> needs: bytes of memory, by the header
    bytes of memory      -> photo, prepared (both followed by bytes), unusable or fault
"""

import hashlib
import json
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from PIL import Image

from stages.ingest.files import read_file
from stages.ingest.normalise import Prepared, Unusable, finish, prepare

MAX_CPU_S = 60.0
"""Seconds of processor time that one photo may take; the largest that is taken needs a quarter of it."""
_GRACE_S = 15
"""Seconds after `MAX_CPU_S` at which the kernel ends a process that did not come back from a decoder."""
HEADER_BYTES = 96 * 2**20
"""Memory beside the file for its header and its notes, of which Pillow unpacks at most 64 MiB."""


def main(descriptor: int) -> NoReturn:
    """Answer requests until the other side closes the connection."""
    connection = Connection(descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _raise_too_slow)
    with suppress(OSError):  # the first process killed when memory runs out
        Path("/proc/self/oom_score_adj").write_text("1000")
    warnings.filterwarnings("ignore", module=r"PIL\..*")  # odd metadata, and photos over half of Pillow's pixel limit
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    _send(connection, "ready")
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            _answer(connection, json.loads(connection.recv_bytes()))
    os._exit(0)


class _TooSlow(BaseException):
    """End of the processor time of a photo; no decoder's `except Exception` holds it up."""


def _raise_too_slow(number: int, frame: FrameType | None) -> NoReturn:
    raise _TooSlow


def _answer(connection: Connection, request: Mapping[str, Any]) -> None:
    """Read and decode one photo and send what became of it."""
    try:
        try:
            _limit_time(MAX_CPU_S)
            _limit_memory(2 * request["nbytes"] + HEADER_BYTES)
            _decode(connection, request)
        finally:
            _limit_time(0)
            _limit_memory(None)
    except Unusable as unusable:
        _send(connection, "unusable", reason=unusable.reason, detail=unusable.detail)
    except _TooSlow:
        _send(
            connection, "unusable", reason="too_slow", detail=f"decoding it takes over {MAX_CPU_S:g} s of a processor"
        )
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        _send(connection, "fault", message=message, trace="".join(traceback.format_exception(error)))


def _decode(connection: Connection, request: Mapping[str, Any]) -> None:
    # The file
    data = read_file(Path(os.fsdecode(bytes.fromhex(request["path"]))), request["max_bytes"])
    _send(connection, "read", sha256=hashlib.sha256(data).hexdigest())
    if not json.loads(connection.recv_bytes())["decode"]:
        return

    # The pixels, once the memory for them is free
    def admit(nbytes: int) -> None:
        if nbytes > request["decode_bytes"]:
            needed, most = f"{nbytes / 2**20:.0f} MiB", f"{request['decode_bytes'] / 2**20:.0f} (ingest.decode_bytes)"
            raise Unusable("too_large", f"decoding it takes about {needed} of memory; at most {most} are allowed")
        _send(connection, "needs", nbytes=nbytes)
        allowed = json.loads(connection.recv_bytes())["nbytes"]
        _limit_memory(2 * len(data) + HEADER_BYTES + allowed)

    prepared, mended = prepare(data, **request["settings"], admit=admit)
    if request["conceals"]:
        _send_prepared(connection, prepared, mended)
    else:
        photo = finish(prepared, mended, None)
        _send(connection, "photo", format=photo.format, height=photo.height, width=photo.width)
        connection.send_bytes(photo.data)


def _send_prepared(connection: Connection, prepared: Prepared, data: bytes) -> None:
    """Send pixels for the concealer, which belongs to the other side, and the photo's bytes if these may be stored."""
    pixels = prepared.image.tobytes()
    profile = prepared.profile.hex() if prepared.profile is not None else None
    how = {"as_it_came": prepared.as_it_came, "as_png": prepared.as_png, "profile": profile}
    _send(connection, "prepared", mode=prepared.image.mode, size=prepared.image.size, **how)
    connection.send_bytes(pixels)
    connection.send_bytes(data if prepared.as_it_came else b"")


def _send(connection: Connection, kind: str, **fields: object) -> None:
    connection.send_bytes(json.dumps({"kind": kind, **fields}).encode())


def _limit_time(seconds: float) -> None:
    """Let this process be interrupted after so many seconds of processor time, and soon be ended; 0 for no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + seconds) + _GRACE_S if seconds else hard
    resource.setrlimit(resource.RLIMIT_CPU, (_within(most, hard), hard))


def _limit_memory(nbytes: int | None) -> None:
    """Let this process have so many bytes more than it has now; None for no limit. Enforced on Linux."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = hard
    if nbytes is not None and sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        held_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))
        most = _within(held_kib * 1024 + nbytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _within(most: int, hard: int) -> int:
    return most if hard == resource.RLIM_INFINITY else min(most, hard)
