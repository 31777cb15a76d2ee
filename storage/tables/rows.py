"""The four tables over a dataset: their columns with units, and the rows that a shard adds to them.

The comment of each column is stored in the table. Boxes are half-open pixels of the stored image. `masks` holds no
runs: `part`, `member_offset` and `member_nbytes` say where the annotation file of the mask's image lies, `ordinal`
which of its annotations it is.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from storage.formats.documents import json_bytes
from storage.formats.tar_shards import MemberSpan
from storage.protocol.commits import Commit
from storage.protocol.inputs import inputs_to_json
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord

_ID, _INT, _TEXT, _REAL = pa.int64(), pa.int32(), pa.string(), pa.float32()


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"comment": comment}) for name, kind, comment in columns])


IMAGES = _schema(
    ("image_id", _ID, "first 63 bits of source_sha256"),
    ("key", _TEXT, "image_id as 16 hex digits: the name in every shard"),
    ("height", _INT, "pixels"),
    ("width", _INT, "pixels"),
    ("format", _TEXT, "jpg or png"),
    ("nbytes", _ID, "stored size in bytes"),
    ("source", _TEXT, "path or address the photograph came from"),
    ("source_sha256", _TEXT, "of the file as it came"),
    ("stored_sha256", _TEXT, "of the stored bytes"),
    ("license", _TEXT, "as given at ingest"),
    ("country", _TEXT, "ISO 3166-1 alpha-2, empty where unknown"),
    ("plan", _TEXT, "plan of the image shard"),
    ("shard", _TEXT, "image shard"),
    ("part", _TEXT, "key of the tar that holds the image"),
    ("member_offset", _ID, "where the image's bytes begin in part"),
    ("member_nbytes", _ID, "their length"),
)
MASKS = _schema(
    ("image_id", _ID, "images.image_id"),
    ("mask_id", _ID, "unique within its image"),
    ("plan", _TEXT, "plan of the mask shard"),
    ("shard", _TEXT, "mask shard"),
    ("generation", _INT, "of the shard that made this mask"),
    ("part", _TEXT, "key of the tar that holds the image's annotation file"),
    ("member_offset", _ID, "where that file begins in part"),
    ("member_nbytes", _ID, "its length"),
    ("ordinal", _INT, "index in the file's annotations"),
    ("x0", _INT, "box, left, pixels"),
    ("y0", _INT, "box, top, pixels"),
    ("x1", _INT, "box, right, exclusive"),
    ("y1", _INT, "box, bottom, exclusive"),
    ("area_px", _ID, "foreground pixels"),
    ("predicted_iou", _REAL, "the model's own estimate, 0 to 1; null for a mask without one"),
    ("stability_score", _REAL, "IoU between a tighter and a looser cut, 0 to 1; null for a mask without one"),
    ("point_x", _REAL, "prompt point, pixels; null for a mask without one"),
    ("point_y", _REAL, "prompt point, pixels; null for a mask without one"),
    ("crop_x0", _INT, "crop the mask was found in, left, pixels"),
    ("crop_y0", _INT, "crop, top"),
    ("crop_x1", _INT, "crop, right, exclusive"),
    ("crop_y1", _INT, "crop, bottom, exclusive"),
    ("stage", _TEXT, "assisted_manual, semi_automatic or fully_automatic"),
    ("model_id", _TEXT, "model version, empty for none"),
    ("annotator_id", _TEXT, "empty for none"),
    ("round_id", _TEXT, "annotation round, empty for none"),
    ("config_hash", _TEXT, "SHA-256 of the plan's settings"),
)
SHARDS = _schema(
    ("plan", _TEXT, "plan"),
    ("shard", _TEXT, "shard"),
    ("generation", _INT, "0, or the number of the redo"),
    ("kind", _TEXT, "images, masks or withdrawals"),
    ("attempt", _TEXT, "the attempt that won; null where the shard was closed unmade"),
    ("made_by", _TEXT, "the plan that asked for it: plan, or that of a redo"),
    ("inputs", _TEXT, "addresses of the shards it was made from, with spaces between; empty for an image shard"),
    ("images", _ID, "images in it"),
    ("masks", _ID, "masks in it"),
    ("rejects", _ID, "inputs it could not use"),
    ("nbytes", _ID, "bytes of its objects"),
    ("seconds", pa.float64(), "seconds of work"),
    ("model_id", _TEXT, "model version, empty for none"),
    ("committed_at", pa.timestamp("us", tz="UTC"), "by the clock of the worker"),
    ("stats", _TEXT, "JSON: the diagnostics of the stage"),
    ("record_sha256", _TEXT, "of the commit record"),
)
REJECTS = _schema(
    ("source", _TEXT, "path, address or image key"),
    ("source_sha256", _TEXT, "empty where the bytes could not be read"),
    ("reason", _TEXT, "short code: truncated, not_an_image, too_large, ..."),
    ("detail", _TEXT, "one line for people"),
    ("stage", _TEXT, "where it was rejected"),
    ("plan", _TEXT, "plan"),
    ("shard", _TEXT, "shard"),
)
WITHDRAWALS = _schema(  # no table of its own: `masks` is without these
    ("image_id", _ID, "images.image_id"),
    ("mask_id", _ID, "the mask that is withdrawn"),
    ("plan", _TEXT, "plan of its mask shard"),
    ("shard", _TEXT, "its mask shard"),
    ("reason", _TEXT, "why"),
)
SCHEMAS = {"images": IMAGES, "masks": MASKS, "shards": SHARDS, "rejects": REJECTS}


REPEATED = {"plan", "shard", "part", "stage", "model_id", "annotator_id", "round_id", "config_hash"}


def compact(schema: pa.Schema) -> pa.Schema:
    """The schema with dictionaries for the texts that repeat from row to row (REPEATED)."""
    kinds = (pa.dictionary(_INT, _TEXT) if field.name in REPEATED else field.type for field in schema)
    return pa.schema([field.with_type(kind) for field, kind in zip(schema, kinds, strict=True)])


def image_rows(
    images: Sequence[ImageRecord], plan: Plan, shard: PlannedShard, part: str, spans: Iterable[MemberSpan]
) -> pa.Table:
    """Rows of `images` for one image shard, in the order given; `spans` are those of its tar."""
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
    """Rows of `masks` for one mask shard, by image and ordinal; `spans` are those of its tar."""
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


def without_masks(rows: pa.Table, withdrawn: pa.Table) -> pa.Table:
    """Rows of `masks` without those of these (image_id, mask_id), in their order."""
    if not withdrawn.num_rows or not rows.num_rows:
        return rows
    own, withdrawn_ids = rows.column("mask_id").to_numpy(), withdrawn.column("mask_id").to_numpy()
    gone = mask_pairs(withdrawn.filter(pa.array(np.isin(withdrawn_ids, own))))
    suspects = np.isin(own, withdrawn_ids)
    keep = ~suspects
    for index in np.flatnonzero(suspects):
        keep[index] = (rows["image_id"][index].as_py(), rows["mask_id"][index].as_py()) not in gone
    return rows.filter(pa.array(keep))


def mask_pairs(rows: pa.Table) -> set[tuple[int, int]]:
    """The (image_id, mask_id) of rows."""
    return set(zip(rows.column("image_id").to_pylist(), rows.column("mask_id").to_pylist(), strict=True))


def shard_rows(commits: Iterable[Commit]) -> pa.Table:
    """Rows of `shards` for these records."""
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


def reject_rows(commits: Iterable[Commit]) -> pa.Table:
    """Rows of `rejects` for these records."""
    rows = [
        {**vars(reject), "plan": commit.plan_id, "shard": commit.shard}
        for commit in commits
        for reject in commit.rejects
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS)


def _mask_columns(mask: MaskRecord) -> dict[str, object]:
    origin = mask.provenance
    return {
        "image_id": mask.image_id,
        "mask_id": mask.mask_id,
        **dict(zip(("x0", "y0", "x1", "y1"), mask.box_xyxy, strict=True)),
        "area_px": mask.area_px,
        "predicted_iou": _known(mask.predicted_iou),
        "stability_score": _known(mask.stability_score),
        "point_x": _known(mask.point_xy[0]),
        "point_y": _known(mask.point_xy[1]),
        **dict(zip(("crop_x0", "crop_y0", "crop_x1", "crop_y1"), mask.crop_xyxy, strict=True)),
        "stage": origin.stage,
        "model_id": origin.model_id,
        "annotator_id": origin.annotator_id,
        "round_id": origin.round_id,
        "config_hash": origin.config_hash,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
