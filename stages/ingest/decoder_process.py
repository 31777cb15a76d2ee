"""Program of a process that reads and decodes photos one after another; `stages/ingest/decoders.py` starts it.

What a hostile file may do is bounded here: memory by RLIMIT_DATA, which is set anew for each photo, time by a timer of
processor time. Where neither helps, because a decoder crashes or never comes back, this process ends and nothing else.

    path, settings       -> read: SHA-256 of the file
    whether to decode it -> needs: bytes of memory, by the header
    bytes of memory      -> photo, prepared (both followed by bytes), unusable or fault

Both limits are lifted before the first byte of a result is sent, and the timer stands still while this process asks.
"""

import hashlib
import json
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from PIL import Image

from stages.ingest.files import read_file
from stages.ingest.normalise import Photo, Prepared, Unusable, finish, out_of_memory, prepare

MAX_CPU_S = 60.0
"""Seconds of processor time that one photo may take; the largest that is taken needs a quarter of it."""
_GRACE_S = 15
"""Seconds after `MAX_CPU_S` at which the kernel ends a process that did not come back from a decoder."""
HEADER_BYTES = 96 * 2**20
"""Memory beside the file for its header and its notes, of which Pillow unpacks at most 64 MiB."""
_STRIP_ROWS = 256
"""Rows of a picture that are sent at a time, so that no second copy of it is held here."""


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
    unusable = partial(_send, connection, "unusable")
    try:
        try:
            _limit_time(MAX_CPU_S)
            _limit_memory(2 * request["nbytes"] + HEADER_BYTES)
            send = _decode(connection, request)
        finally:
            _limit_time(0)
            _limit_memory(None)
    except Unusable as reason:
        send = partial(unusable, reason=reason.reason, detail=reason.detail)
    except MemoryError:
        lacking = out_of_memory(request["nbytes"])
        send = partial(unusable, reason=lacking.reason, detail=lacking.detail)
    except _TooSlow:
        send = partial(unusable, reason="too_slow", detail=f"decoding it takes over {MAX_CPU_S:g} s of a processor")
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        message, trace = f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))
        send = partial(_send, connection, "fault", message=message, trace=trace)
    send()


def _decode(connection: Connection, request: Mapping[str, Any]) -> Callable[[], None]:
    """Read and decode one photo; return the function that sends what became of it."""
    # The file
    data = read_file(Path(os.fsdecode(bytes.fromhex(request["path"]))), request["max_bytes"])
    if not _ask(connection, "read", sha256=hashlib.sha256(data).hexdigest())["decode"]:
        return lambda: None

    # The pixels, once the memory for them is free
    def admit(nbytes: int) -> None:
        if nbytes > request["decode_bytes"]:
            needed, most = f"{nbytes / 2**20:.0f} MiB", f"{request['decode_bytes'] / 2**20:.0f} (ingest.decode_bytes)"
            raise Unusable("too_large", f"decoding it takes about {needed} of memory; at most {most} are allowed")
        allowed = _ask(connection, "needs", nbytes=nbytes)["nbytes"]
        _limit_memory(2 * len(data) + HEADER_BYTES + allowed)

    prepared, mended = prepare(data, **request["settings"], admit=admit)
    if request["conceals"]:
        return partial(_send_prepared, connection, prepared, mended)
    return partial(_send_photo, connection, finish(prepared, mended, None))


def _send_photo(connection: Connection, photo: Photo) -> None:
    _send(connection, "photo", format=photo.format, height=photo.height, width=photo.width)
    connection.send_bytes(photo.data)


def _send_prepared(connection: Connection, prepared: Prepared, data: bytes) -> None:
    """Send pixels for the concealer, which belongs to the other side, and the photo's bytes if these may be stored."""
    image = prepared.image
    profile = prepared.profile.hex() if prepared.profile is not None else None
    how = {"as_it_came": prepared.as_it_came, "as_png": prepared.as_png, "profile": profile}
    _send(connection, "prepared", mode=image.mode, size=image.size, strip_rows=_STRIP_ROWS, **how)
    for top in range(0, image.height, _STRIP_ROWS):
        bottom = min(image.height, top + _STRIP_ROWS)
        connection.send_bytes(image.crop((0, top, image.width, bottom)).tobytes())
    connection.send_bytes(data if prepared.as_it_came else b"")


def _ask(connection: Connection, kind: str, **fields: object) -> dict[str, Any]:
    """Send a question and wait for the answer, without a timer that could end this between the two."""
    left, _ = signal.setitimer(signal.ITIMER_PROF, 0)
    _send(connection, kind, **fields)
    answer: dict[str, Any] = json.loads(connection.recv_bytes())
    signal.setitimer(signal.ITIMER_PROF, left)
    return answer


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
