"""The command `gigamask retrain`: closed rounds make the promoted model better, or the gate says why not."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.checks import check_dataset
from flows.cli.options import DEFAULT_DATASET, AsJson, ConfigFile, DatasetUri, Steps, TrainAssignments
from flows.progress import log
from stages.cluster.limits import check_addresses
from storage.home import cache_folder


def retrain(
    dataset: DatasetUri = DEFAULT_DATASET,
    data: Annotated[
        Path | None,
        typer.Option(help="Frozen evaluation set.", show_default="images of rounds that no training sees"),
    ] = None,
    new_set: Annotated[
        bool, typer.Option("--new-set", help="Freeze another evaluation set than that of the decision before.")
    ] = False,
    steps: Steps = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints and scenes.", show_default="~/.cache/gigamask/retraining"),
    ] = None,
    config: ConfigFile = None,
    assignments: TrainAssignments = None,
    as_json: AsJson = False,
) -> None:
    """Train the promoted model further on the rounds closed since, and promote the result if it passes the gate.

    The same command, given again, continues where it stopped; without a new round it does nothing.
    """
    log(f"retrain: {dataset}")
    check_dataset(dataset)
    check_addresses()
    if data is not None and not data.is_dir():
        raise ValueError(f"{data}: no such folder; expected one with images and their JSON files")
    from flows.cli.output import print_result
    from flows.config.retrain import load_retrain_settings

    settings = load_retrain_settings(file=config, assignments=assignments)
    from flows.retraining import RetrainRequest, retraining

    request = RetrainRequest(
        dataset=dataset,
        data=str(data.absolute()) if data else "",
        new_set=new_set,
        work_folder=str((work or cache_folder("retraining")).absolute()),
        steps=steps,
        settings=settings,
    )
    print_result(retraining(request), as_json)
