"""Retraining on closed rounds: which rounds are new to the promoted model, the training, and the gate behind it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.device import best_device
from engine.evaluation.config import GateSettings
from engine.labelled import LabelledImage, load_folder
from engine.model.weights import load_model
from engine.training.peers import Peers
from engine.training.recipes import retraining_recipe
from engine.training.train import TrainConfig
from stages.training.gate import Candidacy, decide
from stages.training.job import DataConfig, TrainingJob
from stages.training.round_source import held_out_images, rounds_in
from stages.training.train_job import train_job
from stages.training.work_folder import derive_work_folder, exclusive_lock
from storage.dataset import Dataset

MIN_EVALUATION_IMAGES = 2
"""Smallest number of photographs of an evaluation set: an interval over photographs needs two."""
_SNAPSHOT_PLACE = "held-out images of snapshot "


@dataclass(frozen=True, kw_only=True)
class NewRounds:
    """Work that the dataset has for a training."""

    snapshot: str
    promoted: str
    """Id of the model to start from."""
    rounds: tuple[str, ...]
    """Ids of the rounds that this model was not trained on."""
    known_rounds: tuple[str, ...]
    """Ids of the rounds that it was trained on."""
    held_out_every: int
    """Number of images of which one is held out."""


@dataclass(frozen=True, kw_only=True)
class JudgedModel:
    """Decision about a trained model."""

    decision: str
    model: str
    promoted: str
    generation: int
    reason: str
    checks: tuple[str, ...]


def find_new_rounds(dataset: Dataset, work_folder: Path, *, held_out_every: int) -> NewRounds:
    """Take a snapshot, and find the rounds in it that the promoted model was not trained on."""
    snapshot = dataset.snapshot().snapshot_id
    newest = dataset.promotions.newest()
    assert newest is not None, "the chain was started"
    card = load_model(dataset.models.fetch(newest.promoted, work_folder / "versions")).card
    known = tuple(card.training.get("rounds", ()))
    there = rounds_in(dataset, snapshot)
    return NewRounds(
        snapshot=snapshot,
        promoted=newest.promoted,
        rounds=tuple(each for each in there if each not in known),
        known_rounds=tuple(each for each in known if each in there),
        held_out_every=held_out_every,
    )


def train_on_rounds(
    dataset: Dataset,
    new: NewRounds,
    work_folder: Path,
    data: DataConfig,
    train_settings: Mapping[str, Any],
    *,
    steps: int | None,
    log: Callable[[str], None],
) -> str:
    """Train the promoted model further on new rounds, once, and return the id of the new version.

    Raises:
        ValueError: The rounds have too few images to train and to hold out, or another training uses the folder.
    """
    # What is trained, and whether that was done
    parent = load_model(dataset.models.fetch(new.promoted, work_folder / "versions"))
    config = parent.sam.config
    recipe = retraining_recipe(config) if steps is None else retraining_recipe(config, steps)
    train: TrainConfig = replace(recipe, **train_settings)
    data = replace(data, rounds=new.rounds, replayed_rounds=new.known_rounds, held_out_every=new.held_out_every)
    asked = {"train": asdict(train), "data": asdict(data)}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:12]
    key = f"train:{new.snapshot}:{new.promoted}:{digest}"
    done = dataset.handovers.find(key)
    if done is not None:
        log(f"{key} has made {done.result['model_id']}")
        return str(done.result["model_id"])

    # Train it, or go on
    described: dict[str, object] = {"dataset": dataset.uri, "key": key}
    job = TrainingJob(
        dataset=dataset.uri,
        snapshot=new.snapshot,
        parent=new.promoted,
        name=parent.name,
        train=train,
        data=data,
        work_folder=derive_work_folder(described, work_folder / "training"),
        scenes_folder=work_folder / f"scenes-{config.input_side}",
    )
    with exclusive_lock(job.work_folder):
        trained = train_job(job, Peers(device=best_device()), log)
    assert trained is not None, "the first process returns the model"
    return str(dataset.handovers.record(key, {"model_id": trained.model_id}).result["model_id"])


def judge_model(
    dataset: Dataset,
    model_id: str,
    new: NewRounds,
    settings: GateSettings,
    *,
    data: Path | None,
    new_set: bool,
    made_by: str,
    work_folder: Path,
    log: Callable[[str], None],
) -> JudgedModel:
    """Let a trained model pass the gate, or keep it out; either is recorded once.

    Without a folder, the evaluation set is that of the decision before if it was of a snapshot, else the images of the
    newest snapshot that no training sees.

    Raises:
        ValueError: The set has too few images, or is another one than before.
        Conflict: Another model was promoted meanwhile.
    """
    images, place = _evaluation_set(dataset, new, data, new_set=new_set)
    if len(images) < MIN_EVALUATION_IMAGES:
        raise ValueError(
            f"{place}: got {len(images)} images with masks, expected at least {MIN_EVALUATION_IMAGES}; close more "
            "rounds, or give --data with an evaluation set"
        )
    asked = Candidacy(
        candidate=model_id,
        images=images,
        place=place,
        made_by=made_by,
        reason=f"trained on {', '.join(new.rounds)} of {new.snapshot}",
        new_set=new_set,
        settings=settings,
        work_folder=work_folder,
    )
    generation = decide(dataset, asked, log)
    return JudgedModel(
        decision=generation.decision,
        model=model_id,
        promoted=generation.promoted,
        generation=generation.number,
        reason=generation.reason,
        checks=generation.findings,
    )


def _evaluation_set(
    dataset: Dataset, new: NewRounds, data: Path | None, *, new_set: bool
) -> tuple[Sequence[LabelledImage], str]:
    if data is not None:
        return load_folder(data), str(data)
    snapshot = new.snapshot
    if not new_set:
        for generation in reversed(dataset.promotions.history()):
            described: Any = generation.evidence.get("evaluation_set", {})
            if str(described.get("place", "")).startswith(_SNAPSHOT_PLACE):
                snapshot = str(described["place"]).removeprefix(_SNAPSHOT_PLACE)
                break
    return held_out_images(dataset, snapshot, held_out_every=new.held_out_every), f"{_SNAPSHOT_PLACE}{snapshot}"
