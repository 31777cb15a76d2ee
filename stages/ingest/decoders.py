"""Decoders: processes of their own that read and decode photos, so that no photo can end an ingest or take its memory.

A photo that ends its decoder becomes a reject, and the next photo gets a new decoder. All decoders together hold at
most `shard_bytes` of files and `decode_bytes` of pixels: each photo waits until what its header announces is free.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from stages.ingest.config import IngestConfig
from stages.ingest.files import check_file
from stages.ingest.normalise import Photo, Prepared, Unusable, finish
from stages.ingest.privacy import Concealer

MAX_WALL_S = 600.0
"""Seconds of silence after which a decoder is ended: its disk does not answer, or the machine stands still."""
MAX_END_S = 5.0
"""Seconds that a process may take to end after it closed its connection or was killed."""
_TRIES = 2
"""Number of decoders that a photo may end before it is rejected: the first may have been ended by somebody else."""
_PROGRAM = (
    "import sys; number = int(sys.argv[1]); sys.path[:] = sys.argv[2:]; "
    "from stages.ingest.decoder_process import main; main(number)"
)


class DecoderFault(Exception):
    """Mistake of this program inside a decoder, or decoders that cannot be started or that somebody kills.

    No photo is to blame. The shard fails, and another call tries it again.
    """


@dataclass(frozen=True, kw_only=True)
class DecodedFile:
    """Result of reading and decoding one photo file."""

    sha256: str
    """SHA-256 of the file; "" for a file that could not be read."""
    outcome: Photo | Unusable | None
    """Photo, or the reason why there is none; None where the photo was not wanted."""


class Decoders:
    """Decoder processes of one ingest; any thread may call `decode`, which starts a process if none is idle."""

    def __init__(self, config: IngestConfig, concealer: Concealer | None) -> None:
        self._config = config
        self._concealer = concealer
        self._files = _Budget(config.shard_bytes)
        self._pixels = _Budget(config.decode_bytes)
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []

    def decode(self, path: Path, is_wanted: Callable[[str], bool]) -> DecodedFile:
        """Read a file and decode it, if `is_wanted` says so of its SHA-256.

        A photo that needs more memory than its header announced is tried again with all that there is, and so is one
        whose decoder was killed, because the system kills decoders first when memory runs out.

        Raises:
            DecoderFault: This program made a mistake, or no decoder can be started, or the decoders were killed.
        """
        try:
            nbytes = check_file(path, self._config.shard_bytes)
        except Unusable as reason:
            return DecodedFile(sha256="", outcome=reason)
        deaths = 0
        takes_all_memory = False
        with self._files.hold(nbytes):
            while True:
                try:
                    decoded = self._try(path, nbytes, is_wanted, takes_all_memory)
                except _Death as death:
                    deaths += 1
                    if deaths < _TRIES and death.may_be_chance:
                        takes_all_memory = takes_all_memory or isinstance(death.why, DecoderFault)
                        continue
                    if isinstance(death.why, DecoderFault):
                        raise death.why from None
                    return DecodedFile(sha256=death.sha256, outcome=death.why)
                if takes_all_memory or not _lacks_memory(decoded):
                    return decoded
                takes_all_memory = True

    def close(self) -> None:
        """End the decoders."""
        with self._lock:
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.end()

    def _try(self, path: Path, nbytes: int, is_wanted: Callable[[str], bool], takes_all_memory: bool) -> DecodedFile:
        """Have a photo decoded once; a decoder in the middle of which anything went wrong is not used again."""
        with self._lock:
            decoder = self._idle.pop() if self._idle else None
        decoder = decoder or _Decoder()
        try:
            decoded = self._converse(decoder, path, nbytes, is_wanted, takes_all_memory)
        except BaseException:
            decoder.kill()
            raise
        if isinstance(decoded.outcome, Unusable) and decoded.outcome.reason == "too_slow":
            decoder.kill()
            return decoded
        with self._lock:
            self._idle.append(decoder)
        return decoded

    def _converse(
        self, decoder: "_Decoder", path: Path, nbytes: int, is_wanted: Callable[[str], bool], takes_all_memory: bool
    ) -> DecodedFile:
        """Ask a decoder for a photo and answer its questions, which decoder_process.py lists."""
        answer = decoder.ask(self._request(path, nbytes))
        sha256 = ""
        if answer["kind"] == "read":
            sha256 = decoder.sha256 = answer["sha256"]
            if not is_wanted(sha256):
                decoder.tell({"decode": False})
                return DecodedFile(sha256=sha256, outcome=None)
            answer = decoder.ask({"decode": True})
        outcome: Photo | None = None
        while answer["kind"] == "needs":  # a second time for a photo that has to be mended
            needed = self._pixels.total if takes_all_memory else answer["nbytes"]
            with self._pixels.hold(needed):
                answer = decoder.ask({"nbytes": needed})
                outcome = self._received(decoder, answer)
        if answer["kind"] == "fault":
            fault = DecoderFault(answer["message"])
            fault.add_note(f"in a decoder, over {path}:\n{answer['trace']}")
            raise fault
        return DecodedFile(sha256=sha256, outcome=outcome or Unusable(answer["reason"], answer["detail"]))

    def _request(self, path: Path, nbytes: int) -> dict[str, object]:
        config = self._config
        return {
            "path": os.fsencode(path).hex(),
            "nbytes": nbytes,
            "max_bytes": config.shard_bytes,
            "decode_bytes": config.decode_bytes,
            "conceals": self._concealer is not None,
            "settings": {
                "shortest_side_px": config.shortest_side_px,
                "min_side_px": config.min_side_px,
                "max_pixels": config.max_pixels,
                "takes_unended_jpegs": config.takes_unended_jpegs,
            },
        }

    def _received(self, decoder: "_Decoder", answer: dict[str, Any]) -> Photo | None:
        """Return the photo that an answer announces; None for an answer of another kind."""
        if answer["kind"] == "photo":
            size = {"height": answer["height"], "width": answer["width"]}
            return Photo(data=decoder.receive(), format=answer["format"], **size)
        if answer["kind"] == "prepared":
            image = Image.new(answer["mode"], tuple(answer["size"]))
            for top in range(0, image.height, answer["strip_rows"]):
                strip_size = (image.width, min(image.height - top, answer["strip_rows"]))
                image.paste(Image.frombytes(image.mode, strip_size, decoder.receive()), (0, top))
            profile = answer["profile"]
            prepared = Prepared(
                image=image,
                as_it_came=answer["as_it_came"],
                as_png=answer["as_png"],
                profile=None if profile is None else bytes.fromhex(profile),
            )
            return finish(prepared, decoder.receive(), self._concealer)
        return None


class _Death(Exception):
    """End of a decoder in the middle of a photo."""

    def __init__(self, why: Unusable | DecoderFault, sha256: str, *, may_be_chance: bool) -> None:
        super().__init__(str(why))
        self.why = why
        """Reason to reject the photo, or the fault of the moment that was not its own."""
        self.sha256 = sha256
        """SHA-256 of the file; "" if it was not read yet."""
        self.may_be_chance = may_be_chance
        """Whether another decoder may live."""


class _Decoder:
    """One decoder process and the connection to it."""

    def __init__(self) -> None:
        self.sha256 = ""
        """SHA-256 of the file at hand, as far as it is known."""
        try:
            self._start()
        except OSError as error:
            raise DecoderFault(f"a decoder could not be started: {error}") from error

    def _start(self) -> None:
        """Start the process and wait until it is ready."""
        ours, theirs = socket.socketpair()
        with ours, theirs, tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C in a terminal reaches the ingest alone, which ends it
            )
            self._connection = Connection(ours.detach())
            theirs.close()
            try:
                self._answer()
            except _Death as death:
                self.kill()
                errors.seek(0)
                written = errors.read().decode(errors="replace").strip().splitlines() or ["it ended without a message"]
                raise DecoderFault(f"a decoder could not be started: {written[-1]}") from death

    def ask(self, question: dict[str, object]) -> dict[str, Any]:
        """Send a message and wait for the answer.

        Raises:
            _Death: The process ended, or does not answer.
        """
        self.tell(question)
        return self._answer()

    def tell(self, message: dict[str, object]) -> None:
        """Send a message."""
        if "path" in message:
            self.sha256 = ""
        with suppress(BrokenPipeError, ConnectionResetError):  # the answer that does not come tells it
            self._connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> bytes:
        """Wait for the bytes that an answer announced.

        Raises:
            _Death: The process ended, or sends nothing.
        """
        try:
            if self._connection.poll(MAX_WALL_S):
                return self._connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            raise self._death() from None
        self.kill()
        slow = Unusable("too_slow", f"its disk or its decoder did not answer for {MAX_WALL_S:.0f} s")
        raise _Death(slow, self.sha256, may_be_chance=False)

    def end(self) -> None:
        """Let the process end, as it does without a connection."""
        self._connection.close()
        if self._status() is None:
            self.kill()

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        self._status()
        self._connection.close()

    def _answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.receive())
        return answer

    def _death(self) -> _Death:
        """Make the error for the way in which the process ended."""
        status = self._status()
        if status is None or status == -signal.SIGKILL:
            how = "does not end" if status is None else "was killed, perhaps by the system, out of memory"
            advice = "run the same command again, with more memory, or with smaller ingest.decode_bytes"
            return _Death(DecoderFault(f"a decoder {how}; {advice}"), self.sha256, may_be_chance=True)
        if status == -signal.SIGXCPU:
            why = Unusable("too_slow", "its decoder did not come back and was ended at its limit of processor time")
            return _Death(why, self.sha256, may_be_chance=False)
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        why = Unusable("crashed", f"{_TRIES} processes ended while they decoded it, the last one with {name}")
        return _Death(why, self.sha256, may_be_chance=True)

    def _status(self) -> int | None:
        """Wait for the end of the process; return None if it is stuck, as over a disk that does not answer."""
        try:
            return self._process.wait(MAX_END_S)
        except subprocess.TimeoutExpired:
            return None


class _Budget:
    """Bytes that several threads share; who asks for more than there is gets all of it."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, nbytes: int) -> Iterator[None]:
        """Wait until so many bytes are free, and hold them."""
        held = min(nbytes, self.total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        finally:
            with self._changed:
                self._free += held
                self._changed.notify_all()


def _lacks_memory(decoded: DecodedFile) -> bool:
    return isinstance(decoded.outcome, Unusable) and decoded.outcome.reason == "out_of_memory"
