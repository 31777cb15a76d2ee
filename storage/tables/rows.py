"""The rows that a shard adds to the tables."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import pyarrow as pa

from storage.formats.documents import json_bytes
from storage.formats.tar_shards import MemberSpan
from storage.protocol.commits import Commit
from storage.protocol.inputs import PlanKind, inputs_to_json
from storage.protocol.plans import Plan, PlannedShard
from storage.records import DUPLICATE, ImageRecord, MaskRecord, Reject, Stage, image_key
from storage.tables.columns import IMAGES, MASKS, REJECTS, SHARDS


def image_rows(
    images: Sequence[ImageRecord], plan: Plan, shard: PlannedShard, part: str, spans: Iterable[MemberSpan]
) -> pa.Table:
    """Make the rows of the table `images` for one image shard, in the order of `images`.

    `spans` are the places of the files in the shard's tar.
    """
    at = {span.key: span for span in spans if span.ext != "json"}
    rows = [
        {
            **vars(image),
            "plan": plan.home,
            "shard": shard.name,
            "part": part,
            "member_offset": at[image.key].offset,
            "member_nbytes": at[image.key].nbytes,
        }
        for image in images
    ]
    return pa.Table.from_pylist(rows, schema=IMAGES)


def mask_rows(
    images: Sequence[tuple[ImageRecord, Sequence[MaskRecord]]],
    plan: Plan,
    shard: PlannedShard,
    part: str,
    spans: Iterable[MemberSpan],
) -> pa.Table:
    """Make the rows of the table `masks` for one mask shard, ordered by image and then by ordinal.

    `spans` are the places of the files in the shard's tar.
    """
    at = {span.key: span for span in spans}
    rows = [
        {
            **_mask_columns(mask),
            "plan": plan.home,
            "shard": shard.name,
            "generation": shard.generation,
            "part": part,
            "member_offset": at[image.key].offset,
            "member_nbytes": at[image.key].nbytes,
            "ordinal": ordinal,
        }
        for image, masks in images
        for ordinal, mask in enumerate(masks)
    ]
    return pa.Table.from_pylist(rows, schema=MASKS)


def shard_rows(commits: Iterable[Commit]) -> pa.Table:
    """Make the rows of the table `shards` for commit records."""
    rows = [
        {
            "plan": commit.plan_id,
            "shard": commit.shard,
            "generation": commit.generation,
            "kind": commit.kind,
            "attempt": commit.attempt_id or None,
            "made_by": commit.made_by,
            "inputs": " ".join(inputs_to_json(commit.inputs)),
            "images": commit.images,
            "masks": commit.masks,
            "rejects": len(commit.rejects),
            "nbytes": commit.nbytes,
            "seconds": commit.seconds,
            "model_id": commit.model_id,
            "committed_at": commit.committed_at,
            "stats": json_bytes(commit.stats).decode(),
            "record_sha256": commit.record_sha256,
        }
        for commit in commits
    ]
    return pa.Table.from_pylist(rows, schema=SHARDS)


def reject_rows(commits: Iterable[Commit], duplicates: Mapping[str, Collection[int]]) -> pa.Table:
    """Make the rows of the table `rejects` for commit records.

    Args:
        commits: The commit records.
        duplicates: Image ids that stay out of the tables, by the lineage of the shard that holds the copies.
    """
    rows = [
        {**vars(reject), "plan": commit.plan_id, "shard": commit.shard}
        for commit in commits
        for reject in [*commit.rejects, *_copies(commit, duplicates.get(commit.address.lineage, ()))]
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS)


def _copies(commit: Commit, image_ids: Collection[int]) -> list[Reject]:
    """Make a reject for each image of a shard that stays out of the tables."""
    what = "the image" if commit.kind is PlanKind.IMAGES else "masks of the image with these settings"
    return [
        Reject(
            source=image_key(image_id),
            source_sha256="",
            reason=DUPLICATE,
            detail=f"a shard that was folded earlier holds {what}",
            stage=Stage.FOLD,
        )
        for image_id in sorted(image_ids)
    ]


def _mask_columns(mask: MaskRecord) -> dict[str, object]:
    origin = mask.provenance
    return {
        "image_id": mask.image_id,
        "mask_id": mask.mask_id,
        **dict(zip(("x0", "y0", "x1", "y1"), mask.box_xyxy, strict=True)),
        "area_px": mask.area_px,
        "predicted_iou": _none_for_nan(mask.predicted_iou),
        "stability_score": _none_for_nan(mask.stability_score),
        "point_x": _none_for_nan(mask.point_xy[0]),
        "point_y": _none_for_nan(mask.point_xy[1]),
        **dict(zip(("crop_x0", "crop_y0", "crop_x1", "crop_y1"), mask.crop_xyxy, strict=True)),
        "stage": origin.stage,
        "model_id": origin.model_id,
        "annotator_id": origin.annotator_id,
        "round_id": origin.round_id,
        "config_hash": origin.config_hash,
    }


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
