import io
import os
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from flows import progress
from flows.progress import Counts, Reporter, WorkerCounts, print_lines, print_phases, print_waiting
from tests.paths import ROOT


def line(workers: list[WorkerCounts]) -> str:
    """The line that a terminal-less run ends with."""
    console = Console(file=io.StringIO(), width=80)
    plain = Reporter("masks", console, None)
    plain(Counts(done=3, total=9, new=3, masks=40, new_masks=40, rejects=1, workers=workers))
    plain.close()
    return console.file.getvalue()  # type: ignore[attr-defined]


def rated(*rates: float) -> list[WorkerCounts]:
    return [WorkerCounts(place=f"host{n}:7", images=1, images_per_s=rate) for n, rate in enumerate(rates)]


def test_a_few_workers_are_shown_with_the_rate_of_each() -> None:
    assert line(rated(0.5, 0.25)).startswith("masks: 3/9 images, ")
    assert line(rated(0.5, 0.25)).endswith(" left, 2 workers: 0.50 + 0.25\n")
    assert line(rated(0.5)).endswith(", 1 worker: 0.50\n")
    assert line(rated(0, 0)).endswith(", 2 workers at work on their first images\n")
    assert "worker" not in line([])


def test_of_many_workers_the_range_and_the_slowest_are_shown() -> None:
    assert line(rated(0.3, 0.4, 0.2, 0.5, 0.6, 0.3)).endswith(", 6 workers: 0.20 to 0.60 each, host2:7 slowest\n")


def test_lines_name_what_is_counted_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.0)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    show = print_lines("snapshot", "records")
    for done in (0, 2, 3):
        show(done, 3)
    first, second, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("snapshot: 0/3 records", "snapshot: 3/3 records")
    assert second.startswith("snapshot: 2/3 records, ")
    assert second.endswith(" left")


def test_the_time_left_of_a_phase_that_comes_back_is_that_of_its_second_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.0)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    clock: SimpleNamespace = SimpleNamespace(monotonic=lambda: clock.now_s, now_s=0.0)
    monkeypatch.setattr(progress, "time", clock)
    show = print_phases("erase")
    for clock.now_s, done, unit in ((0, 0, "shards"), (50, 9, "shards"), (100, 0, "shards"), (110, 5, "shards")):
        show(done, 10, unit)
    for clock.now_s, done in ((200, 2), (300, 8), (400, 1), (408, 5)):  # the first report of a phase need not be of 0
        show(done, 10, "files")
    lines = capsys.readouterr().err.splitlines()
    assert lines[3] == "erase: 5/10 shards, 10.0 s left"
    assert lines[7] == "erase: 5/10 files, 8.0 s left"


def test_work_of_unknown_length_says_how_long_it_lasts_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.0)
    printed, there = list[str](), threading.Event()

    def keep(line: str) -> None:
        printed.append(line)
        there.set()

    monkeypatch.setattr(progress, "log", keep)
    with print_waiting("query", 600.0):
        assert there.wait(60)
    assert re.fullmatch(r"query: at work for .+ s, at most .+ left", printed[0])


def test_work_goes_on_where_nobody_reads_its_lines() -> None:
    program = "from flows.progress import log\nfor _ in range(3): log('line')\nprint('done')"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writer, text=True, cwd=ROOT)
    os.close(writer)
    assert (done.stdout, done.returncode) == ("done\n", 0)
