"""Training job: its settings, the objects it opens, and its result."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from engine.model.sam import Sam
from engine.model.weights import Model, load_model
from engine.scenes.batch import SceneBatch
from engine.scenes.scene_generator import MIN_SIDE, generate_scenes
from engine.training.calibrate import CalibrationConfig
from engine.training.scene_bank import BankConfig, SceneBank
from engine.training.sources import Source
from engine.training.train import TrainConfig
from stages.promoted import find_in_dataset
from stages.training.round_source import RoundSource, count_round_images
from stages.training.snapshot_source import SnapshotSource, SplitSide, count_images
from storage.dataset import Dataset

SCENES = BankConfig(seed=30_000_000, chunk_scenes=16, first_chunks=8, chunks_per_step=0.05, max_chunks=500)
"""Settings of the scenes that are mixed in; the seed was trained on none of these scenes."""
SCENE_OVER_INPUT = 1.2
"""Side of a scene, as a multiple of the side of the network's input."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Settings of the data that a model is trained, calibrated and measured on."""

    scene_share: float = 0.25
    """Fraction of training images that are procedural scenes, in [0, 1). Scenes preserve abilities that a model forgets
    when it is trained on few images.
    """
    held_out_every: int = 5
    """Number of images of which one is held out, at least 2; 5 holds out every fifth image."""
    model_ids: tuple[str, ...] = ()
    """Ids of the models whose masks are trained on; empty: all masks."""
    rounds: tuple[str, ...] = ()
    """Ids of the closed rounds whose masks alone are trained on, weighted by their correction, with replay beside them;
    empty: all masks of the snapshot, with `scene_share`.
    """
    replayed_rounds: tuple[str, ...] = ()
    """Ids of the rounds that the parent was trained on; with the scenes they are the replay, in equal parts."""
    replay_fraction: float = 0.25
    """Fraction of training images that replay what the parent knows, in [0, 1]; 1 trains on nothing new. It applies
    where `rounds` is given.
    """
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.scene_share < 1 or self.held_out_every < 2:
            raise ValueError(
                f"scene_share {self.scene_share}, held_out_every {self.held_out_every}: expected a fraction in [0, 1) "
                "and a whole number of at least 2"
            )
        if not 0 <= self.replay_fraction <= 1:
            raise ValueError(f"replay_fraction {self.replay_fraction}: expected a fraction in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Description of a training, with everything that a process needs to take part in the training."""

    dataset: str
    """URI of the dataset."""
    snapshot: str
    parent: str
    """Model to start from: a name, the path of a weights file, or the id of one of the dataset's versions."""
    name: str
    """Name of the new model; its id is the name and the hash of its weights."""
    train: TrainConfig
    data: DataConfig
    work_folder: Path
    """Folder of checkpoints and scenes; all processes of the training can open it."""
    scenes_folder: Path | None = None
    """Folder of scenes that several trainings of networks with one input side share; None for one below
    `work_folder`.
    """


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """New version of a model, with the numbers that `gigamask train` prints."""

    model_id: str
    parent: str
    snapshot: str
    steps: int
    trained_images: int
    held_out_images: int
    chosen_before: float
    """Mean IoU of the prediction ranked first at the first click, on held-out images, before the training."""
    chosen_after: float
    """Mean IoU of the prediction ranked first at the first click, on held-out images, after the training."""
    best_before: float
    """Mean IoU of the best of three predictions at the first click, on held-out images, before the training."""
    best_after: float
    """Mean IoU of the best of three predictions at the first click, on held-out images, after the training."""
    weights: str
    """Path or URI of the weights file."""


@dataclass(frozen=True, kw_only=True)
class ImageSplit:
    """Counts of the images to train on and of the images held out."""

    trained: int
    held_out: int


@dataclass(frozen=True, kw_only=True)
class OpenJob:
    """Training job with its objects opened: dataset, split of the images, parent model, scenes."""

    job: TrainingJob
    dataset: Dataset
    split: ImageSplit
    parent: Model
    scenes: SceneBank

    def images(self, *, held_out: bool) -> Source:
        """Return the snapshot's images with masks: the held-out images, or the images to train on."""
        data = self.job.data
        side = SplitSide(held_out_every=data.held_out_every, held_out=held_out)
        if data.rounds:
            return RoundSource(self.dataset, self.job.snapshot, data.rounds, side)
        return SnapshotSource(self.dataset, self.job.snapshot, model_ids=data.model_ids, side=side)


def open_job(job: TrainingJob, device: str) -> OpenJob:
    """Open the objects that a job names; scenes are generated on `device`.

    Raises:
        NotFound: There is no such dataset or snapshot.
        ValueError: The snapshot has no masks to train on, or there is no such parent.
    """
    dataset = Dataset.open(job.dataset)
    split = split_images(job, dataset)
    parent = load_parent(dataset, job.parent, job.work_folder)
    folder = job.scenes_folder or job.work_folder / "scenes"
    scenes = SceneBank(folder, SCENES, partial(_make_scenes, parent.sam, device))
    return OpenJob(job=job, dataset=dataset, split=split, parent=parent, scenes=scenes)


def load_parent(dataset: Dataset, name: str, folder: Path) -> Model:
    """Load the model that is `name`: `promoted`, an id in the dataset, a name or a path.

    A model of the dataset is copied into `folder`.

    Raises:
        ValueError: There is no such model; the message names the models that exist.
    """
    try:
        return load_model(find_in_dataset(dataset, name, folder / "parent"))
    except ValueError as error:
        versions = ", ".join(dataset.models.ids()) or "none"
        raise ValueError(f"{error}; models of {dataset.uri}: {versions}") from error


def split_images(job: TrainingJob, dataset: Dataset) -> ImageSplit:
    """Count the images to train on and the images held out.

    Raises:
        NotFound: There is no such snapshot.
        ValueError: No image is left to train on, or no image is held out.
    """
    every, rounds = job.data.held_out_every, job.data.rounds
    if rounds:
        trained, held_out = count_round_images(dataset, job.snapshot, rounds, held_out_every=every)
    else:
        trained, held_out = count_images(dataset, job.snapshot, held_out_every=every, model_ids=job.data.model_ids)
    by_models = f" by {', '.join(job.data.model_ids)}" if job.data.model_ids else ""
    if not trained + held_out:
        raise ValueError(
            f"{dataset.uri}: snapshot {job.snapshot} has no masks{by_models} to train on; `gigamask masks` makes some, "
            "then `gigamask snapshot` names the new state"
        )
    if not (trained and held_out):
        raise ValueError(
            f"{dataset.uri}: of the images with masks{by_models} in snapshot {job.snapshot} {trained} would train and "
            f"{held_out} be held out (those whose id {every} divides): expected some of each; give another "
            "--set data.held_out_every, or more images"
        )
    return ImageSplit(trained=trained, held_out=held_out)


def _make_scenes(sam: Sam, device: str, seed: int, count: int) -> SceneBatch:
    side = max(MIN_SIDE, round(SCENE_OVER_INPUT * sam.config.input_side))
    return generate_scenes(count, side, torch.Generator().manual_seed(seed), device)
