"""The `gigamask` command: progress on stderr, results on stdout; exit 0 done, 1 failed with a message, 2 wrong use.

Heavy libraries are imported inside the commands, after the first line is on the screen.
"""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli import environment
from flows.cli.dataset import dataset_app
from flows.cli.evaluate import evaluate_app
from flows.cli.train_seed import train_seed_app
from flows.cli.training import training_app
from flows.progress import say

app = typer.Typer(
    name="gigamask",
    help="An open data engine: photographs in, a segmentation-mask dataset out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(no_args_is_help=True, help="Models on this machine: list them, pull the released ones.")
app.add_typer(models_app, name="models")
app.add_typer(evaluate_app)
app.add_typer(training_app)
app.add_typer(train_seed_app)
app.add_typer(dataset_app)  # gc, redo, withdraw, rebuild

Dataset = Annotated[str, typer.Option("--dataset", help="Folder or s3:// prefix of the dataset.", show_default=True)]
ModelName = Annotated[
    str | None, typer.Option("--model", help="A model's name or the path of a weights file.", show_default="seed")
]
Preset = Annotated[str | None, typer.Option(help="grid: one 32x32 grid; paper: 1 + 4 + 16 crops.", show_default="grid")]
Precision = Annotated[
    str | None, typer.Option(help="fp32; bf16: sooner, and most outlines move a little.", show_default="fp32")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. generate.points_per_side=16.")]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", help="A Ray cluster to work on, e.g. auto.", show_default="this machine alone"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DEFAULT_DATASET = "gigamask-dataset"


def _print_version(asked: bool) -> None:
    if asked:
        print(version("gigamask"))
        raise typer.Exit


@app.callback()
def gigamask(
    asked: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """An open data engine: photographs in, a segmentation-mask dataset out."""


@app.command()
def run(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photographs or folders of them.")] = None,
    dataset: Dataset = DEFAULT_DATASET,
    model: ModelName = None,
    preset: Preset = None,
    precision: Precision = None,
    ray_address: RayAddress = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Photographs in, masks out: ingest, the fully automatic stage, tables and the report."""
    from flows.cli.samples import sample_photos

    say(f"gigamask {version('gigamask')}: {_name_photos(photos)} -> {dataset}")
    from flows.config import load_run_config, to_tree

    settings = load_run_config(
        file=config,
        assignments=assignments,
        dataset=dataset,
        model=model,
        preset=preset,
        generate={"precision": precision} if precision else None,
        pool=_pool(ray_address),
    )
    paths = photos or sample_photos()
    _fail_early(settings.model, paths)
    say("starting the flow (the first start on a machine takes about 15 s) ...")
    from flows.fully_automatic import fully_automatic

    result = fully_automatic(photos=[str(path.absolute()) for path in paths], settings=to_tree(settings))
    _print_result(result, as_json)
    if not as_json:
        say(f"report: {result.report}")
        say(f'next:   gigamask query --dataset {result.dataset} "SELECT count(*) AS masks FROM masks"')


@app.command()
def ingest(
    photos: Annotated[list[Path], typer.Argument(help="Photographs or folders of them.")],
    dataset: Dataset = DEFAULT_DATASET,
    config: ConfigFile = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Write photographs into the dataset's image shards; those that cannot be used become rejects with a reason."""
    say(f"ingest: {_name_photos(photos)} -> {dataset}")
    from flows.config import load_run_config, to_tree
    from flows.fully_automatic import only_ingest

    settings = load_run_config(file=config, assignments=assignments, dataset=dataset)
    _print_result(only_ingest(photos=[str(path.absolute()) for path in photos], settings=to_tree(settings)), as_json)


@app.command()
def masks(
    dataset: Dataset = DEFAULT_DATASET,
    model: ModelName = None,
    preset: Preset = None,
    precision: Precision = None,
    ray_address: RayAddress = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """The fully automatic stage over every image of the dataset; running it again continues where it stopped."""
    say(f"masks: every image of {dataset}")
    from flows.config import load_run_config, to_tree

    settings = load_run_config(
        file=config,
        assignments=assignments,
        dataset=dataset,
        model=model,
        preset=preset,
        generate={"precision": precision} if precision else None,
        pool=_pool(ray_address),
    )
    _fail_early(settings.model, [])
    from flows.fully_automatic import only_masks

    _print_result(only_masks(settings=to_tree(settings)), as_json)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL over the tables images, masks, shards and rejects.")],
    dataset: Dataset = DEFAULT_DATASET,
    snapshot: Annotated[str | None, typer.Option(help="Ask a snapshot instead of the newest state.")] = None,
    form: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write to this file (needed for parquet).")] = None,
) -> None:
    """Ask the dataset's tables with SQL."""
    from flows.cli.output import write_answer
    from storage.dataset import Dataset as Data

    write_answer(Data.open(dataset).query(sql, snapshot=snapshot), form, output)


@app.command()
def status(dataset: Dataset = DEFAULT_DATASET, as_json: AsJson = False) -> None:
    """Shards done and missing, per plan."""
    from storage.dataset import Dataset as Data

    _print_rows(
        Data.open(dataset).status(), as_json, empty=f"{dataset}: no plan yet; `gigamask run PHOTOS` makes the first"
    )


@app.command()
def snapshot(dataset: Dataset = DEFAULT_DATASET, as_json: AsJson = False) -> None:
    """Name the present state for good: training and release use snapshots, never 'latest'."""
    from storage.dataset import Dataset as Data

    _print_result(Data.open(dataset).snapshot(), as_json)


@app.command()
def verify(
    dataset: Dataset = DEFAULT_DATASET,
    fast: Annotated[bool, typer.Option("--fast", help="Compare sizes only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every referenced byte again and count again; each fault is named with what to do."""
    say(f"verify: {'sizes of' if fast else 'reading'} all that {dataset} refers to ...")
    from storage.dataset import Dataset as Data

    checked = Data.open(dataset).verify(fast=fast)
    _print_result(checked, as_json)
    if checked.faults:
        raise typer.Exit(1)


@app.command()
def report(
    dataset: Dataset = DEFAULT_DATASET,
    output: Annotated[Path | None, typer.Option(help="Where to write the page [DATASET/report.html].")] = None,
) -> None:
    """Write the HTML report of the dataset's newest state."""
    from flows.report.write import report_path, write_report
    from storage.dataset import Dataset as Data

    opened = Data.open(dataset)
    print(write_report(opened, output or report_path(opened)))


@app.command()
def scenes(
    out: Annotated[Path, typer.Argument(help="PNG file to write.")],
    count: Annotated[int, typer.Option(help="How many scenes.", min=1, max=1024)] = 64,
    seed: Annotated[int, typer.Option(help="The same seed draws the same scenes.")] = 0,
) -> None:
    """Draw a contact sheet of the procedural scenes the seed model is trained on."""
    from engine.scenes.sheet import write_contact_sheet

    write_contact_sheet(out, count, seed)
    print(out)


@app.command()
def doctor(
    dataset: Annotated[str | None, typer.Option(help="Also check that this dataset can be opened.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the environment: packages, processor and GPU, models, and the dataset's store."""
    from flows.cli.doctor import check_environment

    findings = check_environment(dataset)
    _print_rows(findings, as_json, empty="nothing checked")
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """The models gigamask knows, and which of them are on this machine."""
    from flows.cli.models import known_models

    _print_rows(known_models(), as_json, empty="no model")


@models_app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="mobile, vit_b, vit_l or vit_h.")],
    base_url: Annotated[str | None, typer.Option(help="Another address to download from.")] = None,
) -> None:
    """Download released SAM weights; continues a broken download and checks the SHA-256."""
    from flows.cli.models import pull_model

    pulled = pull_model(name, base_url)
    print(f"{pulled.path}\n{pulled.verification}")


def main() -> None:
    """Entry point: errors that have a message for the reader end with it; others keep their traceback on request."""
    environment.prepare()
    try:
        app()
    except KeyboardInterrupt:
        say("stopped; run the same command again to continue")
        sys.exit(130)
    except Exception as error:
        if os.environ.get("GIGAMASK_DEBUG"):
            raise
        from storage.errors import StoreError

        kind = "" if isinstance(error, (ValueError, OSError, StoreError)) else f"{type(error).__name__}: "
        say(f"error: {kind}{error}")
        if kind:
            say("this is unexpected; GIGAMASK_DEBUG=1 shows where it happened")
        sys.exit(1)


def _pool(ray_address: str | None) -> dict[str, str] | None:
    return None if ray_address is None else {"address": ray_address}


def _name_photos(photos: list[Path] | None) -> str:
    if not photos:
        return "scikit-image's sample photographs"
    return str(photos[0]) if len(photos) == 1 else f"{photos[0]} and {len(photos) - 1} more"


def _fail_early(model: str, photos: list[Path]) -> None:
    """Raise for what is wrong at first sight, before the flow's server starts and before hours of ingest."""
    from engine.model.weights import load_model

    for photo in photos:
        if not photo.exists():
            raise ValueError(
                f"{photo}: no such file or folder; give photographs, folders of them, or nothing for samples"
            )
    load_model(model)


def _print_result(result: Any, as_json: bool) -> None:
    from flows.cli.output import print_result

    print_result(result, as_json)


def _print_rows(rows: Any, as_json: bool, empty: str) -> None:
    from flows.cli.output import print_rows

    print_rows(list(rows), as_json, empty)


if __name__ == "__main__":
    main()
