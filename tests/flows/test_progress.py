import io
import os
import subprocess
import sys

from rich.console import Console

from flows.progress import Counts, Reporter, WorkerCounts
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


def test_work_goes_on_where_nobody_reads_its_lines() -> None:
    program = "from flows.progress import log\nfor _ in range(3): log('line')\nprint('done')"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writer, text=True, cwd=ROOT)
    os.close(writer)
    assert (done.stdout, done.returncode) == ("done\n", 0)
