"""Training of the mask verifier: verdicts on masks of labelled images, features, the fit, the gate, the card.

labelled images -> prefilled masks without filters -> features and verdicts -> fit and gate -> card

On labelled images, the verdict on a mask is whether its IoU with some mask of the ground truth reaches a limit. A
person's verdicts replace it where there are some: `Verdicts` does not say who gave them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.detector.config import DetectConfig
from engine.detector.weights import Detector
from engine.interactive.zoom import open_with_sam
from engine.labelled import LabelledImage, read_pixels
from engine.model.weights import Model
from engine.verifier.features import FEATURES, mask_features
from engine.verifier.verifier import (
    FittedVerifier,
    Verdicts,
    VerifierCard,
    VerifierConfig,
    fit_verifier,
    save_verifier,
)
from stages.semi_automatic.prefill import PrefillConfig, PrefilledMask, prefill_opened
from storage import rle
from storage.dataset import Dataset
from storage.model_versions import CARD_NAME, WEIGHTS_NAME


@dataclass(frozen=True, kw_only=True)
class VerdictConfig:
    """Settings of the verdicts on labelled images."""

    min_iou: float = 0.75
    """IoU with some mask of the ground truth from which a mask counts as good, in (0, 1]."""
    prefill: PrefillConfig = field(
        default_factory=lambda: PrefillConfig(
            detect=DetectConfig(max_boxes=60), min_box_score=0.0, min_predicted_iou=0.0, min_stability=0.0
        )
    )
    """Settings of the masks to judge; by default none is left out for its scores, so that bad ones are judged, too."""

    def __post_init__(self) -> None:
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"got min_iou {self.min_iou}, expected a number in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class TrainedVerifier:
    """New verifier, with the numbers that `gigamask verify-model` prints."""

    verifier_id: str
    model_id: str
    """Id of the SAM that computed the features."""
    photographs: int
    masks: int
    good: int
    """Number of masks whose verdict is "good"."""
    auroc: float
    """AUROC on held-out photographs."""
    auroc_interval: tuple[float, float] | None
    auroc_predicted_iou: float
    """AUROC of predicted IoU alone, on the same masks."""
    auroc_predicted_iou_interval: tuple[float, float] | None
    difference: float
    """AUROC minus that of predicted IoU alone."""
    difference_interval: tuple[float, float] | None
    brier: float
    brier_constant: float
    """Brier score of a verifier that always says the fraction of good masks."""
    expected_calibration_error: float
    gate_open: bool
    """Whether the verifier may accept masks by itself."""
    gate: str
    """Reason for the gate's decision."""
    weights: str
    """Path or URI of the weights file."""


def collect_verdicts(
    model: Model,
    detector: Detector,
    images: Sequence[LabelledImage],
    config: VerdictConfig | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verdicts:
    """Make masks of labelled images, and judge each by the ground truth of all annotators.

    Raises:
        ValueError: No image gives a mask to judge, or an image cannot be read.
    """
    config = config or VerdictConfig()
    features, good, photographs = [np.empty((0, len(FEATURES)))], [np.empty(0, dtype=bool)], []
    labelled = [image for image in images if image.num_masks]
    for done, image in enumerate(labelled):
        on_progress(done, len(labelled))
        pixels_HW3 = read_pixels(image)
        opened = open_with_sam(model, pixels_HW3)
        masks = prefill_opened(model, detector, opened, config.prefill).masks
        if masks:
            features.append(mask_features(opened, pixels_HW3, masks))
            good.append(best_iou(masks, image) >= config.min_iou)
            photographs += [f"{image.domain}/{image.stem}"] * len(masks)
    on_progress(len(labelled), len(labelled))
    if not photographs:
        raise ValueError(f"got {len(images)} images that give no mask to judge, expected labelled images with objects")
    return Verdicts(
        features_NF=np.concatenate(features), good_N=np.concatenate(good), photograph_N=np.array(photographs)
    )


def best_iou(masks: Sequence[PrefilledMask], image: LabelledImage) -> np.ndarray:
    """Compute the highest IoU of each mask with any mask of the image's ground truth, of any annotator; float64 [N]."""
    truth = [mask for drawn in image.masks_by_annotator.values() for mask in drawn]
    return rle.iou_matrix([mask.rle for mask in masks], truth).max(axis=1, initial=0.0)


def train_verifier(
    verdicts: Verdicts,
    model: Model,
    folder: Path,
    *,
    name: str = "verifier",
    described: dict[str, Any] | None = None,
    config: VerifierConfig | None = None,
    dataset: Dataset | None = None,
) -> TrainedVerifier:
    """Fit a verifier, measure it on held-out photographs, decide by the gate, and save it in `folder`.

    With a dataset, it is also published as a version there, `models/<verifier_id>/`.

    Args:
        described: description of the verdicts for the card, as JSON values.

    Raises:
        ValueError: There are too few photographs, or all verdicts are the same.
    """
    config = config or VerifierConfig()
    fitted = fit_verifier(verdicts, config)
    card = VerifierCard(
        name=name,
        features=FEATURES,
        model_id=model.model_id,
        gate=fitted.gate,
        metrics=fitted.metrics.to_json(),
        training=(described or {}) | {"config": dataclasses.asdict(config)},
    )
    weights = folder / WEIGHTS_NAME
    verifier_id = save_verifier(weights, fitted.logistic, card)
    address = str(weights)
    if dataset is not None:
        address = dataset.models.publish(verifier_id, {file: folder / file for file in (WEIGHTS_NAME, CARD_NAME)})
    return _trained(fitted, verifier_id, model.model_id, address)


def _trained(fitted: FittedVerifier, verifier_id: str, model_id: str, address: str) -> TrainedVerifier:
    metrics = fitted.metrics
    return TrainedVerifier(
        verifier_id=verifier_id,
        model_id=model_id,
        photographs=metrics.photographs,
        masks=metrics.masks,
        good=metrics.good,
        auroc=metrics.auroc.value,
        auroc_interval=metrics.auroc.interval,
        auroc_predicted_iou=metrics.auroc_predicted_iou.value,
        auroc_predicted_iou_interval=metrics.auroc_predicted_iou.interval,
        difference=metrics.difference.value,
        difference_interval=metrics.difference.interval,
        brier=metrics.brier,
        brier_constant=metrics.brier_constant,
        expected_calibration_error=metrics.expected_calibration_error,
        gate_open=fitted.gate.is_open,
        gate=fitted.gate.reason,
        weights=address,
    )
