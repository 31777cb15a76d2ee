"""End of a training: calibrate the IoU head, measure on held-out images, publish the new version."""

import dataclasses
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

from engine.model.card import ModelCard
from engine.model.sam import Sam
from engine.model.weights import save_model
from engine.training.calibrate import calibrate_on, first_click_pairs
from engine.training.checkpoint import HISTORY_NAME, read_history
from engine.training.sources import Source
from stages.training.curves import condense_history, write_curves
from stages.training.job import OpenJob, TrainedModel
from storage.model_versions import CARD_NAME, WEIGHTS_NAME

POINTS_ON_CARD = 50
"""Maximum number of points of the training's curves on the card."""
CURVES_NAME = "curves.svg"


def publish_trained(
    opened: OpenJob, trained: Sam, device: str, *, seconds: float, log: Callable[[str], None]
) -> TrainedModel:
    """Calibrate and measure a trained network and publish it as a version of the dataset, `models/<model_id>/`."""
    job, parent, split = opened.job, opened.parent, opened.split

    # Measure the parent, calibrate, and measure the trained network
    held_out = opened.images(held_out=True)
    measure = partial(first_click_pairs, batch=job.train.batch, source=held_out, config=job.data.calibration)
    before = measure(parent.sam.to(device)).summary()
    calibration = _calibrate(opened, trained, held_out, log)
    after = measure(trained).summary()

    # Write weights, card and curves into the work folder
    history = read_history(job.work_folder)
    training = _describe(opened, seconds) | {
        "calibration": calibration,
        "curves": condense_history(history, POINTS_ON_CARD),
    }
    card = _card(opened, training, {"before": before, "after": after})
    model_id = save_model(job.work_folder / WEIGHTS_NAME, trained, card)
    write_curves(job.work_folder / CURVES_NAME, history, f"{model_id}, from {parent.model_id}")

    # Copy them into the dataset
    names = (WEIGHTS_NAME, CARD_NAME, CURVES_NAME, HISTORY_NAME)
    weights = opened.dataset.models.publish(model_id, {name: job.work_folder / name for name in names})
    return TrainedModel(
        model_id=model_id,
        parent=parent.model_id,
        snapshot=job.snapshot,
        steps=job.train.total_steps,
        trained_images=split.trained,
        held_out_images=split.held_out,
        chosen_before=before["chosen"],
        chosen_after=after["chosen"],
        best_before=before["best_of_3"],
        best_after=after["best_of_3"],
        weights=weights,
    )


def _calibrate(opened: OpenJob, trained: Sam, held_out: Source, log: Callable[[str], None]) -> dict[str, Any]:
    """Calibrate the IoU head on held-out images and scenes, and return a description for the card."""
    job = opened.job
    sources: dict[str, Source] = {"held out": held_out} | ({"scenes": opened.scenes} if job.data.scene_share else {})
    if job.data.rounds and job.data.replay_fraction == 1:
        sources = {"scenes": opened.scenes}  # a control learns nothing from new masks
    try:
        return calibrate_on(trained, job.train.batch, sources, job.data.calibration)
    except ValueError as error:  # a head that hardly varies: no reason to lose the training
        log(f"the IoU head stays as trained: {error}")
        return {"left_out": str(error)}


def _describe(opened: OpenJob, seconds: float) -> dict[str, Any]:
    """Describe for the card the data and the course of the training."""
    job = opened.job
    return {
        "dataset": opened.dataset.uri,
        "snapshot": job.snapshot,
        "images": dataclasses.asdict(opened.split),
        "steps": job.train.total_steps,
        "seconds_of_last_run": round(seconds, 1),
        "config": dataclasses.asdict(job.train),
        "data": dataclasses.asdict(job.data),
        "rounds": [*opened.parent.card.training.get("rounds", []), *job.data.rounds],
        "code": f"gigamask {version('gigamask')}",
    }


def _card(opened: OpenJob, training: dict[str, Any], first_click: dict[str, Any]) -> ModelCard:
    """Make the new version's card; its license and thresholds are the parent's."""
    parent_id = opened.parent.model_id
    return dataclasses.replace(
        opened.parent.card,
        name=opened.job.name,
        parent=parent_id,
        training=training,
        metrics={"held_out_first_click": first_click},
        notes=f"Trained from {parent_id} on masks of a dataset's snapshot; the thresholds are its parent's.",
    )
