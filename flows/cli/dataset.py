"""The commands `query`, `status`, `snapshot`, `verify` and `report`. Only `snapshot` and `report` write."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.checks import workspace_place
from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri, WorkspacePlace
from flows.progress import LineClock, log, print_lines, print_waiting, time_left
from flows.words import place_options

if TYPE_CHECKING:
    from storage.dataset import Dataset
    from storage.verification.verify import VerifyProgress


def query(
    sql: Annotated[str, typer.Argument(help="SQL over the tables images, masks, shards, rejects and annotations.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    snapshot: Annotated[str | None, typer.Option(help="Snapshot to query.", show_default="the newest state")] = None,
    form: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
    output: Annotated[
        Path | None, typer.Option(help="File to write; required for parquet.", show_default="stdout")
    ] = None,
    max_seconds: Annotated[float, typer.Option(help="Most seconds the query may take.")] = 600.0,
    max_memory: Annotated[
        float | None,
        typer.Option(
            help="Most memory the query may use, in GiB.", metavar="GIB", show_default="3/4 of the machine's memory"
        ),
    ] = None,
) -> None:
    """Query the dataset's tables with SQL."""
    from flows.cli.output import check_format, write_rows
    from storage.dataset import Dataset
    from storage.tables.limits import QueryLimits, default_memory_bytes

    check_format(form, output)
    max_memory_bytes = default_memory_bytes() if max_memory is None else round(max_memory * 2**30)
    limits = QueryLimits(max_seconds=max_seconds, max_memory_bytes=max_memory_bytes)
    opened = Dataset.open(dataset)
    with print_waiting("query", max_seconds):
        answer = opened.query(sql, snapshot=snapshot, limits=limits)
    write_rows(answer, form, output, on_rows=print_lines("query", "rows"))


def status(
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
    engine: Annotated[
        bool, typer.Option("--engine", help="Show the engine without the plans; --json prints it as one object.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the plans, then the engine at a glance: rounds, people, jobs, the promoted model, what waits for whom.

    For each plan: how many of its shards are done, and which are missing or were given up (`gc --close`). With --json,
    the plans alone are printed, and with --engine the engine.
    """
    from flows.cli.output import print_rows
    from storage.dataset import Dataset

    opened = Dataset.open(dataset)
    if not engine:
        print_rows(
            opened.status(),
            as_json,
            f"no plan yet; `gigamask run PHOTOS {place_options(dataset)}` makes the first",
        )
        if as_json:
            return
        if workspace is None and "://" in dataset:
            log("give --workspace to see rounds, people and jobs, too")
            return
        print()
    _print_engine(opened, workspace_place(dataset, workspace), as_json)


def _print_engine(dataset: "Dataset", place: str, as_json: bool) -> None:
    from flows.engine_status import read_engine_status, render_engine_status
    from storage.workspace.workspace import Workspace

    is_there = "://" in place or Path(place).exists()
    with Workspace.open(place) if is_there else nullcontext() as space:
        found = read_engine_status(dataset, space)
    print(json.dumps(found.to_json(), default=str) if as_json else render_engine_status(found))


def snapshot(dataset: DatasetUri = DEFAULT_DATASET, as_json: AsJson = False) -> None:
    """Give the present state a permanent name. Training and release read a snapshot, never the newest state."""
    from flows.cli.output import print_result
    from storage.dataset import Dataset

    opened = Dataset.open(dataset)
    print_result(opened.snapshot(on_records=print_lines("snapshot", "records")), as_json)


def verify(
    dataset: DatasetUri = DEFAULT_DATASET,
    fast: Annotated[bool, typer.Option("--fast", help="Compare sizes and counts only.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Do not continue an interrupted check.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every byte and every count that a commit record states; for each fault, print what to do.

    A check that was interrupted continues where it stopped.
    """
    log(f"verify: {'sizes of' if fast else 'reading'} everything that {dataset} refers to ...")
    from flows.cli.output import print_result
    from storage.dataset import Dataset

    opened = Dataset.open(dataset)
    if fast:
        checked = opened.maintenance.verify(fast=True, on_progress=_lines())
    else:
        with opened.maintenance.journal(again=again) as journal:
            if journal.begun:
                log(f"verify: continues the check begun at {journal.begun}; --again starts over")
            checked = opened.maintenance.verify(on_progress=_lines(), journal=journal)
    print_result(checked, as_json)
    if checked.faults:
        raise typer.Exit(1)


def _lines() -> Callable[["VerifyProgress"], None]:
    """Make the function that prints a line of progress, with the time left, every few seconds."""
    clock = LineClock()

    def show(progress: "VerifyProgress") -> None:
        if clock.is_due():
            log(
                f"verify: {progress.records}/{progress.records_total} records, {progress.nbytes / 2**30:.1f} GiB, "
                f"{progress.faults} faults{time_left(clock.passed_s, progress.records, progress.records_total)}"
            )

    return show


def report(
    dataset: DatasetUri = DEFAULT_DATASET,
    output: Annotated[Path | None, typer.Option(help="HTML file to write.", show_default="DATASET/report.html")] = None,
) -> None:
    """Write the HTML report of the dataset's newest state."""
    from storage.dataset import Dataset

    opened = Dataset.open(dataset)
    from flows.report.state import report_path
    from flows.report.write import write_report

    print(write_report(opened, output or report_path(opened)))
