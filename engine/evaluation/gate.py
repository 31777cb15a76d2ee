"""The promotion gate: what must hold before a candidate replaces the promoted model, each check with its numbers.

Both models are measured on the same masks. Gains and losses are paired differences with bootstrap intervals over
photographs (`engine.evaluation.scores`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.evaluation import scores
from engine.evaluation.clicked import Evaluation
from engine.evaluation.config import GateConfig
from engine.evaluation.scores import Estimate
from engine.interactive.segment import Click, ObjectPrompt
from engine.interactive.zoom import make_segmenter
from engine.model.weights import Model


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of a model."""

    click_s: float
    """Time to open one image and answer one click, in seconds: processor time on a CPU, wall time on a GPU."""
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of the gate, with what was measured."""

    name: str
    passed: bool
    value: float | None
    """Measured value; None where it could not be measured."""
    interval: tuple[float, float] | None
    """95 % interval of the value; None where it has none."""
    limit: float
    says: str
    """The finding as one sentence."""

    def to_json(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return {
            "name": self.name,
            "passed": self.passed,
            "value": None if self.value is None else round(self.value, 5),
            "interval": [round(edge, 5) for edge in self.interval] if self.interval else None,
            "limit": self.limit,
            "says": self.says,
        }


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Measurements of one model, on the frozen set and on what was known before."""

    frozen: Evaluation
    known: Evaluation
    costs: Costs


def judge(promoted: Measurement, candidate: Measurement, config: GateConfig) -> tuple[Check, ...]:
    """Compare a candidate with the promoted model; the candidate is to be promoted if every check has passed.

    Raises:
        ValueError: The two were not measured on the same masks.
    """
    names = ["miou_1_chosen" if clicks == 1 else f"miou_{clicks}" for clicks in config.clicks]
    before, after = promoted.frozen, candidate.frozen
    checks = [_check_images(after, config)]
    checks += [_check_gain(before, after, name, config) for name in names]
    checks += [
        _check_domain(before, after, domain, names, config)
        for domain in dict.fromkeys(score.domain for score in before.scores)
    ]
    checks += [_check_forgotten(promoted.known, candidate.known, names, config)]
    checks += [_check_calibration(before, after, config)]
    checks += [
        _check_ratio(
            "latency", "a click takes", promoted.costs.click_s, candidate.costs.click_s, config.max_latency_ratio
        ),
        _check_ratio("size", "it has", promoted.costs.parameters, candidate.costs.parameters, config.max_size_ratio),
    ]
    return tuple(checks)


def measure_costs(models: Sequence[Model], *, side_px: int = 256, rounds: int = 3) -> list[Costs]:
    """Measure what models cost, one image and click of each in turn; the shortest of the rounds counts.

    Args:
        models: Models to measure.
        side_px: Side of the image.
        rounds: Number of measurements of each model; one more before them is not counted.
    """
    image_HW3 = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    prompt = ObjectPrompt(clicks=(Click(x=side_px // 2, y=side_px // 2),))
    shortest_s = [float("inf")] * len(models)
    for turn in range(rounds + 1):
        for number, model in enumerate(models):
            on_gpu = model.sam.device.type == "cuda"
            clock = time.perf_counter if on_gpu else time.process_time
            began = clock()
            make_segmenter(model).open(image_HW3).segment([prompt])
            if on_gpu:
                torch.cuda.synchronize()
            if turn:
                shortest_s[number] = min(shortest_s[number], clock() - began)
    counts = [sum(weight.numel() for weight in model.sam.parameters()) for model in models]
    return [Costs(click_s=each, parameters=count) for each, count in zip(shortest_s, counts, strict=True)]


def describe(checks: Sequence[Check]) -> str:
    """Say in words why a candidate is promoted or refused: every failed check, or else the gains."""
    failed = [check.says for check in checks if not check.passed]
    if failed:
        return "refused: " + "; ".join(failed)
    return "promoted: " + "; ".join(check.says for check in checks if check.name.startswith("gain"))


def _check_images(after: Evaluation, config: GateConfig) -> Check:
    images, limit = len({score.image for score in after.scores}), config.min_images
    says = f"the evaluation set has {images} photographs with masks, at least {limit} are needed"
    return Check(name="photographs", passed=images >= limit, value=float(images), interval=None, limit=limit, says=says)


def _check_gain(before: Evaluation, after: Evaluation, name: str, config: GateConfig) -> Check:
    gain = scores.paired_difference(before.scores, after.scores, name, after.config.seed)
    clicks = _clicks(name)
    if gain.interval is None:
        says = f"the gain at {clicks} has no interval, because the evaluation set has fewer than two photographs"
        return _check(f"gain at {clicks}", False, gain, config.min_gain, says)
    passed = gain.interval[0] > config.min_gain
    where = "lies above" if passed else "does not lie above"
    says = f"the gain at {clicks} is {_points(gain)}, which {where} {config.min_gain:.3f}"
    return _check(f"gain at {clicks}", passed, gain, config.min_gain, says)


def _check_domain(
    before: Evaluation, after: Evaluation, domain: str, names: Sequence[str], config: GateConfig
) -> Check:
    """Check that one domain does not fall, by the worst of the numbers of clicks."""
    pair = [[score for score in each.scores if score.domain == domain] for each in (before, after)]
    change, name = _worst_change(pair[0], pair[1], names, after.config.seed)
    passed = change.value >= -config.max_domain_drop
    says = (
        f"domain {domain} changes by {_points(change)} at {_clicks(name)}, at most -{config.max_domain_drop:.3f} is "
        "allowed"
    )
    return _check(f"domain {domain}", passed, change, -config.max_domain_drop, says)


def _check_forgotten(before: Evaluation, after: Evaluation, names: Sequence[str], config: GateConfig) -> Check:
    change, name = _worst_change(before.scores, after.scores, names, after.config.seed)
    passed = change.value >= -config.max_forgotten
    verb = "keeps" if passed else "forgets"
    says = (
        f"it {verb} what was known before: {_points(change)} at {_clicks(name)}, at most -{config.max_forgotten:.3f} "
        "is allowed"
    )
    return _check("known before", passed, change, -config.max_forgotten, says)


def _check_calibration(before: Evaluation, after: Evaluation, config: GateConfig) -> Check:
    limit = config.max_calibration_increase
    if before.calibration is None or after.calibration is None:
        says = "predicted IoUs cannot be compared, because a model predicts none"
        return Check(name="calibration", passed=False, value=None, interval=None, limit=limit, says=says)
    was, now = before.calibration.expected_error, after.calibration.expected_error
    says = f"the expected error of predicted IoUs goes from {was:.3f} to {now:.3f}, at most {limit:.3f} more is allowed"
    return Check(name="calibration", passed=now - was <= limit, value=now - was, interval=None, limit=limit, says=says)


def _check_ratio(name: str, verb: str, before: float, after: float, limit: float) -> Check:
    ratio = after / before
    unit = "as long as before" if name == "latency" else "as many parameters as before"
    says = f"{verb} {ratio:.2f} times {unit}, at most {limit:.2f} times is allowed"
    return Check(name=name, passed=ratio <= limit, value=ratio, interval=None, limit=limit, says=says)


def _worst_change(
    before: Sequence[scores.MaskScore], after: Sequence[scores.MaskScore], names: Sequence[str], seed: int
) -> tuple[Estimate, str]:
    changes = [(scores.paired_difference(before, after, name, seed), name) for name in names]
    return min(changes, key=lambda change: change[0].value)


def _check(name: str, passed: bool, measured: Estimate, limit: float, says: str) -> Check:
    return Check(name=name, passed=passed, value=measured.value, interval=measured.interval, limit=limit, says=says)


def _clicks(name: str) -> str:
    number = 1 if name == "miou_1_chosen" else int(name.removeprefix("miou_"))
    return "1 click" if number == 1 else f"{number} clicks"


def _points(change: Estimate) -> str:
    if change.interval is None:
        return f"{change.value:+.3f}"
    return f"{change.value:+.3f} [{change.interval[0]:+.3f}, {change.interval[1]:+.3f}]"
