"""Training on a snapshot in this process: the work of `gigamask train` with one worker, as one call."""

from collections.abc import Callable
from pathlib import Path

from engine.device import best_device
from engine.training.peers import Peers
from engine.training.recipes import seed_recipe
from engine.training.train import TrainConfig
from stages.training.job import DataConfig, TrainedModel, TrainingJob, load_parent
from stages.training.train_job import train_job
from stages.training.work_folder import exclusive_lock
from storage.dataset import Dataset


def train_on_snapshot(
    dataset: Dataset,
    snapshot: str,
    *,
    work_folder: str | Path,
    parent: str = "seed",
    name: str | None = None,
    train: TrainConfig | None = None,
    data: DataConfig | None = None,
    device: str | None = None,
    log: Callable[[str], None] = print,
) -> TrainedModel:
    """Train a model further on a snapshot's masks and publish it as a version of the dataset, `models/<model_id>/`.

    Args:
        dataset: the dataset of the snapshot.
        snapshot: the snapshot's id, as in `dataset.snapshot().snapshot_id`.
        work_folder: folder of the checkpoints; after a kill, a call with the same arguments continues the training.
        parent: the model to start from: a name, the path of a weights file, or the id of one of the dataset's versions.
        name: the new model's name; None: the parent's name.
        train: settings of the training; None: `seed_recipe`, 300 steps.
        data: what to train on and what to hold out; None: the defaults.
        device: "cpu" or "cuda"; None: the GPU, where there is one.
        log: called with each line of progress.

    Raises:
        NotFound: There is no such snapshot.
        ValueError: There is no such model, the snapshot has no masks, or another training uses the work folder.
    """
    folder = Path(work_folder)
    model = load_parent(dataset, parent, folder)
    job = TrainingJob(
        dataset=dataset.uri,
        snapshot=snapshot,
        parent=parent,
        name=name or model.name,
        train=train or seed_recipe(model.sam.config),
        data=data or DataConfig(),
        work_folder=folder,
    )
    with exclusive_lock(folder):
        trained = train_job(job, Peers(device=device or best_device()), log)
    assert trained is not None, "the first process returns the model"
    return trained
