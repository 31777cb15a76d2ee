"""`gigamask train`: a snapshot's masks and a model in, a new version of the model out."""

from pathlib import Path
from typing import Annotated

import typer

from flows.progress import say

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
    from engine.training.peers import Peers, best_device, check_device
    from flows.answers import print_result
    from flows.config import load_training_settings, to_tree
    from stages.training import TrainingJob, load_parent, run_job, work_folder_of
    from storage.dataset import Dataset

    on = device or best_device()
    if ray_address is None:
        check_device(on, workers)
    root = (work or Path.home() / ".cache" / "gigamask" / "training").absolute()
    data = Dataset.open(dataset)
    model = load_parent(data, parent, root / "parents")
    settings = load_training_settings(model.sam.config, recipe, steps, file=config, assignments=assignments)
    named = name or model.name
    asked: dict[str, object] = {"dataset": data.uri, "snapshot": snapshot, "parent": model.model_id, "name": named}
    job = TrainingJob(
        dataset=data.uri,
        snapshot=snapshot,
        parent=str(Path(parent).absolute()) if Path(parent).is_file() else parent,
        name=named,
        train=settings.train,
        data=settings.data,
        work_folder=work_folder_of(asked | to_tree(settings), root),
    )
    say(f"work folder: {job.work_folder}")
    if workers == 1 and ray_address is None:
        trained = run_job(job, Peers(device=on), say)
        assert trained is not None, "the first process returns the model"
    else:
        from stages.training_cluster import run_job_on_cluster

        trained = run_job_on_cluster(job, workers=workers, device=on, address=ray_address, say=say)
    print_result(trained, as_json)
    if not as_json:
        say(f"next:   gigamask masks --dataset {dataset} --model {trained.weights}")
