"""Training of the generic detector on a snapshot's masks, as in "Segment Anything", section 4.

snapshot -> windows of its images and of scenes -> engine's training -> calibrate on held-out images -> models/<id>/

The id of an image decides whether the image is held out, as in the training of a SAM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.detector.card import DetectorCard
from engine.detector.head import DetectorHead
from engine.detector.recipe import DetectorData, DetectorDataConfig, load_detector_data, train_detector
from engine.detector.train import DetectorTraining
from engine.detector.weights import Detector, load_detector, save_detector
from engine.labelled import LabelledImage
from engine.model.weights import Model
from stages.training.snapshot_source import Sample, SnapshotImages, SnapshotSource, SplitSide, count_images
from stages.training.work_folder import exclusive_lock
from storage.dataset import Dataset
from storage.model_versions import CARD_NAME, WEIGHTS_NAME

MAX_HELD_OUT = 100
"""Largest number of held-out images that calibrate and measure a detector."""


@dataclass(frozen=True, kw_only=True)
class TrainedDetector:
    """New detector, with the numbers that `gigamask train-detector` prints."""

    detector_id: str
    model_id: str
    """Id of the SAM whose embeddings the detector reads."""
    windows: int
    held_out_images: int
    score_threshold: float
    recall_10: float
    """Recall of held-out masks' boxes at IoU .5 with 10 boxes an image."""
    recall_30: float
    """Recall of held-out masks' boxes at IoU .5 with 30 boxes an image."""
    recall_100: float
    """Recall of held-out masks' boxes at IoU .5 with 100 boxes an image."""
    weights: str
    """Path or URI of the weights file."""


def train_detector_on_snapshot(
    dataset: Dataset,
    snapshot: str,
    model: Model,
    *,
    work_folder: Path,
    name: str = "detector",
    training: DetectorTraining | None = None,
    data: DetectorDataConfig | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> TrainedDetector:
    """Train a detector on a snapshot's masks and publish it as a version of the dataset, `models/<detector_id>/`.

    Args:
        dataset: the dataset of the snapshot.
        snapshot: the snapshot's id.
        model: the SAM whose embeddings the detector reads; it is not changed.
        work_folder: folder of scenes and encoded windows, and of the weights before they are published.
        name: the detector's name.
        training: settings of the training; None: the defaults.
        data: settings of what to train on and what to hold out; None: the defaults.
        device: "cpu" or "cuda".
        log: called with each line of progress.

    Raises:
        NotFound: There is no such snapshot.
        ValueError: The snapshot has no masks to train on or none to hold out, or another training uses the folder.
    """
    settings = data or DetectorDataConfig()
    every = settings.held_out_every
    trained, held_out = count_images(dataset, snapshot, held_out_every=every)
    if not (trained and held_out):
        raise ValueError(
            f"{dataset.uri}: of the images with masks in snapshot {snapshot} {trained} would train and {held_out} be "
            f"held out (those whose id {every} divides): expected some of each"
        )
    side = SplitSide(held_out_every=every, held_out=False)
    source = DetectorData(
        images=SnapshotSource(dataset, snapshot, side=side),
        held_out=held_out_images(dataset, snapshot, every),
        described={"dataset": dataset.uri, "snapshot": snapshot, "trained": trained, "held_out": held_out},
        scene_fraction=settings.scene_fraction,
    )
    with exclusive_lock(work_folder):
        head, card = train_detector(model, source, work_folder, name=name, training=training, device=device, log=log)
        return publish_detector(head, card, work_folder, dataset)


def train_detector_on_photos(
    folders: Sequence[Path],
    model: Model,
    *,
    work_folder: Path,
    name: str = "detector",
    training: DetectorTraining | None = None,
    data: DetectorDataConfig | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> TrainedDetector:
    """Train a detector on folders of labelled photos and on scenes; without folders, on scenes alone.

    The arguments are those of `train_detector_on_snapshot`; the weights stay in `work_folder`.

    Raises:
        ValueError: A folder cannot be read, no image is left to train on or to hold out, or another training uses the
            work folder.
    """
    source = load_detector_data(folders, data or DetectorDataConfig())
    with exclusive_lock(work_folder):
        head, card = train_detector(model, source, work_folder, name=name, training=training, device=device, log=log)
        return publish_detector(head, card, work_folder, None)


def find_dataset_detector(name: str, model: Model, dataset: Dataset | None, folder: Path) -> Detector:
    """Load a detector by name, by path, or by its id in a dataset, for use with a SAM; a version is copied to `folder`.

    Raises:
        ValueError: There is no such detector, or it reads the embeddings of another image encoder.
    """
    versions = [] if dataset is None else dataset.models.ids()
    if dataset is not None and name in versions:
        return load_detector(dataset.models.fetch(name, folder / "detectors"), model)
    try:
        return load_detector(name, model)
    except ValueError as error:
        if dataset is None:
            raise
        raise ValueError(f"{error}; models of {dataset.uri}: {', '.join(versions) or 'none'}") from error


def held_out_images(dataset: Dataset, snapshot: str, held_out_every: int) -> list[LabelledImage]:
    """Read held-out images of a snapshot with their masks, at most `MAX_HELD_OUT`; always the same ones.

    Raises:
        NotFound: There is no such snapshot.
        Corrupt: An image or a mask is not where its row says.
    """
    side = SplitSide(held_out_every=held_out_every, held_out=True)
    images = SnapshotImages(dataset, snapshot)
    found: list[LabelledImage] = []
    for _, number in images.shuffled(seed=0):
        if len(found) == MAX_HELD_OUT:
            break
        if images.image_id(number) in side and (sample := images.read(number)) is not None:
            found.append(labelled_sample(sample))
    return found


def labelled_sample(sample: Sample) -> LabelledImage:
    """Turn a sample of a snapshot into a labelled image with one annotator."""
    image, data = sample.image, sample.data
    return LabelledImage(
        domain="snapshot",
        stem=image.key,
        origin=f"image {image.key}",
        read_bytes=lambda: data,
        image_id=image.image_id,
        height=image.height,
        width=image.width,
        masks_by_annotator={0: tuple(mask.rle for mask in sample.masks)},
    )


def publish_detector(head: DetectorHead, card: DetectorCard, folder: Path, dataset: Dataset | None) -> TrainedDetector:
    """Save a detector in `folder` and, where there is a dataset, publish it as a version of the dataset."""
    weights = folder / WEIGHTS_NAME
    detector_id = save_detector(weights, head, card)
    address = str(weights)
    if dataset is not None:
        address = dataset.models.publish(detector_id, {name: folder / name for name in (WEIGHTS_NAME, CARD_NAME)})
    held_out = card.metrics["held_out"]["recall"]
    return TrainedDetector(
        detector_id=detector_id,
        model_id=card.trained_with,
        windows=card.training["config"]["windows"],
        held_out_images=held_out["images"],
        score_threshold=card.score_threshold,
        recall_10=held_out["recall_10"],
        recall_30=held_out["recall_30"],
        recall_100=held_out["recall_100"],
        weights=address,
    )
