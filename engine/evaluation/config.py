"""Settings of an evaluation. This module needs no torch, so that a command can check the settings before it starts."""

from dataclasses import dataclass
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
    """Whether to measure each mask's own box as a prompt, besides the clicks."""
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
        return tuple(names + ["miou_box"] * self.boxes + ["noc85", "noc90"] * self.noc)
