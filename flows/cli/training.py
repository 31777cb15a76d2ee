"""`gigamask train`: a snapshot's masks and a model in, a new version of the model out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.progress import say

if TYPE_CHECKING:
    from engine.model.config import SamConfig
    from flows.config import TrainingSettings
    from stages.training.job import TrainedModel, TrainingJob

training_app = typer.Typer()


@training_app.command()
def train(
    snapshot: Annotated[str, typer.Option(help="Id of the snapshot whose masks train; `gigamask snapshot` names one.")],
    dataset: Annotated[str, typer.Option(help="Folder or s3:// prefix of the dataset.")] = "gigamask-dataset",
    parent: Annotated[
        str, typer.Option("--from", help="A model's name, a weights file, or the id of a model of the dataset.")
    ] = "seed",
    name: Annotated[str | None, typer.Option(help="Name of the new model.", show_default="its parent's")] = None,
    recipe: Annotated[
        str, typer.Option(help="seed: a short training of small networks; paper: appendix A, for ViTs on GPUs.")
    ] = "seed",
    steps: Annotated[
        int | None, typer.Option(help="Length of the training.", min=1, show_default="the recipe's")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes of Ray Train that share every batch; 1: none.", min=1)] = 1,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Of a Ray cluster for --workers; its nodes must share --work.", show_default="this machine alone"
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu or cuda; needed with --ray-address.", show_default="cuda where this machine has a GPU"),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Where the checkpoint and the scenes lie.", show_default="~/.cache/gigamask/training"),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, e.g. train.learning_rate=1e-4, data.scene_share=0.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Train a model further on a snapshot's masks; the same command again goes on where it was stopped.

    The new version, with card, history and curves, is models/<model_id>/ in the dataset.
    """
    if ray_address is not None and device is None:
        raise typer.BadParameter("--ray-address needs --device: this machine does not know what the cluster's have")
    say(f"train: {snapshot} of {dataset}, from {parent}")
    from engine.device import best_device
    from engine.training.peers import check_device
    from flows.cli.output import print_result
    from flows.config import load_training_settings

    on = device or best_device()
    if ray_address is None:
        check_device(on, workers)

    def settings_for(network: SamConfig) -> TrainingSettings:
        return load_training_settings(network, recipe, steps, file=config, assignments=assignments)

    root = (work or Path.home() / ".cache" / "gigamask" / "training").absolute()
    job = _job(dataset, snapshot, parent, name, root, settings_for)
    say(f"work folder: {job.work_folder}")
    trained = _run(job, workers, on, ray_address)
    print_result(trained, as_json)
    if not as_json:
        say(f"next:   gigamask masks --dataset {dataset} --model {trained.weights}")


def _job(
    dataset: str,
    snapshot: str,
    parent: str,
    name: str | None,
    root: Path,
    settings_for: Callable[[SamConfig], TrainingSettings],
) -> TrainingJob:
    """What is asked for, in a work folder that follows from it. Raises ValueError for an unknown parent or setting."""
    from flows.config import to_tree
    from stages.training.job import TrainingJob, load_parent, work_folder_of
    from storage.dataset import Dataset

    data = Dataset.open(dataset)
    model = load_parent(data, parent, root / "parents")
    settings = settings_for(model.sam.config)
    named = name or model.name
    asked: dict[str, object] = {"dataset": data.uri, "snapshot": snapshot, "parent": model.model_id, "name": named}
    return TrainingJob(
        dataset=data.uri,
        snapshot=snapshot,
        parent=str(Path(parent).absolute()) if Path(parent).is_file() else parent,
        name=named,
        train=settings.train,
        data=settings.data,
        work_folder=work_folder_of(asked | to_tree(settings), root),
    )


def _run(job: TrainingJob, workers: int, device: str, address: str | None) -> TrainedModel:
    """In this process, or through Ray Train where there are several workers or a cluster."""
    from stages.training.job import alone_in

    with alone_in(job.work_folder):
        if workers == 1 and address is None:
            from engine.training.peers import Peers
            from stages.training.job import run_job

            trained = run_job(job, Peers(device=device), say)
            assert trained is not None, "the first process returns the model"
            return trained
        from stages.training.on_ray import run_job_on_cluster

        return run_job_on_cluster(job, workers=workers, device=device, address=address, say=say)
