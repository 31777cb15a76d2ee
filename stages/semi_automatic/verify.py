"""Training of the mask verifier: fit it on verdicts, measure it on held-out photographs, pass the gate, publish it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.model.weights import Model
from engine.verifier.features import FEATURES
from engine.verifier.verifier import (
    FittedVerifier,
    Verdicts,
    VerifierCard,
    VerifierConfig,
    fit_verifier,
    save_verifier,
)
from storage.dataset import Dataset
from storage.model_versions import CARD_NAME, WEIGHTS_NAME


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
