"""Progress on stderr: a live bar on a terminal, a line every few seconds elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from flows.words import duration

FIRST_LINE_S = 5.0
"""Time after which work prints its first progress line, in seconds."""
LINE_EVERY_S = 10.0
"""Time between two progress lines where there is no terminal, in seconds."""
WORKERS_SHOWN = 4
"""Maximum number of workers shown one by one; for more workers, the range of rates and the slowest are shown."""


@dataclass(frozen=True, kw_only=True)
class WorkerCounts:
    """Work that one worker of a stage has done in this run."""

    place: str
    """Host and process id of the worker, such as node7:4711."""
    images: int
    images_per_s: float


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Progress of one stage: how much is planned and how much is done."""

    done: int
    total: int
    new: int
    """Number of images done by this run; rates and the time left are computed from these alone."""
    masks: int = 0
    new_masks: int = 0
    rejects: int = 0
    workers: Sequence[WorkerCounts] = ()


class LineClock:
    """Clock that says when the next line of progress is due."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._due = self._began + FIRST_LINE_S

    @property
    def passed_s(self) -> float:
        """Time since the work began, in seconds."""
        return time.monotonic() - self._began

    def is_due(self) -> bool:
        """Tell whether a line is due; the next one is due some seconds later."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + LINE_EVERY_S
        return True


class Reporter:
    """Display of the progress of a stage, as a bar or as lines. Its rates are means since the stage began."""

    def __init__(self, stage: str, console: Console, bar: Progress | None) -> None:
        self._stage = stage
        self._console = console
        self._bar = bar
        self._task = bar.add_task(stage, total=None, facts="") if bar else None
        self._clock = LineClock()
        self._last: Counts | None = None

    def __call__(self, counts: Counts) -> None:
        """Show the given counts, on the bar or as a line."""
        self._last = counts
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=counts.done, total=counts.total or None, facts=self._facts(counts))
        elif self._clock.is_due():
            self._print_line(counts)

    def close(self) -> None:
        """Remove the bar; without a bar, print the last line."""
        if self._last is not None and self._bar is None:
            self._print_line(self._last)

    def _print_line(self, counts: Counts) -> None:
        self._console.print(
            ", ".join(filter(None, [f"{self._stage}: {counts.done}/{counts.total} images", self._facts(counts)])),
            highlight=False,
            soft_wrap=True,
        )

    def _facts(self, counts: Counts) -> str:
        elapsed_s = max(self._clock.passed_s, 1e-6)
        facts = [f"{counts.new / elapsed_s:.2f} images/s"] if counts.new else []
        if counts.masks:
            rate = f" ({counts.new_masks / elapsed_s:.1f}/s)" if counts.new_masks else ""
            facts.append(f"{counts.masks} masks{rate}")
        if counts.rejects:
            facts.append(f"{counts.rejects} rejected")
        if counts.new and counts.done < counts.total:
            facts.append(f"{duration(elapsed_s / counts.new * (counts.total - counts.done))} left")
        if counts.workers:
            facts.append(_workers(counts.workers))  # last: a narrow terminal cuts the end off
        return ", ".join(facts)


@contextmanager
def reporter(stage: str) -> Iterator[Reporter]:
    """Open a Reporter for one stage and close it afterwards; a bar is shown only on a terminal."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        plain = Reporter(stage, console, None)
        try:
            yield plain
        finally:
            plain.close()
        return
    columns = (
        TextColumn("{task.description:<7}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield Reporter(stage, console, bar)


def print_lines(title: str, unit: str = "images") -> Callable[[int, int], None]:
    """Make a function that prints how many images are done of how many, and the time left, every few seconds."""
    clock = LineClock()

    def show(done: int, total: int) -> None:
        if clock.is_due():
            log(f"{title}: {done}/{total} {unit}{time_left(clock.passed_s, done, total)}")

    return show


def print_phases(title: str) -> Callable[[int, int, str], None]:
    """Make a function that prints how much is done of how much in which unit, and the time left, every few seconds.

    The time left is that of the phase, which a unit stands for.
    A phase begins anew where its unit's count is 0 or falls.
    """
    clock, began_s, before = LineClock(), dict[str, float](), dict[str, int]()

    def show(done: int, total: int, unit: str) -> None:
        if unit not in began_s or done == 0 or done < before[unit]:
            began_s[unit] = clock.passed_s
        before[unit] = done
        if clock.is_due():
            log(f"{title}: {done}/{total} {unit}{time_left(clock.passed_s - began_s[unit], done, total)}")

    return show


@contextmanager
def print_waiting(title: str, most_s: float) -> Iterator[None]:
    """Print every few seconds of the block how long it has lasted; nobody knows how long the rest takes.

    Args:
        title: Beginning of the lines.
        most_s: Time after which the work is given up, in seconds.
    """
    ended = threading.Event()

    def wait() -> None:
        clock = LineClock()
        while not ended.wait(1.0):
            if clock.is_due():
                most_left_s = max(0.0, most_s - clock.passed_s)
                log(f"{title}: at work for {duration(clock.passed_s)}, at most {duration(most_left_s)} left")

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def time_left(seconds: float, done: int, total: int) -> str:
    """Write how long the rest takes at the rate so far, for the end of a line; empty before and after the work."""
    return f", {duration(seconds / done * (total - done))} left" if 0 < done < total else ""


def log(text: str) -> None:
    """Print one line on stderr, for the person at the terminal; where nobody reads any more, the work goes on."""
    with suppress(BrokenPipeError):  # the scheduler that started this process was killed
        print(text, file=sys.stderr, flush=True)


def _workers(workers: Sequence[WorkerCounts]) -> str:
    """Format the rate of each worker, or the range of rates of many workers."""
    by_rate = sorted(workers, key=lambda worker: worker.images_per_s)
    slowest, fastest = by_rate[0], by_rate[-1]
    if len(workers) <= WORKERS_SHOWN:
        named = f"{len(workers)} {'worker' if len(workers) == 1 else 'workers'}"
        rates = " + ".join(f"{worker.images_per_s:.2f}" for worker in workers)
        return f"{named}: {rates}" if fastest.images_per_s else f"{named} at work on their first images"
    return (
        f"{len(workers)} workers: {slowest.images_per_s:.2f} to {fastest.images_per_s:.2f} each, "
        f"{slowest.place} slowest"
    )
