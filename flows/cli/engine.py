"""The command `engine`: from a folder of photos to masks on all of them, with one person and one laptop."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.checks import check_dataset_place, check_photos, workspace_place
from flows.cli.stopping import stopping
from flows.local_server import end_with_parent, stop_server
from flows.progress import log

if TYPE_CHECKING:
    from flows.config.serve import ServeSettings
    from storage.dataset import Dataset
    from storage.workspace.workspace import Workspace

HOURS = 2.0
"""Hours of a person's work that are planned where nobody says otherwise."""
ABOUT = "Every object that stands out, the largest first."
"""What is to be masked where nobody says otherwise."""
HELD_OUT = "held-out"
"""Key of the hand-over that keeps of how many photos one is held out."""
NICENESS = 10
"""Niceness of everything but the annotation server, so that clicks have the processor first."""
STOP_S = 6.0
"""Longest time that the servers have to end, in seconds."""
LOOK_EVERY_S = 10.0
"""Interval in seconds at which this command looks at the state of the engine."""


@dataclass(frozen=True, kw_only=True)
class _Evening:
    """Answers to the three questions."""

    dataset: str
    hours: float
    about: str


def engine(
    photos: Annotated[list[Path], typer.Argument(help="Photos or folders of photos.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Folder of the dataset.", show_default="the folder's name + -masks")
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            "--hours", help="Hours that you want to work; 0 for all photos.", min=0, show_default=f"{HOURS:g}"
        ),
    ] = None,
    about: Annotated[str | None, typer.Option("--about", help="What is to be masked.", show_default=ABOUT)] = None,
    port: Annotated[int, typer.Option("--port", help="Port of the page; 0 takes a free one.", min=0, max=65535)] = 8765,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work", help="Folder of checkpoints and of Prefect's history.", show_default="~/.cache/gigamask"
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of `serve`: engine.retrain_after=40."),
    ] = None,
) -> None:
    """Run the whole engine: you mask some photos, the model learns from them meanwhile, and masks the rest.

    Three questions are asked first, where a terminal is there and the options leave them open. Then the link of the
    page is printed. Small rounds are opened one after the other; the model is retrained while you work, prefills
    further rounds, and in the end masks every photo by itself. Ctrl+C stops all; the same command continues.
    """
    log(f"engine: {', '.join(map(str, photos))}")
    check_photos(photos)
    evening = _ask(photos, dataset, hours, about)
    check_dataset_place(evening.dataset)
    chosen = [*_policy(evening), *(assignments or [])]
    from flows.config.serve import load_serve_settings
    from stages.ingest.ingest import ingest_photos
    from storage.dataset import Dataset

    settings = load_serve_settings(assignments=chosen, dataset=evening.dataset)
    page = ["annotate", "--dataset", evening.dataset, "--model", "promoted", f"--port={port}"]
    page += ["--open"] if open_page else []
    with stopping("stopped; the same command continues"):
        opened = Dataset.open_or_create(evening.dataset)
        report = ingest_photos(photos, opened)
        log(f"ingest: {report.images} images, {len(report.rejects)} rejects")
        chosen = [f"retrain.retrain.held_out_every={_hold_out(opened, settings)}", *chosen]
        settings = load_serve_settings(assignments=chosen, dataset=evening.dataset)
        served = ["serve", "--dataset", evening.dataset, *(f"--set={each}" for each in chosen)]
        served += [f"--work={work}"] if work else []
        with _running(page) as server, _running(served, nice=NICENESS) as schedules:
            _follow(opened, settings, {"annotate": server, "serve": schedules})
        _tell_the_end(opened)


def _ask(photos: Sequence[Path], dataset: str | None, hours: float | None, about: str | None) -> _Evening:
    """Ask what the options leave open, if somebody is there to answer."""
    name = photos[0].resolve().name if photos[0].is_dir() else photos[0].resolve().parent.name
    guess = dataset or f"{name}-masks"
    if sys.stdin.isatty():
        guess = dataset or typer.prompt("Where do the masks go?", default=guess)
        hours = hours if hours is not None else typer.prompt("How many hours do you want to work?", HOURS, type=float)
        about = about or typer.prompt("What is to be masked?", default=ABOUT)
    evening = _Evening(dataset=guess, hours=HOURS if hours is None else hours, about=about or ABOUT)
    log(f"engine: {evening.dataset}, {f'{evening.hours:g} h' if evening.hours else 'all photos'}: {evening.about}")
    return evening


def _policy(evening: _Evening) -> list[str]:
    """Make settings of `gigamask serve` for one person and one evening: small rounds, a training for each 40 masks."""
    policy = {
        "engine.every_s": 20,
        "engine.images_per_round": 5,
        "engine.open_ahead": 2,
        "engine.retrain_after": 40,
        "engine.semi_automatic_after": 40,
        "engine.fully_automatic_after": 1_000_000,
        "engine.max_person_hours": evening.hours,
        "engine.guidelines": json.dumps(evening.about),
        "retraining.cron": "''",
        "retraining.after_masks": 0,
        "masks.every_s": 0,
        "verify.cron": "''",
        "audit.cron": "''",
    }
    return [f"{key}={value}" for key, value in policy.items()]


def _hold_out(dataset: "Dataset", settings: "ServeSettings") -> int:
    """Tell of how many photos one is held out to judge new models: 5, or less in a small folder.

    It is decided once for a dataset, so that a held-out photo never trains.
    """
    from stages.rounds.choose import hold_out_one_in

    found = dataset.handovers.find(HELD_OUT)
    if found is None:
        dataset.fold()
        ids = dataset.query("SELECT image_id FROM images")["image_id"].to_pylist()
        every = hold_out_one_in(ids, least=settings.evaluation_images)
        if every is None:
            log(
                f"engine: of {len(ids)} photos {settings.evaluation_images} cannot be held out to judge a new model, "
                "so the model stays as it is; with more photos the same command improves it"
            )
            return settings.held_out_every
        found = dataset.handovers.record(HELD_OUT, {"every": every})
    return int(str(found.result["every"]))


@contextmanager
def _running(arguments: Sequence[str], *, nice: int = 0) -> Iterator["subprocess.Popen[bytes]"]:
    """Run another command of gigamask during the block; it ends with the block, and with this process."""

    def begin() -> None:
        os.nice(nice)
        end_with_parent()

    process = subprocess.Popen([sys.executable, "-m", "gigamask", *arguments], preexec_fn=begin, start_new_session=True)
    try:
        yield process
    finally:
        stop_server(process, STOP_S)


def _follow(dataset: "Dataset", settings: "ServeSettings", processes: dict[str, "subprocess.Popen[bytes]"]) -> None:
    """Say what the engine does, until nothing is left to do.

    Raises:
        ValueError: A server ended.
    """
    from flows.data_engine import Step, decide, read_state
    from storage.workspace.workspace import Workspace

    told, failures = "", set[str]()
    with Workspace.open(workspace_place(dataset.uri, None)) as workspace:
        while True:
            for name, process in processes.items():
                if process.poll() is not None:
                    raise ValueError(f"`gigamask {name}` ended with {process.returncode}; its last lines say why")
            for line in _list_failures(workspace):
                if line not in failures:
                    log(line)
                failures.add(line)
            state = read_state(dataset, workspace, settings)
            chosen = decide(state, settings.engine)
            line = f"engine: {str(chosen.step).replace('_', ' ')}: {chosen.reason}"
            if line != told:
                log(line)
            if chosen.step is Step.STOP:
                return
            told = line
            time.sleep(LOOK_EVERY_S)


def _list_failures(workspace: "Workspace") -> list[str]:
    """Describe each attempt of the engine that failed and that was not made good since."""
    from storage.workspace.firings import MAX_ATTEMPTS, FiringState

    return [
        f"engine: {each.job} failed, attempt {each.attempts} of {MAX_ATTEMPTS} [{each.key}]: {each.result.get('error')}"
        for each in workspace.firings.read_all()
        if each.state is FiringState.FAILED
    ]


def _tell_the_end(dataset: "Dataset") -> None:
    """Print how many masks there are and what they cost, and write the report."""
    from flows.report.state import report_path
    from flows.report.write import write_report

    for row in dataset.query("SELECT stage, count(*) AS masks FROM masks GROUP BY stage ORDER BY stage").to_pylist():
        log(f"{row['stage'].replace('_', ' ')}: {row['masks']} masks")
    sql = "SELECT stage, avg(active_s) AS seconds FROM annotations WHERE in_masks GROUP BY stage ORDER BY stage"
    for row in dataset.query(sql).to_pylist():
        log(f"{row['stage'].replace('_', ' ')}: {row['seconds']:.1f} s a mask")
    log(f"report: {write_report(dataset, report_path(dataset))}")
    print(dataset.uri)
