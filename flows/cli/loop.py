"""The command `gigamask loop`: the whole engine with simulated annotators, beside a control."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import AsJson, ConfigFile, PrefectUrl, Steps, TrainAssignments
from flows.orchestration import use_prefect
from flows.progress import log


def loop(
    data: Annotated[Path, typer.Option(help="Folder of photos with SA-1B-style JSON beside them.")],
    rounds: Annotated[int, typer.Option(help="Number of rounds.", min=1)] = 1,
    seeds: Annotated[int, typer.Option(help="Number of repetitions with other parts of the photos.", min=1)] = 1,
    model: Annotated[str, typer.Option(help="Model to begin with: a name or a weights file.")] = "seed",
    steps: Steps = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder to keep everything in.", show_default="a temporary one")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="SVG file to write the learning curves into.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="HTML file to write the report into.", show_default="loop.html in the folder of --work"),
    ] = None,
    config: ConfigFile = None,
    assignments: TrainAssignments = None,
    prefect_url: PrefectUrl = None,
    as_json: AsJson = False,
) -> None:
    """Run rounds, retraining and the gate with simulated annotators, beside a control without the new masks.

    A part of the photos is annotated and trained on; two other parts, for the gate and for the figures, never are.
    Seconds are simulated. With --work, the same command continues where it stopped.
    """
    use_prefect(prefect_url)
    log(f"loop: {rounds} rounds on {data}, {seeds} seeds")
    if not data.is_dir():
        raise ValueError(f"{data}: no such folder; expected one with images and their JSON files")
    from flows.loop.config import load_loop_settings

    settings = load_loop_settings(file=config, assignments=assignments)
    with tempfile.TemporaryDirectory(prefix="gigamask-loop-") as temporary:
        folder = (work or Path(temporary)).absolute()
        from flows.loop.figures import describe_arm
        from flows.loop.loop import LoopRequest, run_loop
        from flows.loop.report import render_loop
        from flows.loop.table import live_table
        from flows.pages.markup import write_page

        request = LoopRequest(
            data=data,
            rounds=rounds,
            seeds=seeds,
            steps=steps,
            model=model,
            work_folder=folder,
            settings=settings,
        )
        title = f"{data.resolve().name}: rounds {rounds}, seeds {seeds}"
        with live_table(title) as show:
            result = run_loop(request, show)
        page = report or (folder / "loop.html" if work else None)
        if page is not None:
            log(f"report: {write_page(render_loop(result, title), page)}")
    if plot is not None:
        from flows.loop.plot import write_plot

        write_plot(plot, result, title)
    if as_json:
        print(json.dumps(result))
        return
    for arm in result["rounds"]:
        print(describe_arm(arm))
    print(f"gain over control: {json.dumps(result['gain_over_control'])}")
