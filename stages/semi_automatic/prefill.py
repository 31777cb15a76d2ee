"""Prefill of an image: confident masks that annotators start from in the semi-automatic stage.

image -> detector's boxes -> SAM's masks -> predicted-IoU and stability filters -> duplicates out -> prefilled masks

The masks of the automatic generator are the alternative. A round leaves a fraction of its images empty, so that what
prefilling saves or costs can be measured; image and round decide which, the same on every machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from engine.automatic.config import GenerateConfig
from engine.automatic.filters import is_confident, is_stable
from engine.automatic.generate import generate_masks
from engine.detector.box_masks import masks_of_boxes
from engine.detector.config import DetectConfig
from engine.detector.detect import detect
from engine.detector.weights import Detector, check_fits
from engine.interactive.zoom import SamOpened, open_with_sam
from engine.kernels.regions import clean_small_regions
from engine.model.weights import Model
from storage import rle
from storage.rle import Rle


class Removed(StrEnum):
    """Reasons for which a box or its mask does not prefill an image, in the order in which they are applied."""

    LOW_SCORE = "low_score"
    """Score of the box below the detector's threshold."""
    LOW_PREDICTED_IOU = "low_predicted_iou"
    """Predicted IoU of the mask not above the model's threshold."""
    LOW_STABILITY = "low_stability"
    """Stability of the mask below the model's threshold."""
    TOO_SMALL = "too_small"
    """No island of the mask as large as `min_region_px`."""
    COVERS_IMAGE = "covers_image"
    """Mask of nearly the whole image."""
    DUPLICATE = "duplicate"
    """Mask IoU with a mask of higher rank above `max_mask_iou`."""


@dataclass(frozen=True, kw_only=True)
class PrefillConfig:
    """Settings of the prefill."""

    detect: DetectConfig = field(default_factory=DetectConfig)
    """Settings of the detector; its `min_score` is not used."""
    min_box_score: float | None = None
    """Lowest score of a box, in [0, 1]; None means the threshold of the detector's card."""
    min_predicted_iou: float | None = None
    """Predicted IoU that a mask must exceed, in [0, 1]; None means the threshold of the model's card."""
    min_stability: float | None = None
    """Stability that a mask must reach, in [0, 1]; None means the threshold of the model's card."""
    max_mask_iou: float = 0.7
    """Mask IoU above which two masks count as duplicates, in (0, 1]."""
    min_region_px: int = 100
    """Area in pixels below which an island is removed and a hole is filled; 0 means no cleaning."""
    max_area_fraction: float = 0.95
    """Fraction of the image that a mask's area must stay below, in (0, 1]."""

    def __post_init__(self) -> None:
        checks = [
            *((name, getattr(self, name)) for name in ("min_box_score", "min_predicted_iou", "min_stability")),
            *((name, getattr(self, name) or -1) for name in ("max_mask_iou", "max_area_fraction")),
        ]
        for name, got in checks:
            if got is not None and not 0 <= got <= 1:
                raise ValueError(f"prefill.{name}: got {getattr(self, name)}, expected a fraction in [0, 1]")
        if self.min_region_px < 0:
            raise ValueError(f"prefill.min_region_px: got {self.min_region_px}, expected at least 0")


@dataclass(frozen=True, kw_only=True)
class PrefilledMask:
    """Mask that prefills an image."""

    rle: Rle
    predicted_iou: float
    """SAM's own estimate of the mask's IoU with the object."""
    stability_score: float
    """Stability in [0, 1]: IoU of the mask cut at a higher and at a lower threshold."""
    crop_xyxy: tuple[int, int, int, int]
    """Window of the image in which the mask was made, half-open, in pixels."""
    box_score: float | None
    """Score of the box that prompted the mask; None for a mask of the automatic generator."""
    prompt_box_xyxy: tuple[float, float, float, float] | None
    """Box that prompted the mask, in pixels; None for a mask of the automatic generator."""
    point_xy: tuple[float, float] | None
    """Point that prompted the mask, in pixels; None for a mask of the detector."""


@dataclass(frozen=True, kw_only=True)
class Prefill:
    """Prefilled masks of one image, and what was left out."""

    masks: tuple[PrefilledMask, ...]
    """Masks, the most trusted first."""
    model_id: str
    """Id of the SAM that made the masks."""
    detector_id: str
    """Id of the detector that proposed the boxes; empty for masks of the automatic generator."""
    removed: Mapping[str, int]
    """Number of boxes or masks left out, by reason: a member of `Removed`, or a filter of the generator."""


def prefill_image(
    model: Model, detector: Detector, image_HW3: np.ndarray, config: PrefillConfig | None = None
) -> Prefill:
    """Prefill an image (uint8 RGB [H, W, 3]) with masks of the detector's boxes.

    Raises:
        ValueError: The detector reads the embeddings of another image encoder than the model's.
    """
    check_fits(detector, model)
    return prefill_opened(model, detector, open_with_sam(model, image_HW3), config)


def prefill_opened(model: Model, detector: Detector, opened: SamOpened, config: PrefillConfig | None = None) -> Prefill:
    """Prefill an image that the model's segmenter has opened; the embeddings are computed once.

    The caller has checked that the detector fits the model (`load_detector` does).
    """
    config = config or PrefillConfig()
    removed: Counter[str] = Counter()

    # Boxes, and the masks of the confident ones
    found = detect(detector, opened, config.detect)
    min_score = detector.card.score_threshold if config.min_box_score is None else config.min_box_score
    sure_N = found.scores_N >= np.float32(min_score)
    removed[Removed.LOW_SCORE] += int((~sure_N).sum())
    masks = [
        PrefilledMask(
            rle=mask.rle,
            predicted_iou=mask.predicted_iou,
            stability_score=mask.stability_score,
            crop_xyxy=mask.crop_xyxy,
            box_score=float(score),
            prompt_box_xyxy=mask.prompt_box_xyxy,
            point_xy=None,
        )
        for mask, score in zip(masks_of_boxes(opened, found.boxes_N4[sure_N]), found.scores_N[sure_N], strict=True)
    ]

    # Filters, then duplicates
    masks = _filter(masks, model, config, removed)
    masks.sort(key=lambda mask: -mask.predicted_iou * (mask.box_score or 0.0))
    masks = _drop_duplicates(masks, config.max_mask_iou, removed)
    return Prefill(
        masks=tuple(masks), model_id=model.model_id, detector_id=detector.detector_id, removed=_by_name(removed)
    )


def prefill_automatically(
    model: Model,
    image_HW3: np.ndarray,
    generate: GenerateConfig | None = None,
    config: PrefillConfig | None = None,
) -> Prefill:
    """Prefill an image (uint8 RGB [H, W, 3]) with masks of the automatic generator, the alternative to the detector.

    The generator has filters and thresholds of its own (`generate`); of `config`, only `max_mask_iou` is used.
    """
    config = config or PrefillConfig()
    generated = generate_masks(model, image_HW3, generate or GenerateConfig())
    removed = Counter({reason.value: count for reason, count in generated.diagnostics.taken.items()})
    masks = [
        PrefilledMask(
            rle=mask.rle,
            predicted_iou=mask.predicted_iou,
            stability_score=mask.stability_score,
            crop_xyxy=mask.crop_xyxy,
            box_score=None,
            prompt_box_xyxy=None,
            point_xy=mask.point_xy,
        )
        for mask in sorted(generated.masks, key=lambda mask: -(mask.predicted_iou + mask.stability_score))
    ]
    masks = _drop_duplicates(masks, config.max_mask_iou, removed)
    return Prefill(masks=tuple(masks), model_id=model.model_id, detector_id="", removed=_by_name(removed))


def _filter(
    masks: Sequence[PrefilledMask], model: Model, config: PrefillConfig, removed: Counter[str]
) -> list[PrefilledMask]:
    """Return the confident and stable masks, cleaned of small islands and holes."""
    card = model.card
    min_iou = card.predicted_iou_threshold if config.min_predicted_iou is None else config.min_predicted_iou
    min_stability = card.stability_threshold if config.min_stability is None else config.min_stability
    kept = []
    for mask in masks:
        cleaned = clean_small_regions(mask.rle, config.min_region_px)
        area_px = rle.area(cleaned.rle)
        if not is_confident(np.array([mask.predicted_iou], dtype=np.float32), min_iou)[0]:
            removed[Removed.LOW_PREDICTED_IOU] += 1
        elif not is_stable(np.array([mask.stability_score], dtype=np.float32), min_stability)[0]:
            removed[Removed.LOW_STABILITY] += 1
        elif area_px == 0 or cleaned.largest_island_px < config.min_region_px:
            removed[Removed.TOO_SMALL] += 1
        elif area_px >= config.max_area_fraction * mask.rle.height * mask.rle.width:
            removed[Removed.COVERS_IMAGE] += 1
        else:
            kept.append(replace(mask, rle=cleaned.rle))
    return kept


def _drop_duplicates(masks: Sequence[PrefilledMask], max_mask_iou: float, removed: Counter[str]) -> list[PrefilledMask]:
    """Drop each mask that overlaps a mask of higher rank too much; nested parts and wholes both stay."""
    runs = [mask.rle for mask in masks]
    iou_NN = rle.iou_matrix(runs, runs)
    kept: list[int] = []
    for number in range(len(masks)):
        if all(iou_NN[number, better] <= max_mask_iou for better in kept):
            kept.append(number)
    removed[Removed.DUPLICATE] += len(masks) - len(kept)
    return [masks[number] for number in kept]


def _by_name(removed: Counter[str]) -> dict[str, int]:
    return {str(reason): count for reason, count in removed.items() if count}
