"""An audit: people improve every mask of a random sample of images; how little they change says how good masks are.

draw -> freeze -> annotators -> compare before and after

"Segment Anything", section 5: 500 random images, about 50,000 masks; 94 % of the pairs had an IoU above 90 %, and 97 %
above 75 %. The sample and its masks stand in the round, so that an audit that is asked for again is the same one.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from stages.rounds.agreement import Estimate, estimate_pooled
from stages.rounds.answers import Answer
from stages.rounds.choose import Order, choose_images
from stages.rounds.prefill_sources import masks_of_dataset
from storage.dataset import Dataset
from storage.errors import InvalidInput
from storage.workspace.records import SHOW_NOTES, ClientRequest, Origin, Round, RoundSpec, RoundState, TaskSpec
from storage.workspace.workspace import Workspace

PAPER_IMAGES = 500
"""Number of images of the paper's audit."""
PAPER_FRACTIONS = (0.94, 0.97)
"""Fractions of the paper's pairs above an IoU of 0.9 and of 0.75."""
_REQUESTS = uuid.UUID("b4b3c0de-6f0a-5d0c-9a53-5b1f2f8e7c14")
"""Namespace of the ids of the requests that open audits."""
BINS = 20
"""Number of bins of the histogram of IoU."""
GUIDELINES = """\
This is an audit: improve every mask until it is as exact as you can make it, with clicks, brush and eraser.
Reject a mask that is no object or no part of one. Accept a mask that is good already as it is. Do not hurry.
You may add masks that are missing, but that is not what is measured.
"""
"""Guidelines for annotators."""


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """Audit that somebody wants; the same request gives the same audit."""

    sample: int = PAPER_IMAGES
    """Number of images to draw; all where the dataset has fewer with masks."""
    seed: int = 0
    """Seed of the draw."""
    masks: str = "stage = 'fully_automatic'"
    """SQL condition on the table `masks` for the masks to audit; images without such a mask are not drawn."""


@dataclass(frozen=True, kw_only=True)
class AuditFigures:
    """Comparison of masks before and after people improved them. A mask that they rejected counts with an IoU of 0."""

    __pydantic_config__ = SHOW_NOTES

    images: int
    """Number of images that were answered and began with masks."""
    masks: int
    """Number of masks that were compared."""
    unchanged: int
    """Number of masks that were left as they were."""
    rejected: int
    """Number of masks that were rejected."""
    added: int
    """Number of masks that annotators made anew; they are not compared."""
    above_90: Estimate | None
    """Fraction of the masks with an IoU above 0.9; None without masks."""
    above_75: Estimate | None
    """Fraction of the masks with an IoU above 0.75; None without masks."""
    mean_iou: Estimate | None
    """Mean IoU of the masks before and after; None without masks."""
    histogram: tuple[int, ...]
    """Number of masks in each of `BINS` equal bins of IoU, from 0 to 1."""


def open_audit(
    dataset: Dataset, workspace: Workspace, request: AuditRequest, *, actor: str = "command line"
) -> tuple[Round, bool]:
    """Find the round that was opened for the same request, or open one; return it, and whether it is new.

    Of two that ask for the same audit at the same moment, one opens it and the other finds it.

    Raises:
        ValueError: The sample or the condition is wrong, or no image has such masks.
    """
    if request.sample < 1:
        raise InvalidInput(f"sample {request.sample}: expected at least 1 image")
    earlier = _rounds_for(workspace, request)
    for known in earlier:
        if known.state is not RoundState.CANCELLED:
            return known, False
    dataset.fold()
    images = choose_images(dataset, _order(request), count=request.sample)
    masks = masks_of_dataset(request.masks)(dataset, images)
    tasks = [
        TaskSpec(image_id=each.image_id, height=each.height, width=each.width, prefill=masks[each.image_id])
        for each in images
    ]
    spec = RoundSpec(
        stage="semi_automatic",
        tasks=tuple(tasks),
        name=f"Audit of {len(tasks)} images",
        guidelines=GUIDELINES,
        settings={"audit": asdict(request), "prefill": request.masks, "seed": request.seed},
    )
    return workspace.rounds.open_once(spec, _client_request(request, number=len(earlier)), actor=actor)


def compare(answers: Sequence[Answer]) -> AuditFigures:
    """Compare the masks that images began with and what became of them."""
    by_image = [ious for ious in map(_ious, answers) if ious]
    every = np.array([iou for some in by_image for iou in some])
    final = [mask for answer in answers for mask in answer.final.masks]
    return AuditFigures(
        images=len(by_image),
        masks=len(every),
        unchanged=sum(mask.origin is Origin.PREFILL_ACCEPTED for mask in final),
        rejected=sum(len(answer.final.rejected) for answer in answers),
        added=sum(mask.origin is Origin.MADE for mask in final),
        above_90=estimate_pooled([[float(iou > 0.9) for iou in some] for some in by_image]),
        above_75=estimate_pooled([[float(iou > 0.75) for iou in some] for some in by_image]),
        mean_iou=estimate_pooled(by_image),
        histogram=tuple(int(count) for count in np.histogram(every, bins=BINS, range=(0, 1))[0]),
    )


def _rounds_for(workspace: Workspace, request: AuditRequest) -> list[Round]:
    """List the rounds that were opened for a request, oldest first; those that were cancelled, too."""
    return [each for each in workspace.rounds.read_all() if each.settings.get("audit") == asdict(request)]


def _client_request(request: AuditRequest, *, number: int) -> ClientRequest:
    """Make the request that opens an audit once; the number counts the audits that were cancelled before."""
    content = {**asdict(request), "number": number}
    return ClientRequest(request_id=str(uuid.uuid5(_REQUESTS, json.dumps(content, sort_keys=True))), content=content)


def _ious(answer: Answer) -> list[float]:
    masks = (*answer.final.masks, *answer.final.rejected)
    return [iou for iou in map(answer.prefill_iou, masks) if iou is not None]


def _order(request: AuditRequest) -> Order:
    """Make the order that shuffles the images with masks to audit; the function raises ValueError for a wrong SQL."""

    def order(dataset: Dataset) -> list[int]:
        rows = dataset.query(f"SELECT DISTINCT image_id FROM masks WHERE ({request.masks}\n)")
        ids = np.sort(rows["image_id"].to_numpy())
        if not ids.size:
            raise InvalidInput(f"no image of {dataset.uri} has a mask with {request.masks}; nothing to audit")
        return [int(each) for each in np.random.default_rng([request.seed, 3]).permutation(ids)]

    return order
