"""The commands `run`, `ingest` and `masks`: `run` turns photos into masks, the others do one half of that."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.checks import (
    check_dataset,
    check_dataset_place,
    check_new_model,
    check_photos,
    check_privacy,
    find_model,
)
from flows.cli.options import (
    DEFAULT_DATASET,
    AsJson,
    Assignments,
    ConfigFile,
    DatasetUri,
    ModelName,
    Precision,
    PrefectUrl,
    Preset,
    RayAddress,
)
from flows.orchestration import check_server, use_prefect
from flows.progress import log
from flows.words import place_options


def run(
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photos or folders of photos.", show_default="sample photos")
    ] = None,
    dataset: DatasetUri = DEFAULT_DATASET,
    model: ModelName = None,
    preset: Preset = None,
    precision: Precision = None,
    ray_address: RayAddress = None,
    prefect_url: PrefectUrl = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Turn photos into masks: ingest, the fully automatic stage, tables and the report.

    The same command, given again, continues where it stopped.
    """
    log(f"gigamask {version('gigamask')}: {_name_photos(photos)} -> {dataset}")
    from flows.cli.output import print_result
    from flows.cli.samples import sample_photos
    from flows.config.run import load_run_config

    # Refuse wrong use before anything heavy is imported
    settings = load_run_config(
        file=config,
        assignments=assignments,
        dataset=dataset,
        model=model,
        preset=preset,
        generate={"precision": precision},
        pool={"address": ray_address},
    )
    paths = photos or sample_photos()
    check_photos(paths)
    check_privacy(settings.ingest.privacy)
    check_dataset_place(settings.dataset)
    settings = replace(settings, model=find_model(settings.model, settings.dataset))
    use_prefect(prefect_url)
    check_server()
    check_new_model(settings.model, settings.dataset)

    # Run the flow
    from flows.fully_automatic import fully_automatic

    result = fully_automatic(photos=[str(path.absolute()) for path in paths], config=settings)
    print_result(result, as_json)
    if not as_json:
        log(f"report: {result.report}")
        log(f'next:   gigamask query {place_options(result.dataset)} "SELECT count(*) AS masks FROM masks"')


def ingest(
    photos: Annotated[list[Path], typer.Argument(help="Photos or folders of photos.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    prefect_url: PrefectUrl = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Write photos into the dataset's image shards; a photo that cannot be used becomes a reject with a reason."""
    log(f"ingest: {_name_photos(photos)} -> {dataset}")
    from flows.cli.output import print_result
    from flows.config.run import load_run_config

    settings = load_run_config(file=config, assignments=assignments, dataset=dataset)
    check_photos(photos)
    check_privacy(settings.ingest.privacy)
    check_dataset_place(settings.dataset)
    use_prefect(prefect_url)
    check_server()
    from flows.fully_automatic import add_photos

    print_result(add_photos(photos=[str(path.absolute()) for path in photos], config=settings), as_json)


def masks(
    dataset: DatasetUri = DEFAULT_DATASET,
    model: ModelName = None,
    preset: Preset = None,
    precision: Precision = None,
    ray_address: RayAddress = None,
    prefect_url: PrefectUrl = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Make masks for every image of the dataset: the fully automatic stage.

    The same command, given again, continues where it stopped.
    """
    log(f"masks: every image of {dataset}")
    from flows.cli.output import print_result
    from flows.config.run import load_run_config

    settings = load_run_config(
        file=config,
        assignments=assignments,
        dataset=dataset,
        model=model,
        preset=preset,
        generate={"precision": precision},
        pool={"address": ray_address},
    )
    check_dataset(settings.dataset)
    settings = replace(settings, model=find_model(settings.model, settings.dataset))
    use_prefect(prefect_url)
    check_server()
    check_new_model(settings.model, settings.dataset)
    from flows.fully_automatic import mask_dataset

    print_result(mask_dataset(config=settings), as_json)


def _name_photos(photos: list[Path] | None) -> str:
    if not photos:
        return "scikit-image's sample photos"
    return str(photos[0]) if len(photos) == 1 else f"{photos[0]} and {len(photos) - 1} more"
