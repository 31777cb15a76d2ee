"""Measurement of how well a segmenter turns clicks into masks, compared with the ground truth.

The protocol is that of "Segment Anything", section 7. Each mask has a prompt of its own, a click at its deepest point,
which is the pixel farthest from the mask's edge. One click gives three candidates: `miou_1_chosen` takes the candidate
that the segmenter ranks first, and `miou_1_best3` takes the best of the three. `boundary_iou` compares the edges of the
candidate ranked first. Each further click goes into the larger error, together with the logits of the shown mask, and
gives one mask. IoU is computed at the image's resolution; metrics are means over masks with intervals over images
(`engine.evaluation.scores`). A box is prompted for once, and again with the predicted mask for one refinement, as
in the paper (appendix D.4). Shape letters: H/W the image, M candidates.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from engine.evaluation import scores
from engine.evaluation.annotator import POLICIES, iou, simulate_clicks
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.groups import compare_domains
from engine.evaluation.overlap import Chosen, measure_each
from engine.evaluation.scores import CLICK_CAP, Calibration, MaskScore, Summary
from engine.evaluation.source import ImageSource
from engine.interactive.segment import ObjectPrompt, OpenedImage, Segmenter
from engine.labelled import LabelledImage, read_pixels
from storage import rle
from storage.rle import Rle

REPORTED = (
    *("miou_1_chosen", "miou_1_best3", "boundary_iou", "miou_2", "miou_3", "miou_5", "miou_9"),
    *("miou_box", "miou_box_refined", "noc85", "noc90"),
)
"""Names of the metrics in `gigamask evaluate --json`, in their order there; metrics that were not measured are null."""
NOC_GOAL = 0.90
"""IoU at which the simulated annotator stops clicking, when clicks are counted."""
MASK_BYTES_AT_ONCE = 128_000_000
"""Limit of the candidate masks held in memory at a time, in bytes; a mask takes one byte per pixel."""
MAX_PROMPTS_AT_ONCE = 32
"""Largest number of prompts that are segmented in one call."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Counts of the images and masks that an evaluation left out; each field is one reason."""

    unlabelled_pictures: int = 0
    """Number of images without labels."""
    images_of_other_ids: int = 0
    images_over_limit: int = 0
    images_without_masks: int = 0
    """Number of images whose labels have no mask, or none that is large enough."""
    small_masks: int = 0
    masks_over_limit: int = 0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of a segmenter, and the scores of single masks that the metrics are computed from."""

    model: str
    model_id: str
    config: EvaluationConfig
    overall: Summary
    domains: dict[str, Summary]
    sizes: dict[str, Summary]
    """Metrics by the size of the masks; the keys are the names in `engine.evaluation.scores.SIZE_BINS`."""
    calibration: Calibration | None
    left_out: LeftOut
    scores: tuple[MaskScore, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Make the document that `gigamask evaluate --json` prints.

        Metrics that were not measured are null. Intervals over a single image are null too.
        """
        names = (*REPORTED, *(name for name in self.config.figure_names if name not in REPORTED))
        return {
            "model": self.model,
            "model_id": self.model_id,
            "overall": scores.summary_json(self.overall, names),
            "domains": {name: scores.summary_json(summary, names) for name, summary in self.domains.items()},
            "sizes": {name: scores.summary_json(summary, names) for name, summary in self.sizes.items()},
            "domain_tests": [
                asdict(each) for each in compare_domains(self.scores, self.config.figure_names, self.config.seed)
            ],
            "calibration": asdict(self.calibration) if self.calibration else None,
            "left_out": asdict(self.left_out),
            "settings": asdict(self.config),
            "mean_over": "masks",
            "interval": "95 %, bootstrap over photographs",
            "seconds": round(self.seconds, 2),
        }


def evaluate_source(
    segmenter: Segmenter,
    source: ImageSource,
    config: EvaluationConfig | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Measure a segmenter on the labelled images of a source, and count the source's unlabelled images as left out.

    Raises:
        ValueError: The source cannot list its images, no mask is left to measure, or an image cannot be read.
    """
    evaluation = evaluate(segmenter, source.images(), config, on_progress=on_progress)
    left_out = replace(evaluation.left_out, unlabelled_pictures=source.count_unlabelled())
    return replace(evaluation, left_out=left_out)


def evaluate(
    segmenter: Segmenter,
    images: Sequence[LabelledImage],
    config: EvaluationConfig | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Measure a segmenter on labelled images, several at a time (`engine.evaluation.overlap`).

    Args:
        segmenter: Segmenter to measure; several threads call it.
        on_progress: called with the number of images done and the number of images in all.

    Raises:
        ValueError: No mask is left to measure, or an image cannot be read.
    """
    config = config or EvaluationConfig()
    start_s = time.perf_counter()
    chosen, left_out = choose_masks(images, config)
    by_image = measure_each(lambda pair: score_image(segmenter, *pair, config), chosen, on_progress)
    mask_scores = [score for of_image in by_image for score in of_image]
    names, seed = config.figure_names, config.seed
    by_size = scores.summarise_by(mask_scores, scores.size_of, names, seed)
    return Evaluation(
        model=segmenter.name,
        model_id=segmenter.model_id,
        config=config,
        overall=scores.summarise(mask_scores, names, seed),
        domains=scores.summarise_by(mask_scores, lambda score: score.domain, names, seed),
        sizes={name: by_size[name] for name, _, _ in scores.SIZE_BINS if name in by_size},
        calibration=scores.calibrate(mask_scores),
        left_out=left_out,
        scores=tuple(mask_scores),
        seconds=time.perf_counter() - start_s,
    )


def choose_masks(images: Sequence[LabelledImage], config: EvaluationConfig) -> tuple[list[Chosen], LeftOut]:
    """Choose the images to measure, each with its (annotator, mask) pairs, and count what is left out.

    Random choices depend only on `config` and on the names of domains and images, so that every model is measured on
    the same masks.

    Raises:
        ValueError: No mask is left to measure.
    """
    kept = [image for image in images if config.image_ids in ("all", ("even", "odd")[image.image_id % 2])]
    by_domain: dict[str, list[LabelledImage]] = {}
    for image in kept:
        by_domain.setdefault(image.domain, []).append(image)
    limited = [
        image
        for domain, members in by_domain.items()
        for image in _draw(members, config.max_images_per_domain, _rng(config, domain))
    ]
    chosen, small, over, without = [], 0, 0, 0
    for image in limited:
        masks = [(annotator, mask) for annotator, drawn in image.masks_by_annotator.items() for mask in drawn]
        least_px = max(1, config.min_area_fraction * image.height * image.width)
        large = [(annotator, mask) for annotator, mask in masks if rle.area(mask) >= least_px]
        drawn = _draw(large, config.max_masks_per_image, _rng(config, f"{image.domain}/{image.stem}"))
        small, over, without = small + len(masks) - len(large), over + len(large) - len(drawn), without + (not drawn)
        if drawn:
            chosen.append((image, drawn))
    left_out = LeftOut(
        images_of_other_ids=len(images) - len(kept),
        images_over_limit=len(kept) - len(limited),
        images_without_masks=without,
        small_masks=small,
        masks_over_limit=over,
    )
    if not chosen:
        raise ValueError(
            f"got {len(images)} images without a mask to measure, expected masks of at least "
            f"{config.min_area_fraction:.2%} of the image; left out: {left_out}"
        )
    return chosen, left_out


def score_image(
    segmenter: Segmenter, image: LabelledImage, masks: Sequence[tuple[int, Rle]], config: EvaluationConfig
) -> list[MaskScore]:
    """Score a segmenter on the (annotator, mask) pairs of one image; each mask is prompted for on its own."""
    opened = segmenter.open(read_pixels(image))
    rng = _rng(config, f"{image.domain}/{image.stem}/clicks")
    at_once = max(1, min(MAX_PROMPTS_AT_ONCE, MASK_BYTES_AT_ONCE // (4 * image.height * image.width)))
    mask_scores = []
    for start in range(0, len(masks), at_once):
        part = masks[start : start + at_once]
        truths = [rle.decode(mask) for _, mask in part]
        sessions = simulate_clicks(
            opened,
            truths,
            POLICIES[config.click_policy],
            rng,
            min_clicks=max(config.clicks),
            max_clicks=CLICK_CAP if config.noc else max(config.clicks),
            until_iou=NOC_GOAL,
        )
        boxes = [rle.box_xyxy(mask) for _, mask in part]
        iou_box = _iou_of_boxes(opened, truths, boxes) if config.boxes else [(None, None)] * len(part)
        mask_scores += [
            MaskScore(
                domain=image.domain,
                image=f"{image.domain}/{image.stem}",
                annotator=annotator,
                area_fraction=rle.area(mask) / (image.height * image.width),
                predicted_iou_M=session.predicted_iou_M,
                iou_M=session.iou_M,
                iou_after=tuple(session.iou_after),
                boundary_iou=session.boundary_iou,
                iou_box=once,
                iou_box_refined=refined,
            )
            for (annotator, mask), session, (once, refined) in zip(part, sessions, iou_box, strict=True)
        ]
    return mask_scores


def _iou_of_boxes(
    opened: OpenedImage, truths: Sequence[np.ndarray], boxes: Sequence[tuple[int, int, int, int]]
) -> Sequence[tuple[float, float]]:
    """Prompt with each box, then with the box and the predicted mask; return the IoU of both masks, for each box."""
    once = opened.segment([ObjectPrompt(box_xyxy=box) for box in boxes])
    with_mask = [
        ObjectPrompt(
            box_xyxy=box,
            previous_logits_LL=answer.logits_MLL[answer.chosen],
            previous_crop_xyxy=answer.crop_of(answer.chosen),
        )
        for box, answer in zip(boxes, once, strict=True)
    ]
    refined = opened.segment(with_mask)
    return [
        (iou(before.masks_MHW[before.chosen], truth), iou(after.masks_MHW[after.chosen], truth))
        for before, after, truth in zip(once, refined, truths, strict=True)
    ]


def _rng(config: EvaluationConfig, name: str) -> np.random.Generator:
    return np.random.default_rng([config.seed, zlib.crc32(name.encode())])


def _draw(items: Sequence[T], limit: int | None, rng: np.random.Generator) -> list[T]:
    """Draw at most `limit` of the items at random, without replacement, and keep their order; None draws all."""
    if limit is None or len(items) <= limit:
        return list(items)
    return [items[number] for number in np.sort(rng.permutation(len(items))[:limit])]
