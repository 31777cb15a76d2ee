"""Settings of an evaluation and of the promotion gate.

This module needs no torch, so that a command can check the settings before it starts.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from engine.evaluation.scores import CLICK_CAP

ClickPolicyName = Literal["centre", "jittered"]
"""Name of the rule by which the simulated annotator places its clicks, a key of
`engine.evaluation.annotator.POLICIES`."""
CLICK_POLICIES: tuple[str, ...] = get_args(ClickPolicyName)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of an evaluation: which metrics to measure, and on which images and masks."""

    clicks: tuple[int, ...] = (1,)
    """Numbers of clicks, 1 to 20, after which the mean IoU is reported; one click is always measured."""
    noc: bool = False
    """Whether to count the clicks a mask needs to reach IoU .85 and .90, at most 20; many times slower than one
    click."""
    boxes: bool = False
    """Whether to measure each mask's own box as a prompt, besides the clicks: once, and with one refinement."""
    click_policy: ClickPolicyName = "centre"
    """Place of each click: `centre` is the region's deepest point, as in published evaluations; `jittered` scatters
    around that point, as people's clicks do."""
    min_area_fraction: float = 0.001
    """Area of the smallest mask to measure, as a fraction of the image. Smaller masks, often specks, are counted as
    left out."""
    image_ids: Literal["all", "even", "odd"] = "all"
    """Image ids to measure. By custom, images with even ids train and calibrate, and images with odd ids evaluate."""
    max_images_per_domain: int | None = None
    """Largest number of images of a domain, drawn at random; None means all."""
    max_masks_per_image: int | None = None
    """Largest number of masks of an image, drawn at random; None means all."""
    seed: int = 0
    """Seed of every random draw: images, masks, jittered clicks and the bootstrap."""

    def __post_init__(self) -> None:
        if not self.clicks or not all(1 <= number <= CLICK_CAP for number in self.clicks):
            raise ValueError(f"got clicks {self.clicks}, expected numbers from 1 to {CLICK_CAP}")
        if self.click_policy not in CLICK_POLICIES:
            raise ValueError(f"got click policy {self.click_policy!r}, expected one of {', '.join(CLICK_POLICIES)}")
        if self.image_ids not in ("all", "even", "odd"):
            raise ValueError(f"got image_ids {self.image_ids!r}, expected all, even or odd")
        if not 0 <= self.min_area_fraction < 1:
            raise ValueError(f"got min_area_fraction {self.min_area_fraction}, expected 0 <= fraction < 1")
        for name in ("max_images_per_domain", "max_masks_per_image"):
            if (limit := getattr(self, name)) is not None and limit < 1:
                raise ValueError(f"got {name} {limit}, expected at least 1, or none for no limit")

    @property
    def figure_names(self) -> tuple[str, ...]:
        """Names of the metrics to measure, in the order of the report."""
        names = ["miou_1_chosen", "miou_1_best3", "boundary_iou"]
        names += [f"miou_{number}" for number in sorted(set(self.clicks)) if number > 1]
        return tuple(names + ["miou_box", "miou_box_refined"] * self.boxes + ["noc85", "noc90"] * self.noc)


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Limits of the promotion gate."""

    clicks: tuple[int, ...] = (1, 3)
    """Numbers of clicks after which the candidate must gain."""
    min_images: int = 6
    """Smallest number of photographs of the evaluation set. All n photographs gain by chance with probability 2^-n if a
    model is neither better nor worse, and then the whole interval of the gain lies above 0; 6 keep that below 2.5 %."""
    frozen_from_images: int = 20
    """Number of photographs from which on an evaluation set of held-out images stays the same; a smaller one grows with
    each round that is closed."""
    min_gain: float = 0.0
    """Mean IoU, in [0, 1], above which the whole 95 % interval of the gain must lie."""
    max_domain_drop: float = 0.02
    """Largest fall of the mean IoU of any one domain, after any of the numbers of clicks, in [0, 1]."""
    max_forgotten: float = 0.02
    """Largest fall of the mean IoU on what the promoted model knew before, in [0, 1]."""
    max_calibration_increase: float = 0.02
    """Largest growth of the expected error of predicted IoUs, in [0, 1]."""
    max_latency_ratio: float = 1.25
    """Largest time of one image and one click, as a multiple of the promoted model's."""
    max_size_ratio: float = 1.25
    """Largest number of parameters, as a multiple of the promoted model's."""
    known_scenes: int = 24
    """Number of procedural scenes that stand for what was known before, where no folder does."""

    def __post_init__(self) -> None:
        if not self.clicks or min(self.clicks) < 1:
            raise ValueError(f"gate.clicks: got {self.clicks}, expected numbers of at least 1")
        for name in ("min_images", "frozen_from_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"gate.{name}: got {getattr(self, name)}, expected at least 1")
        for name in ("min_gain", "max_domain_drop", "max_forgotten", "max_calibration_increase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gate.{name}: got {getattr(self, name)}, expected a number in [0, 1]")
        for name in ("max_latency_ratio", "max_size_ratio"):
            if not getattr(self, name) > 0:
                raise ValueError(f"gate.{name}: got {getattr(self, name)}, expected a number above 0")


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """Settings of a promotion: how to measure, and the limits."""

    evaluate: EvaluationConfig = field(
        default_factory=lambda: EvaluationConfig(clicks=(1, 3), max_masks_per_image=16, max_images_per_domain=200)
    )
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        missing = set(self.gate.clicks) - {1, *self.evaluate.clicks}
        if missing:
            raise ValueError(
                f"evaluate.clicks {self.evaluate.clicks}: expected those of gate.clicks, {sorted(missing)}"
            )
