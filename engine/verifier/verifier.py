"""The verifier as a whole: fit it, measure it on held-out photographs, and decide whether it may accept masks itself.

features and verdicts -> cross-validate by photograph -> gate -> fit on all -> verifier

The verifier always orders review queues. It accepts masks by itself only where the gate is open: its AUROC on held-out
photographs must beat that of predicted IoU alone, with the lower end of the paired interval over photographs above 0.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.logistic import Logistic, fit_logistic, lowest_score
from engine.model.identity import hash_weights, read_card
from engine.model.weight_files import fill_network, read_safetensors, write_network
from engine.verifier.features import FEATURES
from engine.verifier.measure import VerifierMetrics, cross_validate, measure_verifier

KIND = "verifier"
"""Value of the card's field `kind`, by which a verifier among a dataset's model versions is told from a SAM."""
MIN_ACCEPTED = 20
"""Smallest number of held-out masks from which the precision of accepted masks is estimated."""


@dataclass(frozen=True, kw_only=True)
class VerifierConfig:
    """Settings of a verifier's training."""

    l2: float = 1.0
    """Penalty on the squared weights of standardised features; above 0."""
    accept_precision: float = 0.95
    """Fraction of good masks, on held-out photographs, among those that the verifier accepts by itself; in (0, 1]."""
    seed: int = 0
    """Seed of the folds of photographs and of the bootstrap."""

    def __post_init__(self) -> None:
        if self.l2 <= 0 or not 0 < self.accept_precision <= 1:
            raise ValueError(
                f"got l2 {self.l2} and accept_precision {self.accept_precision}, expected a penalty above 0 and a "
                "fraction in (0, 1]"
            )


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Decision whether a verifier may accept masks by itself."""

    is_open: bool
    reason: str
    """Reason for the decision, as a sentence."""
    accept_probability: float | None
    """Lowest probability at which a mask is accepted; None where the gate is closed."""


@dataclass(frozen=True, kw_only=True)
class VerifierCard:
    """Description of a verifier: what it was fitted on, its metrics on held-out photographs, and the gate."""

    name: str
    """Name of the verifier; its id begins with it."""
    features: tuple[str, ...]
    """Names of the features, in the order of the weights."""
    model_id: str
    """Id of the SAM that computed the features; another SAM's features may mean something else."""
    gate: Gate
    metrics: dict[str, Any]
    """Metrics on held-out photographs, as JSON values."""
    training: dict[str, Any]
    """Verdicts that it was fitted on, and settings, as JSON values."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with one key per field and the key `kind`."""
        return {"kind": KIND} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> VerifierCard:
        """Read a card from the JSON object that `to_json` returns.

        Raises:
            ValueError: The card is not that of a verifier of these features.
        """
        expected = {field.name for field in dataclasses.fields(cls)} | {"kind"}
        if not isinstance(data, dict) or data.get("kind") != KIND or set(data) != expected:
            raise ValueError(
                f'got no card of a verifier, expected a JSON object with "kind": "verifier" and {expected}'
            )
        if tuple(data["features"]) != FEATURES:
            raise ValueError(
                f"got a verifier of the features {data['features']}, expected {list(FEATURES)}; train it again with "
                "`gigamask verify-model`"
            )
        fields = {name: value for name, value in data.items() if name != "kind"}
        return cls(**fields | {"features": FEATURES, "gate": Gate(**data["gate"])})


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """A fitted verifier with its card."""

    verifier_id: str
    """Name and first 12 hex digits of the SHA-256 of the weights file, joined by a hyphen."""
    logistic: Logistic
    card: VerifierCard

    def probability(self, features_NF: np.ndarray) -> np.ndarray:
        """Compute the probability that a person would accept each mask, float64 [N]; it orders review queues."""
        return self.logistic.probability(features_NF)

    def accepts(self, features_NF: np.ndarray) -> np.ndarray:
        """Tell which masks the verifier accepts by itself, bool [N]; none where the gate is closed."""
        gate = self.card.gate
        if not gate.is_open or gate.accept_probability is None:
            return np.zeros(len(features_NF), dtype=bool)
        return self.probability(features_NF) >= gate.accept_probability


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Masks with verdicts: what a verifier is fitted on."""

    features_NF: np.ndarray
    """Features of the masks, float64, the columns of `engine.verifier.features.FEATURES`."""
    good_N: np.ndarray
    """Verdicts, bool: whether a person accepted the mask."""
    photograph_N: np.ndarray
    """Name or id of each mask's photograph; masks of one photograph are held out together."""


@dataclass(frozen=True, kw_only=True)
class FittedVerifier:
    """A verifier fitted on all verdicts, its metrics on held-out photographs, and the gate's decision."""

    logistic: Logistic
    metrics: VerifierMetrics
    gate: Gate


def fit_verifier(verdicts: Verdicts, config: VerifierConfig | None = None) -> FittedVerifier:
    """Fit a verifier, measure it by cross-validation over photographs, and decide by the gate.

    Raises:
        ValueError: There are too few photographs, or all verdicts are the same.
    """
    config = config or VerifierConfig()
    good_N = verdicts.good_N.astype(np.float64)
    held_out_N = cross_validate(verdicts.features_NF, good_N, verdicts.photograph_N, l2=config.l2, seed=config.seed)
    predicted_iou_N = verdicts.features_NF[:, FEATURES.index("predicted_iou")]
    metrics = measure_verifier(held_out_N, predicted_iou_N, good_N, verdicts.photograph_N, seed=config.seed)
    accept_from = lowest_score(held_out_N, good_N, config.accept_precision, min_count=MIN_ACCEPTED)
    return FittedVerifier(
        logistic=fit_logistic(verdicts.features_NF, good_N, config.l2),
        metrics=metrics,
        gate=decide(metrics, accept_from, config.accept_precision),
    )


def decide(metrics: VerifierMetrics, accept_probability: float | None, precision: float) -> Gate:
    """Decide whether a verifier may accept masks by itself.

    Args:
        metrics: metrics on held-out photographs.
        accept_probability: lowest probability that reaches `precision` on held-out photographs; None where none does.
    """
    interval = metrics.difference.interval
    compared = (
        f"AUROC {metrics.auroc.value:.3f} on {metrics.photographs} held-out photographs, predicted IoU alone "
        f"{metrics.auroc_predicted_iou.value:.3f}; difference {metrics.difference.value:+.3f}"
    ) + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "")
    if interval is None or interval[0] <= 0:
        reason = f"closed: not better than predicted IoU alone beyond chance ({compared}); it orders review queues only"
        return Gate(is_open=False, reason=reason, accept_probability=None)
    if accept_probability is None:
        reason = (
            f"closed: no probability at which {precision:.0%} of at least {MIN_ACCEPTED} masks are good ({compared})"
        )
        return Gate(is_open=False, reason=reason, accept_probability=None)
    reason = f"open: accepts masks of probability {accept_probability:.3f} and more ({compared})"
    return Gate(is_open=True, reason=reason, accept_probability=accept_probability)


class _LogisticWeights(nn.Module):
    """Coefficients of a logistic model as buffers, in the form in which weights files are read and written."""

    mean_F: torch.Tensor
    std_F: torch.Tensor
    weights_F: torch.Tensor
    bias_1: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, size in (("mean_F", len(FEATURES)), ("std_F", len(FEATURES)), ("weights_F", len(FEATURES))):
            self.register_buffer(name, torch.zeros(size))
        self.register_buffer("bias_1", torch.zeros(1))


def save_verifier(path: str | Path, logistic: Logistic, card: VerifierCard) -> str:
    """Write a verifier as `<stem>.safetensors` and its card as `<stem>.json`, and return its id.

    Raises:
        ValueError: `path` does not end in .safetensors.
    """
    weights = _LogisticWeights()
    for name in ("mean_F", "std_F", "weights_F"):
        setattr(weights, name, torch.from_numpy(getattr(logistic, name)).float())
    weights.bias_1 = torch.tensor([logistic.bias], dtype=torch.float32)
    sha256 = write_network(Path(path), weights, card.to_json())
    return f"{card.name}-{sha256[:12]}"


def load_verifier(path: str | Path) -> Verifier:
    """Load a verifier from its weights file.

    Raises:
        ValueError: The weights are missing or damaged, or the card is missing or not that of a verifier.
    """
    path = Path(path)
    sha256 = hash_weights(path)
    try:
        card = VerifierCard.from_json(read_card(path, sha256))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.with_suffix('.json')}: {error}") from error
    weights = _LogisticWeights()
    fill_network(path, weights, read_safetensors(path))
    logistic = Logistic(
        mean_F=weights.mean_F.double().numpy(),
        std_F=weights.std_F.double().numpy(),
        weights_F=weights.weights_F.double().numpy(),
        bias=float(weights.bias_1),
    )
    return Verifier(verifier_id=f"{card.name}-{sha256[:12]}", logistic=logistic, card=card)
