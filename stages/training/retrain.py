"""Retraining on closed rounds: which rounds are new to the promoted model, the training, and the gate behind it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.device import best_device
from engine.evaluation.config import GateConfig, GateSettings
from engine.labelled import LabelledImage, load_folder
from engine.model.weights import load_model
from engine.training.peers import Peers
from engine.training.recipes import retraining_recipe, retraining_steps
from engine.training.train import TrainConfig
from stages.training.gate import Candidacy, decide
from stages.training.job import DataConfig, TrainingJob
from stages.training.round_source import count_round_masks, held_out_images, rounds_in
from stages.training.train_job import train_job
from stages.training.work_folder import derive_work_folder, exclusive_lock
from storage.dataset import Dataset

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


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Images that a model is judged on."""

    images: Sequence[LabelledImage]
    place: str
    """Where they are from, for people."""
    may_be_new: bool
    """Whether they may be others than at the decision before."""


def find_new_rounds(dataset: Dataset, work_folder: Path, *, held_out_every: int) -> NewRounds:
    """Take a snapshot, and find the rounds in it that the promoted model was not trained on.

    Raises:
        ValueError: The promoted model was trained with other images held out.
    """
    snapshot = dataset.snapshot().snapshot_id
    newest = dataset.promotions.newest()
    assert newest is not None, "the chain was started"
    card = load_model(dataset.models.fetch(newest.promoted, work_folder / "versions")).card
    known = tuple(card.training.get("rounds", ()))
    if known:  # else the card may be somebody else's, who says in words what the data was
        before = card.training["data"].get("held_out_every", held_out_every)
        if before != held_out_every:
            raise ValueError(
                f"retrain.held_out_every: got {held_out_every}, expected {before} as for {newest.promoted}, so that "
                "what judges a model never trained one"
            )
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
    if steps is None:
        masks = count_round_masks(dataset, new.snapshot, new.rounds, held_out_every=new.held_out_every)
        steps = retraining_steps(masks)
    train: TrainConfig = replace(retraining_recipe(config, steps), **train_settings)
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

    The evaluation set is that of `choose_evaluation_set`.

    Raises:
        ValueError: The set has too few images, or is another one than before.
        Conflict: Another model was promoted meanwhile.
    """
    chosen = choose_evaluation_set(dataset, new, settings.gate, data=data, new_set=new_set)
    asked = Candidacy(
        candidate=model_id,
        images=chosen.images,
        place=chosen.place,
        made_by=made_by,
        reason=f"trained on {', '.join(new.rounds)} of {new.snapshot}",
        new_set=chosen.may_be_new,
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


def choose_evaluation_set(
    dataset: Dataset, new: NewRounds, limits: GateConfig, *, data: Path | None, new_set: bool
) -> EvaluationSet:
    """Choose what a model is judged on: a folder, or the images of closed rounds that no training sees.

    Held-out images are those of the snapshot of the decision before, once these are `limits.frozen_from_images`; until
    then, or for a new set, those of the newest snapshot. Both models are always measured on the same images.

    Raises:
        ValueError: The set has fewer images than the gate asks for, so that no model could be promoted.
    """
    if data is not None:
        chosen = EvaluationSet(images=load_folder(data), place=str(data), may_be_new=new_set)
    else:
        frozen = "" if new_set else _frozen_snapshot(dataset, limits)
        snapshot = frozen or new.snapshot
        chosen = EvaluationSet(
            images=held_out_images(dataset, snapshot, held_out_every=new.held_out_every),
            place=f"{_SNAPSHOT_PLACE}{snapshot}",
            may_be_new=not frozen,
        )
    if len(chosen.images) < limits.min_images:
        raise ValueError(
            f"{chosen.place}: got {len(chosen.images)} images with masks, expected at least {limits.min_images} "
            "(gate.gate.min_images); close more rounds, or give --data with an evaluation set"
        )
    return chosen


def _frozen_snapshot(dataset: Dataset, limits: GateConfig) -> str:
    """Find the snapshot whose held-out images judged the newest model that such images judged; empty if it may grow."""
    for generation in reversed(dataset.promotions.history()):
        described: Any = generation.evidence.get("evaluation_set", {})
        if str(described.get("place", "")).startswith(_SNAPSHOT_PLACE):
            is_frozen = described["images"] >= limits.frozen_from_images
            return str(described["place"]).removeprefix(_SNAPSHOT_PLACE) if is_frozen else ""
    return ""
