"""The end of a command: SIGTERM and Ctrl+C give one line and the exit status that shells expect."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from flows.progress import log

MAX_STOP_S = 7.0
"""Longest time that a command has for cleaning up after a signal, in seconds; then it is cut off."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """State of a command between a signal and its end.

    Args:
        line: Last line that the command prints.
    """

    def __init__(self, line: str) -> None:
        self._line = line
        self._lock = threading.Lock()
        self._is_told = False
        self.number = 0
        """Number of the signal that came; 0 before."""
        self.is_raised = False
        """Whether the command is leaving the block."""

    def begin(self, number: int) -> None:
        """Begin to stop because of a signal; whoever handles it raises it again when done."""
        with self._lock:
            if self.number:
                return
            self.number = number
        timer = threading.Timer(MAX_STOP_S, self.cut_off, (128 + number,))
        timer.daemon = True  # else the process would wait for it
        timer.start()

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Leave the block; a second time, the process.

        Raises:
            SystemExit: Always.
        """
        if self.is_raised:
            self.cut_off(128 + number)
        self.is_raised = True
        self.begin(number)
        raise SystemExit(128 + number)

    def leave(self) -> None:
        """Leave the block if a signal has come that somebody else handled.

        Raises:
            SystemExit: A signal has come.
        """
        if self.number:
            self.is_raised = True
            raise SystemExit(128 + self.number)

    def tell(self) -> None:
        """Print the last line, once."""
        with self._lock:
            told, self._is_told = self._is_told, True
        if not told:
            log(self._line)

    def cut_off(self, status: int) -> None:
        """End the process and what it started, whatever they do."""
        self.tell()
        for process in list_descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        os._exit(status)  # at once: Ray's library ends the process with 1 when it sees that its daemon is gone


@contextmanager
def stopping(line: str) -> Iterator[Stopping]:
    """End the block on SIGTERM and Ctrl+C: clean up, print the line, and exit with 143 or 130.

    What takes longer than MAX_STOP_S is cut off, and a second signal cuts it off at once. So is the end of a block in
    which a library has put its own handler in the place of ours, as Prefect does while a flow runs.
    """
    state = Stopping(line)
    before = {number: signal.signal(number, state.handle) for number in SIGNALS}
    try:
        with _watching(state):
            yield state
    except BaseException as error:
        if not state.number or (isinstance(error, SystemExit) and not error.code):  # the command came to its own end
            raise
        state.tell()
        raise SystemExit(128 + state.number) from None
    finally:
        if not state.number:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _watching(state: Stopping) -> Iterator[None]:
    """Begin to stop as soon as a signal comes, whoever handles it: Python writes its number into a pipe.

    At the end of the block the state knows of every signal that has come, also of one that a handler has just raised.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while number := os.read(reading, 1)[0]:
            if number in SIGNALS:
                state.begin(number)

    own = os.getpid()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_forget)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        if os.getpid() == own:  # a forked process has the pipe of its parent and no thread
            os.write(writing, b"\0")  # no signal has this number: what came before is read when the thread ends
            watcher.join()
        os.close(reading)
        os.close(writing)


def _hold() -> None:
    """Let signals wait while this thread forks: those of a child must not reach the pipe of its parent."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _let_go() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _forget() -> None:
    """Give a forked process the handlers that a process begins with."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _let_go()


def list_descendants(ancestor: int) -> list[int]:
    """List the processes that a process started, and those that they started: Ray's, where it was cut off.

    Where the system has no /proc the list is empty.
    """
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [ancestor]
    for each in found:  # which grows
        found += [process for process, parent in parents.items() if parent == each]
    return found[1:]
