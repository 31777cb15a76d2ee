"""Figures of a loop: what each model costs annotators and how good its masks are, with intervals over photographs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.evaluation import scores
from engine.evaluation.scores import Estimate, MaskScore

CLICKED = ("noc85", "miou_1", "miou_3")
"""Metrics that the evaluation measures."""
WORKED = ("simulated_seconds_per_mask", "clicks_per_mask")
"""Metrics of simulated annotators at work."""


@dataclass(frozen=True, kw_only=True)
class WorkedMask:
    """A mask that a simulated annotator made on an image that never trains."""

    image: str
    seconds: float
    """Simulated seconds, those to find the object included."""
    clicks: int


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One model of a round: trained with the new masks, or as long without them."""

    round: int
    arm: str
    """`new masks`, `control`, or `start` for the model that the loop begins with."""
    seed: int
    model_id: str
    masks: int
    """Number of masks of people that the model was trained on or could have been."""
    decision: str
    """What the gate decided about the model; empty for a control."""
    clicked: tuple[MaskScore, ...]
    worked: tuple[WorkedMask, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the arm as the JSON object that `gigamask loop --json` prints."""
        content: dict[str, Any] = {name: getattr(self, name) for name in ("round", "arm", "seed", "model_id", "masks")}
        content["decision"] = self.decision or None
        for name in (*WORKED, *CLICKED):
            content |= scores.figure_json(name, self.figure(name))
        return content

    def figure(self, name: str) -> Estimate | None:
        """Compute a metric; None where it was not measured."""
        if name in WORKED:
            values = _work_values(self.worked, name)
            return scores.mean_over_masks(self.worked, values, self.seed) if len(values) else None
        if name == "noc85" and not _has_noc(self.clicked):
            return None
        return scores.mean_over_masks(self.clicked, _click_values(self.clicked, name), self.seed)


def summarise(arms: Sequence[Arm]) -> dict[str, Any]:
    """Summarise what was measured so far as the document that `gigamask loop --json` prints.

    `start` has the model that each seed began with, as round 0; `gains` the gain over the control of each round;
    `gain_over_control` that of the last one.
    """
    compared = sorted(
        {arm.round for arm in arms if arm.arm == "new masks"} & {arm.round for arm in arms if arm.arm == "control"}
    )
    gains = [gain_over_control(arms, number) for number in compared]
    return {
        "start": [arm.to_json() for arm in arms if arm.arm == "start"],
        "rounds": [arm.to_json() for arm in arms if arm.arm != "start"],
        "gains": gains,
        "gain_over_control": gains[-1] if gains else None,
    }


def gain_over_control(arms: Sequence[Arm], number: int) -> dict[str, Any]:
    """Subtract the controls of a round from its models with new masks, over all seeds, paired by photograph.

    A seed whose round is not complete is left out.
    """
    of_round = [arm for arm in arms if arm.round == number]
    complete = {arm.seed for arm in of_round if arm.arm == "control"} & {
        arm.seed for arm in of_round if arm.arm == "new masks"
    }
    new, control = (
        [arm for arm in of_round if arm.arm == name and arm.seed in complete] for name in ("new masks", "control")
    )
    gain: dict[str, Any] = {"round": number}
    for name in (*WORKED, *CLICKED):
        gain |= scores.figure_json(name, _difference(new, control, name))
    return gain


def _difference(new: Sequence[Arm], control: Sequence[Arm], name: str) -> Estimate | None:
    after = [mask for arm in new for mask in (arm.worked if name in WORKED else arm.clicked)]
    before = [mask for arm in control for mask in (arm.worked if name in WORKED else arm.clicked)]
    if name == "noc85" and not _has_noc(before):  # type: ignore[arg-type]
        return None
    values = _work_values if name in WORKED else _click_values
    return scores.difference_of_means(before, values(before, name), after, values(after, name), seed=0)  # type: ignore[arg-type]


def _click_values(masks: Sequence[MaskScore], name: str) -> np.ndarray:
    return scores.figure_values(masks, "miou_1_chosen" if name == "miou_1" else name)


def _work_values(masks: Sequence[WorkedMask], name: str) -> np.ndarray:
    return np.array([mask.clicks if name == "clicks_per_mask" else mask.seconds for mask in masks], dtype=np.float64)


def _has_noc(masks: Sequence[MaskScore]) -> bool:
    """Whether the annotator went on clicking after the third click where a mask was not good yet."""
    return all(len(mask.iou_after) > 3 or mask.clicks_to(0.85) is not None for mask in masks)


def describe_arm(content: Mapping[str, Any]) -> str:
    """Say the figures of an arm on one line."""
    figures = [f"{name} {content[name]:.3f}" for name in (*WORKED, *CLICKED) if content[name] is not None]
    decided = f" ({content['decision']})" if content["decision"] else ""
    return f"seed {content['seed']}, round {content['round']}, {content['arm']}{decided}: {', '.join(figures)}"
