"""The end of a command that serves: SIGTERM and Ctrl+C give one line and the exit status that shells expect."""

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


class Stopping:
    """State of a command between a signal and its end.

    Args:
        line: Last line that the command prints.
    """

    def __init__(self, line: str) -> None:
        self._line = line
        self._begun, self.is_raised = False, False

    def begin(self, number: int) -> None:
        """Begin to stop because of a signal; whoever handles it raises it again when done."""
        if not self._begun:
            self._begun = True
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

    def cut_off(self, status: int) -> None:
        """End the process and what it started, whatever they do."""
        for process in _descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        log(self._line)
        os._exit(status)


@contextmanager
def stopping(line: str) -> Iterator[Stopping]:
    """End the block on SIGTERM and Ctrl+C: clean up, print the line, and exit with 143 or 130.

    What takes longer than MAX_STOP_S is cut off, and a second signal cuts it off at once.
    """
    state = Stopping(line)
    before = {number: signal.signal(number, state.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield state
    except SystemExit:
        if state.is_raised:
            log(line)
        raise
    finally:
        if not state.is_raised:
            for number, handler in before.items():
                signal.signal(number, handler)


def _descendants(ancestor: int) -> list[int]:
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
