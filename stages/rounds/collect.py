"""From answers to the content of mask shards: records of masks, and the rows of the table `annotations`."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from stages.rounds.agreement import Partners, find_partners
from stages.rounds.answers import Answer
from stages.rounds.standing import Standing
from storage import rle
from storage.protocol.inputs import MaskKey
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, mask_id_of
from storage.tables.columns import ANNOTATIONS
from storage.workspace.fold import TaskMask
from storage.workspace.records import Origin

REJECTED = "prefill_rejected"
"""Origin of the rows of prefilled masks that were rejected."""
_NO_PARTNERS = Partners(agreed_fraction=None, agreed_iou=None)


def collect(
    answers: Sequence[Answer], images: Mapping[int, ImageRecord], plan: Plan, shard: PlannedShard, standing: Standing
) -> tuple[list[tuple[ImageRecord, list[MaskRecord]]], pa.Table]:
    """Turn the answers about the images of one shard into its masks and its rows of `annotations`.

    A prefilled mask that was accepted as it is gets a row, but is not stored again where the dataset holds it, or what
    another round made of it, or where somebody withdrew it.
    """
    masks: dict[int, list[MaskRecord]] = {image_id: [] for image_id in images}
    rows: list[dict[str, Any]] = []
    ordinals = dict.fromkeys(images, 0)
    for answer, partners in zip(answers, _partners(answers), strict=True):
        image = images[answer.task.image_id]
        for mask, origin in masks_of(answer):
            place, is_new = place_of_mask(answer, mask, origin, standing)
            if place is None:
                named = (plan.home, shard.name, shard.generation, image.image_id, ordinals[image.image_id])
                mask_id, ordinals[image.image_id] = mask_id_of(*named), ordinals[image.image_id] + 1
            else:
                mask_id = place.mask_id
            kept = answer.chosen.kept and origin != REJECTED and (is_new or place is not None)
            if kept and is_new:
                masks[image.image_id].append(mask_record(mask, mask_id, image, answer, plan))
            place_of_row = {"mask_id": mask_id, "plan": plan.home, "shard": shard.name, "stage": plan.settings["stage"]}
            agreed = asdict(partners.get(mask.mask, _NO_PARTNERS))
            rows.append(place_of_row | {"origin": str(origin), "in_masks": kept} | _facts(answer, mask) | agreed)
    content = [(images[image_id], some) for image_id, some in masks.items()]
    return content, pa.Table.from_pylist(rows, schema=ANNOTATIONS)


def place_of_mask(
    answer: Answer, mask: TaskMask, origin: Origin | str, standing: Standing
) -> tuple[MaskKey | None, bool]:
    """Return the mask that already stands for a mask, if there is one, and whether the mask is to be stored."""
    if origin != Origin.PREFILL_ACCEPTED:
        return None, True
    place = standing.place_of(answer, mask)
    return place, place is None and not standing.is_superseded(answer, mask)


def masks_of(answer: Answer) -> Iterator[tuple[TaskMask, Origin | str]]:
    """List the masks of an answer with their origins, in the order of their rows in `annotations`."""
    yield from ((mask, mask.origin) for mask in answer.final.masks)
    yield from ((mask, REJECTED) for mask in answer.final.rejected)


def mask_record(mask: TaskMask, mask_id: int, image: ImageRecord, answer: Answer, plan: Plan) -> MaskRecord:
    """Make the record of a mask that a plan of the answer's round stores."""
    return MaskRecord(
        mask_id=mask_id,
        image_id=image.image_id,
        rle=mask.rle,
        box_xyxy=rle.box_xyxy(mask.rle),
        area_px=rle.area(mask.rle),
        predicted_iou=math.nan if mask.predicted_iou is None else mask.predicted_iou,
        stability_score=math.nan if mask.stability_score is None else mask.stability_score,
        point_xy=_first_click(mask.prompts),
        crop_xyxy=(0, 0, image.width, image.height),
        provenance=Provenance(
            stage=str(plan.settings["stage"]),
            model_id=mask.model_id,
            annotator_id=_maker(answer, mask),
            round_id=answer.task.round_id,
            plan_id=plan.plan_id,
            config_hash=plan.settings_hash,
        ),
    )


def _first_click(prompts: Sequence[Any]) -> tuple[float, float]:
    """Return the first positive click among prompts of the form {"x": ..., "y": ..., "positive": ...}; else NaN."""
    for prompt in prompts:
        if isinstance(prompt, Mapping) and prompt.get("positive", True):
            x, y = prompt.get("x"), prompt.get("y")
            if isinstance(x, int | float) and isinstance(y, int | float):
                return float(x), float(y)
    return math.nan, math.nan


def _partners(answers: Sequence[Answer]) -> list[dict[str, Partners]]:
    """Find the partners of the masks of each answer in the other answers about its image, by the mask's name."""
    by_task: dict[int, list[int]] = {}
    for number, answer in enumerate(answers):
        by_task.setdefault(answer.task.task_id, []).append(number)
    found: list[dict[str, Partners]] = [{} for _ in answers]
    for numbers in by_task.values():
        masks = [answers[number].state.masks for number in numbers]
        partners = find_partners([[mask.rle for mask in some] for some in masks])
        for number, names, some in zip(numbers, masks, partners, strict=True):
            found[number] = {mask.mask: each for mask, each in zip(names, some, strict=True)}
    return found


def _maker(answer: Answer, mask: TaskMask) -> str:
    """Return who made, accepted, edited or rejected a mask: the annotator, or the reviewer who added it in a fix."""
    return mask.author or (answer.annotator if answer.fix is None else answer.fix.reviewer)


def _facts(answer: Answer, mask: TaskMask) -> dict[str, Any]:
    """Return the columns of `annotations` that tell about the work on a mask."""
    is_added_in_fix = answer.fix is not None and not mask.author
    return {
        "image_id": answer.task.image_id,
        "round_id": answer.task.round_id,
        "task_id": answer.task.task_id,
        "annotator_id": _maker(answer, mask),
        "fixed_by": mask.fixed_by,
        "gold": answer.task.gold,
        "prefilled": answer.prefilled,
        "simulated": answer.time.simulated,
        "model_id": mask.model_id,
        "active_s": answer.fix_s(mask) if is_added_in_fix else answer.active_s(mask),
        "prefill_iou": answer.prefill_iou(mask),
        "fix_s": 0.0 if is_added_in_fix else answer.fix_s(mask),
        "search_s": answer.search_s,
        "clicks": mask.clicks,
        "strokes": mask.strokes,
        "edits": mask.edits,
        "prompts": json.dumps(mask.prompts),
        "predicted_iou": mask.predicted_iou,
        "verdict": answer.verdicts.get(mask.mask, ""),
        "submitted_at": answer.chosen.submission.submitted_at,
    }
