"""Training of a detector from start to end, from data to weights and card.

data -> windows, encoded once -> head -> calibrate on held-out images -> measure there -> head and card

A machine that has torch, numpy and OpenCV alone calls this; `gigamask train-detector` does where there is a command.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.detector.calibrate import BoxVerdicts, fold_calibration, judge_boxes
from engine.detector.card import DetectorCard, encoder_id
from engine.detector.config import DetectorConfig
from engine.detector.head import DetectorHead
from engine.detector.train import DetectorTraining, Losses, train_head
from engine.detector.weights import Detector
from engine.detector.windows import EncodedWindows, encode_windows
from engine.evaluation.boxes import DetectorBoxes, evaluate_boxes
from engine.labelled import LabelledImage, load_folder
from engine.model.sam import Sam
from engine.model.weights import Model
from engine.scenes.batch import SceneBatch
from engine.scenes.labelled_scenes import labelled_scenes
from engine.scenes.scene_generator import MIN_SIDE, generate_scenes
from engine.training.photos import PhotoSource
from engine.training.scene_bank import BankConfig, SceneBank
from engine.training.sources import MixedSource, Source

SCENES_SEED = 40_000_000
"""Seed of the scenes; the seed model was trained on none of them."""
HELD_OUT_SEED = 49_000_000
"""Seed of the scenes that calibrate and measure where there are no labelled images."""
HELD_OUT_SCENES = 32
CHUNK_SCENES = 16
WINDOWS_PER_SCENE = 2
"""Mean number of windows that are cut from a scene."""
SCENE_OVER_INPUT = 1.2
"""Side of a scene, as a multiple of the side of the SAM's input."""
LOG_EVERY_STEPS = 50
LOG_EVERY_WINDOWS = 200


@dataclass(frozen=True, kw_only=True)
class DetectorDataConfig:
    """Settings of the data that a detector is trained on."""

    scene_fraction: float = 0.5
    """Fraction of windows that are cut from procedural scenes, in [0, 1]; without labelled images, all are."""
    held_out_every: int = 5
    """Number of images of which one is held out, at least 2: those whose id it divides."""

    def __post_init__(self) -> None:
        if not 0 <= self.scene_fraction <= 1 or self.held_out_every < 2:
            raise ValueError(
                f"scene_fraction {self.scene_fraction}, held_out_every {self.held_out_every}: expected a fraction in "
                "[0, 1] and a whole number of at least 2"
            )


@dataclass(frozen=True, kw_only=True)
class DetectorData:
    """Data that a detector is trained on."""

    images: Source | None
    """Source of windows of labelled images; None trains on scenes alone."""
    held_out: Sequence[LabelledImage]
    """Labelled images that calibrate and measure; empty takes scenes of another seed."""
    described: dict[str, Any]
    """Description of the labelled images, as JSON values; windows of another description are encoded anew."""
    scene_fraction: float
    """Fraction of windows that are cut from procedural scenes, in [0, 1]; 1 without labelled images."""


def load_detector_data(folders: Sequence[Path], config: DetectorDataConfig) -> DetectorData:
    """Load the labelled images with even ids: one in `config.held_out_every` is held out, the others train.

    Images with odd ids are kept for evaluation. Without folders, scenes are the only data.

    Raises:
        ValueError: A folder cannot be read, or no image is left to train on or to hold out.
    """
    if not folders:
        return DetectorData(images=None, held_out=(), described={"images": "none"}, scene_fraction=1.0)
    even = [image for folder in folders for image in load_folder(folder) if image.image_id % 2 == 0 and image.num_masks]
    held_out = [image for image in even if image.image_id % config.held_out_every == 0]
    trained = [image for image in even if image.image_id % config.held_out_every]
    if not trained or not held_out:
        raise ValueError(
            f"of {len(even)} labelled images with even ids {len(trained)} would train and {len(held_out)} be held out "
            f"(those whose id {config.held_out_every} divides): expected some of each; give another "
            "--held-out-every"
        )
    return DetectorData(
        images=PhotoSource(trained),
        held_out=held_out,
        described={"trained": names_of(trained), "held_out": names_of(held_out)},
        scene_fraction=config.scene_fraction,
    )


def names_of(images: Sequence[LabelledImage]) -> list[str]:
    """List the names of labelled images, sorted."""
    return sorted(f"{image.domain}/{image.stem}" for image in images)


def train_detector(
    model: Model,
    data: DetectorData,
    folder: Path,
    *,
    name: str = "detector",
    training: DetectorTraining | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> tuple[DetectorHead, DetectorCard]:
    """Train a detector on a SAM's embeddings, calibrate and measure it on held-out images, and describe it on a card.

    The SAM is not changed. Scenes and encoded windows are kept in `folder`, so that a second training starts at once.

    Raises:
        ValueError: The data has no masks, or the trained scores do not rank boxes.
        RuntimeError: No window of many tried images shows a mask of a size to train on.
    """
    # Encode the windows once
    training, sam = training or DetectorTraining(), model.sam.to(device)
    windows = _encode(sam, data, training, folder, device, log)
    log(f"{len(windows)} windows with {len(windows.boxes_M4) / len(windows):.1f} boxes each")

    # Train the head
    sizes = DetectorConfig(
        embedding_width=sam.config.width, embedding_side=sam.config.embedding_side, input_side=sam.config.input_side
    )
    losses = Losses()
    head = train_head(sizes, training, windows, device=device, on_step=partial(_log_step, log, training, losses))

    # Calibrate and measure on held-out images
    held_out = data.held_out or _held_out_scenes(sam)
    card = _card(name, sizes, model, data, training, losses)
    detector = Detector(detector_id=name, head=head.to(device), card=card)
    calibration = fold_calibration(head, judge_boxes(model, detector, held_out))
    log(f"calibrated on {calibration['boxes']} boxes of {calibration['images']} held-out images")
    verdicts = judge_boxes(model, detector, held_out)
    described = card.training | {"calibration": calibration}
    metrics = _measure(model, detector, held_out, verdicts)
    return head.cpu(), dataclasses.replace(
        card, score_threshold=round(verdicts.threshold, 4), training=described, metrics=metrics
    )


def _encode(
    sam: Sam, data: DetectorData, training: DetectorTraining, folder: Path, device: str, log: Callable[[str], None]
) -> EncodedWindows:
    chunks = -(-training.windows // (WINDOWS_PER_SCENE * CHUNK_SCENES))
    bank = BankConfig(
        seed=SCENES_SEED, chunk_scenes=CHUNK_SCENES, first_chunks=chunks, chunks_per_step=0.0, max_chunks=chunks
    )
    scene_side = max(MIN_SIDE, round(SCENE_OVER_INPUT * sam.config.input_side))
    scenes = SceneBank(folder / f"scenes-{scene_side}", bank, partial(_make_scenes, scene_side, device))
    source: Source = scenes
    if data.images is not None:
        fraction = data.scene_fraction
        parts: list[tuple[Source, float]] = [(scenes, fraction), (data.images, 1 - fraction)]
        source = MixedSource([(part, weight) for part, weight in parts if weight])

    def on_progress(done: int, total: int) -> None:
        if done % LOG_EVERY_WINDOWS == 0 or done == total:
            log(f"encoded {done} of {total} windows")

    return encode_windows(
        sam,
        encoder_id(sam),
        source,
        training.window(sam.config.input_side),
        count=training.windows,
        seed=training.seed,
        folder=folder / "windows",
        made_of=data.described | {"scene_fraction": data.scene_fraction, "scenes": dataclasses.asdict(bank)},
        on_progress=on_progress,
    )


def _make_scenes(side: int, device: str, seed: int, count: int) -> SceneBatch:
    return generate_scenes(count, side, torch.Generator().manual_seed(seed), device)


def _log_step(log: Callable[[str], None], training: DetectorTraining, kept: Losses, step: int, losses: Losses) -> None:
    kept.of_steps = losses.of_steps
    if (step + 1) % LOG_EVERY_STEPS == 0 or step + 1 == training.total_steps:
        log(f"step {step + 1} of {training.total_steps}: loss {losses.mean_of_last(LOG_EVERY_STEPS):.3f}")


def _held_out_scenes(sam: Sam) -> list[LabelledImage]:
    return labelled_scenes(HELD_OUT_SCENES, max(MIN_SIDE, sam.config.input_side), HELD_OUT_SEED)


def _card(
    name: str, sizes: DetectorConfig, model: Model, data: DetectorData, training: DetectorTraining, losses: Losses
) -> DetectorCard:
    return DetectorCard(
        name=name,
        config=sizes,
        encoder_id=encoder_id(model.sam),
        trained_with=model.model_id,
        score_threshold=1.0,  # until it is calibrated
        training={
            "data": data.described,
            "scene_fraction": data.scene_fraction,
            "config": dataclasses.asdict(training),
            "last_loss": round(losses.mean_of_last(LOG_EVERY_STEPS), 4),
        },
        metrics={},
        license=model.card.license,
        notes="A generic detector of objects of any class on a SAM's image embedding. A score is the probability that "
        "the box has an IoU of at least .5 with an object's box, as on the images that calibrated it.",
    )


def _measure(
    model: Model, detector: Detector, held_out: Sequence[LabelledImage], verdicts: BoxVerdicts
) -> dict[str, Any]:
    recall = evaluate_boxes(DetectorBoxes(detector=detector, model=model), held_out).to_json()
    return {
        "held_out": {
            "what": "images that were held out of the training and calibrated the scores",
            "recall": recall["overall"],
            "scores": verdicts.table(),
            "expected_error": round(verdicts.expected_error, 4),
        }
    }
