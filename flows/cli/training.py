"""The command `gigamask train`: it trains a model on a snapshot's masks and stores a new version of the model."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.checks import check_training
from flows.cli.options import DEFAULT_DATASET, AsJson, ConfigFile, DatasetUri, Device, Steps, TrainAssignments
from flows.progress import log
from flows.words import place_options
from stages.cluster.limits import check_addresses
from storage.home import cache_folder

if TYPE_CHECKING:
    from engine.model.config import SamConfig
    from flows.config.train import TrainingSettings
    from stages.training.job import TrainedModel, TrainingJob
    from storage.dataset import Dataset


def train(
    snapshot: Annotated[str, typer.Option(help="Id of the snapshot whose masks to train on (`gigamask snapshot`).")],
    dataset: DatasetUri = DEFAULT_DATASET,
    parent: Annotated[
        str, typer.Option("--from", help="Model to start from: a name, a weights file, or an id in the dataset.")
    ] = "seed",
    name: Annotated[str | None, typer.Option(help="Name of the new model.", show_default="the parent's")] = None,
    recipe: Annotated[
        str, typer.Option(help="seed: a short training of small networks; paper: appendix A, for ViTs on GPUs.")
    ] = "seed",
    steps: Steps = None,
    workers: Annotated[int, typer.Option(help="Ray Train processes that share every batch; 1: no Ray.", min=1)] = 1,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Ray cluster for --workers; its nodes must share --work.", show_default="this machine"),
    ] = None,
    device: Device = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints and scenes.", show_default="~/.cache/gigamask/training"),
    ] = None,
    config: ConfigFile = None,
    assignments: TrainAssignments = None,
    as_json: AsJson = False,
) -> None:
    """Train a model further on a snapshot's masks. The same command, given again, continues where it stopped.

    The new version, with card, history and curves, is stored in models/<model_id>/ of the dataset.
    """
    if ray_address is not None and device is None:
        raise typer.BadParameter("--ray-address needs --device: this machine cannot tell what the cluster has")
    log(f"train: {snapshot} of {dataset}, from {parent}")
    check_training(dataset, snapshot, parent)
    check_addresses()
    from engine.device import best_device
    from engine.training.peers import check_device
    from flows.cli.output import print_result
    from flows.config.train import load_training_settings

    on = device or best_device()
    if ray_address is None:
        check_device(on, workers)

    def settings_for(network: SamConfig) -> TrainingSettings:
        return load_training_settings(network, recipe, steps, file=config, assignments=assignments)

    root = (work or cache_folder("training")).absolute()
    job = _job(dataset, snapshot, parent, name, root, settings_for)
    log(f"work folder: {job.work_folder}")
    trained = _run(job, workers, on, ray_address)
    print_result(trained, as_json)
    if not as_json:
        log(f"next:   gigamask masks {place_options(dataset)} --model {shlex.quote(str(trained.weights))}")


def _job(
    dataset: str,
    snapshot: str,
    parent: str,
    name: str | None,
    root: Path,
    settings_for: Callable[[SamConfig], TrainingSettings],
) -> TrainingJob:
    """Build the description of a training. The work folder follows from it, so that the same command resumes.

    Raises:
        ValueError: The parent or a setting is unknown.
    """
    from flows.config.load import to_tree
    from stages.training.job import TrainingJob, load_parent
    from stages.training.work_folder import derive_work_folder
    from storage.dataset import Dataset

    data = Dataset.open(dataset)
    model = load_parent(data, parent, root / "parents")
    settings = settings_for(model.sam.config)
    named = name or model.name
    asked: dict[str, object] = {"dataset": data.uri, "snapshot": snapshot, "parent": model.model_id, "name": named}
    return TrainingJob(
        dataset=data.uri,
        snapshot=snapshot,
        parent=str(Path(parent).absolute()) if Path(parent).is_file() else _fixed(data, parent, model.model_id),
        name=named,
        train=settings.train,
        data=settings.data,
        work_folder=derive_work_folder(asked | to_tree(settings), root),
    )


def _fixed(dataset: Dataset, parent: str, model_id: str) -> str:
    """Name the parent so that it stays the same model, even if another one is promoted while it trains."""
    return model_id if parent == "promoted" and model_id in dataset.models.ids() else parent


def _run(job: TrainingJob, workers: int, device: str, address: str | None) -> TrainedModel:
    """Train in this process, or with Ray Train where there are several workers or a cluster."""
    from stages.training.work_folder import exclusive_lock

    with exclusive_lock(job.work_folder):
        if workers == 1 and address is None:
            from engine.training.peers import Peers
            from stages.training.train_job import train_job

            trained = train_job(job, Peers(device=device), log)
            assert trained is not None, "the first process returns the model"
            return trained
        from stages.training.on_ray import train_job_on_cluster

        return train_job_on_cluster(job, workers=workers, device=device, address=address, log=log)
