"""The table of a loop while it runs: live on a terminal, a line for each model elsewhere."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from flows.loop.figures import describe_arm
from flows.progress import log

COLUMNS = {
    "simulated_seconds_per_mask": "Simulated s a mask",
    "clicks_per_mask": "Clicks a mask",
    "noc85": "Clicks to IoU .85",
    "miou_1": "mIoU, 1 click",
    "miou_3": "mIoU, 3 clicks",
}
"""Metrics of the table, each with the title of its column."""
Show = Callable[[Mapping[str, Any], Mapping[str, Any]], None]
"""Function that takes the arm that was measured last and everything that was measured so far, as JSON values."""


@contextmanager
def live_table(title: str) -> Iterator[Show]:
    """Show the table on stderr during the block; other lines appear above it."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lambda arm, result: log(describe_arm(arm))
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda arm, result: live.update(make_table(result, title), refresh=True)


def make_table(result: Mapping[str, Any], title: str) -> Table:
    """Make a table of all models that were measured so far, by seed and round."""
    table = Table(title=title, title_justify="left")
    for name in ("Seed", "Round", "Trained", "Gate"):
        table.add_column(name)
    arms = sorted([*result["start"], *result["rounds"]], key=lambda arm: (arm["seed"], arm["round"]))
    names = list_measured(arms)
    for name in names:
        table.add_column(COLUMNS[name], justify="right")
    for arm in arms:
        cells = [format_figure(arm, name) for name in names]
        table.add_row(str(arm["seed"]), str(arm["round"]), describe_training(arm["arm"]), arm["decision"] or "", *cells)
    return table


def list_measured(measured: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the metrics of which there is a figure."""
    return [name for name in COLUMNS if any(each[name] is not None for each in measured)]


def describe_training(arm: str) -> str:
    """Say what the model of an arm was trained on."""
    return {"start": "first model", "new masks": "with new masks", "control": "control"}[arm]


def format_figure(content: Mapping[str, Any], name: str) -> str:
    """Format a figure with its interval; empty where it was not measured."""
    value, interval = content[name], content[f"{name}_interval"]
    if value is None:
        return ""
    digits = 3 if name.startswith("miou") else 1
    low_high = "" if interval is None else f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
    return f"{value:.{digits}f}{low_high}"
