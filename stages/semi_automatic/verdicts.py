"""Verdicts on masks, with the features that a verifier is fitted on: from labelled images, or from people's reviews.

labelled images -> prefilled masks without filters -> IoU with the ground truth -> verdicts
workspace -> reviewers' answers, and prefilled masks accepted or rejected -> images of the dataset -> verdicts
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.detector.config import DetectConfig
from engine.detector.weights import Detector
from engine.interactive.zoom import open_with_sam
from engine.labelled import LabelledImage, read_pixels
from engine.model.weights import Model
from engine.verifier.features import FEATURES, mask_features
from engine.verifier.verifier import Verdicts
from stages.semi_automatic.prefill import PrefillConfig, PrefilledMask, prefill_opened
from stages.stored_pixels import read_stored_pixels
from storage import rle
from storage.dataset import Dataset
from storage.rle import Rle
from storage.workspace.records import Origin
from storage.workspace.workspace import Workspace

Progress = Callable[[int, int], None]
"""Function that is called with the number of images done and the number of images in all."""


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
class ReviewedMask:
    """Mask that people gave a verdict on."""

    rle: Rle
    predicted_iou: float
    stability_score: float
    good: bool


def collect_verdicts(
    model: Model,
    detector: Detector,
    images: Sequence[LabelledImage],
    config: VerdictConfig | None = None,
    *,
    on_progress: Progress = lambda done, total: None,
) -> Verdicts:
    """Make masks of labelled images, and judge each by the ground truth of all annotators.

    The verdict is whether the mask's IoU with some mask of the ground truth reaches `config.min_iou`.

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
    best_N: np.ndarray = rle.iou_matrix([mask.rle for mask in masks], truth).max(axis=1, initial=0.0)
    return best_N


def collect_reviews(
    model: Model,
    dataset: Dataset,
    workspace: Workspace,
    *,
    on_progress: Progress = lambda done, total: None,
) -> Verdicts:
    """Read people's verdicts on single masks from a workspace, and compute the features of these masks.

    `read_reviewed_masks` says whose verdicts count. Masks without scores, which no model made, are left out.

    Raises:
        ValueError: The workspace has no verdict on a mask that a model made.
        NotFound: The dataset has no image of that id.
    """
    reviewed = read_reviewed_masks(workspace)
    if not reviewed:
        raise ValueError(
            f'{workspace.database.place}: got no verdict on a mask that a model made; reviewers answer "is this mask '
            'good?", or give labelled images with --data'
        )
    features, good, photographs = [], [], []
    for done, (image_id, masks) in enumerate(reviewed.items()):
        on_progress(done, len(reviewed))
        pixels_HW3 = read_stored_pixels(dataset, image_id)
        features.append(mask_features(open_with_sam(model, pixels_HW3), pixels_HW3, masks))
        good += [mask.good for mask in masks]
        photographs += [str(image_id)] * len(masks)
    on_progress(len(reviewed), len(reviewed))
    return Verdicts(
        features_NF=np.concatenate(features), good_N=np.array(good, dtype=bool), photograph_N=np.array(photographs)
    )


def read_reviewed_masks(workspace: Workspace) -> dict[int, list[ReviewedMask]]:
    """Read the masks that a model made and people judged, by image id.

    Reviewers decide about a mask by majority; the newest answer of each counts. Without reviewers, an annotator who
    accepted a prefilled mask in so many words, or rejected it, has decided.
    """
    answers: dict[tuple[int, str], dict[str, str]] = {}
    for verdict in workspace.submissions.verdicts():  # oldest first: the newest answer of a reviewer stays
        if verdict.question == "mask_good":
            answers.setdefault((verdict.submission_id, verdict.mask), {})[verdict.reviewer] = verdict.answer
    reviewed: dict[int, list[ReviewedMask]] = {}
    for submission in workspace.submissions.read():
        state = workspace.operations.state(submission.task_id, submission.annotator, revision=submission.revision)
        judged: list[ReviewedMask] = []
        for mask in (*state.masks, *state.rejected):
            good = _majority(answers.get((submission.submission_id, mask.mask), {}))
            if good is None and mask in state.rejected:
                good = False
            elif good is None and mask.decided and mask.origin is Origin.PREFILL_ACCEPTED:
                good = True
            if good is not None and mask.predicted_iou is not None and mask.stability_score is not None:
                scores = {"predicted_iou": mask.predicted_iou, "stability_score": mask.stability_score}
                judged.append(ReviewedMask(rle=mask.rle, good=good, **scores))
        if judged:
            image_id = workspace.rounds.task(submission.task_id).image_id
            reviewed.setdefault(image_id, []).extend(judged)
    return reviewed


def _majority(answer_of: Mapping[str, str]) -> bool | None:
    """Tell whether more reviewers said yes than no; None for as many of each."""
    counts = Counter(answer_of.values())
    return None if counts["yes"] == counts["no"] else counts["yes"] > counts["no"]
