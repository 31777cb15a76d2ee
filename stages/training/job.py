"""From a snapshot to a new version of a model: train on its masks, make the IoU head honest, publish weights and card.

snapshot + procedural scenes -> windows -> train -> calibrate on held-out images -> measure -> models/<model_id>/

One image of every few is held out by its id, the same in every snapshot: it never trains, and calibrates and measures.
"""

import copy
import dataclasses
import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from engine.model.sam import Sam
from engine.model.weights import Model, load_model, save_model
from engine.scenes.batch import SceneBatch
from engine.scenes.scene_generator import MIN_SIDE, generate_scenes
from engine.training.calibrate import CalibrationConfig, calibrate_on, first_click_pairs
from engine.training.checkpoint import HISTORY_NAME, read_history
from engine.training.peers import Peers
from engine.training.progress import StepLines
from engine.training.scene_bank import BankConfig, SceneBank
from engine.training.sources import MixedSource, Source
from engine.training.train import TrainConfig, train
from stages.training.curves import condensed, write_curves
from stages.training.snapshot_source import Part, SnapshotSource, count_images
from storage.dataset import Dataset
from storage.model_versions import CARD_NAME, WEIGHTS_NAME

SCENES = BankConfig(seed=30_000_000, chunk_scenes=16, first_chunks=8, chunks_per_step=0.05, max_chunks=500)
"""Scenes that are mixed in; none of them is among those the seed was trained on."""
SCENE_OVER_INPUT = 1.2
"""Side of a scene over that of the network's input."""
CURVE_ON_CARD = 50
CURVES_NAME = "curves.svg"
PROGRESS_NAME = "progress.txt"
LOCK_NAME = "lock"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What a model is trained, calibrated and measured on."""

    scene_share: float = 0.25
    """Share of pictures that are procedural scenes, in [0, 1): they keep what few photographs would make it forget."""
    held_out_every: int = 5
    """One of so many images is held out, at least 2."""
    model_ids: tuple[str, ...] = ()
    """Train on masks of these models alone; none named, on all masks."""
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.scene_share < 1 or self.held_out_every < 2:
            raise ValueError(
                f"scene_share {self.scene_share}, held_out_every {self.held_out_every}: expected a share in [0, 1) and "
                "a whole number of at least 2"
            )


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """All that a process needs to know to take its part; `work_folder` is one that all of them see."""

    dataset: str
    snapshot: str
    parent: str
    """A model's name, the path of a weights file, or the id of one of the dataset's versions."""
    name: str
    """Of the new model; its id adds the hash of its weights."""
    train: TrainConfig
    data: DataConfig
    work_folder: Path


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A version of a model, as `gigamask train` prints it."""

    model_id: str
    parent: str
    snapshot: str
    steps: int
    trained_images: int
    held_out_images: int
    chosen_before: float
    """Mean IoU of the answer chosen at the first click, on held-out images, before the training."""
    chosen_after: float
    best_before: float
    """The same of the best of three answers."""
    best_after: float
    weights: str


def run_job(job: TrainingJob, peers: Peers, say: Callable[[str], None]) -> TrainedModel | None:
    """Train, or go on training, as one of several processes; the first one publishes and returns the model.

    Raises NotFound for an unknown dataset or snapshot; ValueError for a snapshot without masks, an unknown parent or a
    work folder of another network.
    """
    dataset = Dataset.open(job.dataset)
    images = count_job_images(job, dataset)
    parent = load_parent(dataset, job.parent, job.work_folder)
    scenes = SceneBank(job.work_folder / "scenes", SCENES, partial(_make_scenes, parent.sam, peers.device))
    source = _training_source(job, dataset, scenes)
    progress = _Progress(job.work_folder, say) if peers.rank == 0 else None
    if progress:
        progress(
            f"training {job.name} from {parent.model_id} on {images[0]} images of {job.snapshot}, "
            f"{images[1]} held out, on {peers.count} x {peers.device}"
        )
    began = time.monotonic()
    sam = copy.deepcopy(parent.sam)
    sam.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = train(
        job.train,
        sam,
        source,
        job.work_folder,
        peers=peers,
        on_step=StepLines(job.train, progress) if progress else None,
    )
    if progress is None:
        return None
    progress("calibrating and measuring on held-out images")
    return _publish(job, dataset, parent, trained, scenes, images, peers.device, time.monotonic() - began, progress)


def work_folder_of(job_parts: dict[str, object], root: Path) -> Path:
    """A folder that follows from what is asked for, so that the same command goes on where it was stopped."""
    digest = hashlib.sha256(json.dumps(job_parts, sort_keys=True, default=str).encode()).hexdigest()
    return root / digest[:16]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a work folder: two trainings in one would write over each other's checkpoints.

    The lock is the operating system's and ends with the process that took it, however that ends; processes that it
    started elsewhere may live some seconds longer. Raises ValueError while another process holds it, and where the
    file system knows no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{folder} is the work folder of a training that runs now, and the same was asked for again; wait for "
                "that one, or give another --work"
            ) from error
        except OSError as error:
            raise ValueError(f"{folder}: this file system locks no files ({error}); give another --work") from error
        yield


def load_parent(dataset: Dataset, name: str, folder: Path) -> Model:
    """A model by its name, its path, or its id in the dataset. Raises ValueError, naming what there is."""
    if name in dataset.models.ids():
        return load_model(dataset.models.fetch(name, folder / "parent"))
    try:
        return load_model(name)
    except ValueError as error:
        versions = ", ".join(dataset.models.ids()) or "none"
        raise ValueError(f"{error}; models of {dataset.uri}: {versions}") from error


def count_job_images(job: TrainingJob, dataset: Dataset) -> tuple[int, int]:
    """Images to train on and images held out. Raises ValueError where there are none of either."""
    every = job.data.held_out_every
    trained, held_out = count_images(dataset, job.snapshot, held_out_every=every, model_ids=job.data.model_ids)
    whose = f" by {', '.join(job.data.model_ids)}" if job.data.model_ids else ""
    if not trained + held_out:
        raise ValueError(
            f"{dataset.uri}: snapshot {job.snapshot} has no masks{whose} to train on; `gigamask masks` makes some, "
            "then `gigamask snapshot` names the new state"
        )
    if not (trained and held_out):
        raise ValueError(
            f"{dataset.uri}: of the images with masks{whose} in snapshot {job.snapshot} {trained} would train and "
            f"{held_out} be held out (those whose id {every} divides): expected some of each; give another "
            "--set data.held_out_every, or more photographs"
        )
    return trained, held_out


def _training_source(job: TrainingJob, dataset: Dataset, scenes: SceneBank) -> Source:
    part = Part(held_out_every=job.data.held_out_every, held_out=False)
    photographs = SnapshotSource(dataset, job.snapshot, model_ids=job.data.model_ids, part=part)
    share = job.data.scene_share
    return MixedSource([(photographs, 1 - share), (scenes, share)]) if share else photographs


def _make_scenes(sam: Sam, device: str, seed: int, count: int) -> SceneBatch:
    side = max(MIN_SIDE, round(SCENE_OVER_INPUT * sam.config.input_side))
    return generate_scenes(count, side, torch.Generator().manual_seed(seed), device)


def _publish(
    job: TrainingJob,
    dataset: Dataset,
    parent: Model,
    trained: Sam,
    scenes: SceneBank,
    images: tuple[int, int],
    device: str,
    seconds: float,
    say: Callable[[str], None],
) -> TrainedModel:
    part = Part(held_out_every=job.data.held_out_every, held_out=True)
    held_out = SnapshotSource(dataset, job.snapshot, model_ids=job.data.model_ids, part=part)
    ask = partial(first_click_pairs, batch=job.train.batch, source=held_out, config=job.data.calibration)
    before = ask(parent.sam.to(device)).summary()
    sources: dict[str, Source] = {"held out": held_out} | ({"scenes": scenes} if job.data.scene_share else {})
    try:
        calibration = calibrate_on(trained, job.train.batch, sources, job.data.calibration)
    except ValueError as error:  # a head that hardly varies: no reason to lose the training
        calibration = {"left_out": str(error)}
        say(f"the IoU head stays as trained: {error}")
    after = ask(trained).summary()
    history = read_history(job.work_folder)
    card = dataclasses.replace(
        parent.card,
        name=job.name,
        parent=parent.model_id,
        training={
            "dataset": dataset.uri,
            "snapshot": job.snapshot,
            "images": {"trained": images[0], "held_out": images[1]},
            "steps": job.train.total_steps,
            "seconds_of_last_run": round(seconds, 1),
            "config": dataclasses.asdict(job.train),
            "data": dataclasses.asdict(job.data),
            "calibration": calibration,
            "curves": condensed(history, CURVE_ON_CARD),
        },
        metrics={"held_out_first_click": {"before": before, "after": after}},
        notes=f"Trained from {parent.model_id} on masks of a dataset's snapshot; the thresholds are its parent's.",
    )
    model_id = save_model(job.work_folder / WEIGHTS_NAME, trained, card)
    write_curves(job.work_folder / CURVES_NAME, history, f"{model_id}, from {parent.model_id}")
    names = (WEIGHTS_NAME, CARD_NAME, CURVES_NAME, HISTORY_NAME)
    weights = dataset.models.publish(model_id, {name: job.work_folder / name for name in names})
    return TrainedModel(
        model_id=model_id,
        parent=parent.model_id,
        snapshot=job.snapshot,
        steps=job.train.total_steps,
        trained_images=images[0],
        held_out_images=images[1],
        chosen_before=before["chosen"],
        chosen_after=after["chosen"],
        best_before=before["best_of_3"],
        best_after=after["best_of_3"],
        weights=weights,
    )


class _Progress:
    """Says a line, and keeps it where who started the processes can read it."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / PROGRESS_NAME
        self._say = say

    def __call__(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        self._say(line)
