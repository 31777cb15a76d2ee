"""The columns of the five tables, with types and units; each column's comment is stored in its table.

Boxes are half-open, in pixels of the stored image. `masks` holds no pixels: `part`, `member_offset` and `member_nbytes`
locate the annotation file of the mask's image, and `ordinal` is the index of the mask in it.
"""

import pyarrow as pa

from storage.errors import StoreError

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
    ("plan", _TEXT, "home of the image shard"),
    ("shard", _TEXT, "image shard"),
    ("part", _TEXT, "key of the tar that holds the image"),
    ("member_offset", _ID, "where the image's bytes begin in part"),
    ("member_nbytes", _ID, "their length"),
)

MASKS = _schema(
    ("image_id", _ID, "images.image_id"),
    ("mask_id", _ID, "unique within its image"),
    ("plan", _TEXT, "home of the mask shard"),
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
    ("stage", _TEXT, "assisted_manual, semi_automatic, fully_automatic or imported"),
    ("model_id", _TEXT, "model version, empty for none"),
    ("annotator_id", _TEXT, "empty for none"),
    ("round_id", _TEXT, "annotation round, empty for none"),
    ("config_hash", _TEXT, "SHA-256 of the plan's settings"),
)

SHARDS = _schema(
    ("plan", _TEXT, "home of the shard: the folder that all plans with its settings share"),
    ("shard", _TEXT, "shard"),
    ("generation", _INT, "0, or the number of the redo"),
    ("kind", _TEXT, "images, masks, withdrawals, amendments or erasures"),
    ("attempt", _TEXT, "the attempt that won; null where the shard was closed unmade"),
    ("made_by", _TEXT, "id of the plan that asked for it"),
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
    ("plan", _TEXT, "home of the shard: the folder that all plans with its settings share"),
    ("shard", _TEXT, "shard"),
)

WITHDRAWALS = _schema(
    ("image_id", _ID, "images.image_id"),
    ("mask_id", _ID, "the mask that is withdrawn"),
    ("plan", _TEXT, "home of its mask shard"),
    ("shard", _TEXT, "its mask shard"),
    ("reason", _TEXT, "why"),
)
"""Columns of the Parquet part of a withdrawal; it has no table of its own, its masks are missing from `masks`."""

ANNOTATIONS = _schema(
    ("image_id", _ID, "images.image_id"),
    ("mask_id", _ID, "masks.mask_id, where in_masks"),
    ("plan", _TEXT, "home of the round's mask shard"),
    ("shard", _TEXT, "the mask shard"),
    ("stage", _TEXT, "assisted_manual or semi_automatic"),
    ("round_id", _TEXT, "annotation round"),
    ("task_id", _ID, "task of the round: one image"),
    ("annotator_id", _TEXT, "who made, accepted, edited or rejected the mask"),
    ("origin", _TEXT, "made, prefill_accepted, prefill_edited or prefill_rejected"),
    ("in_masks", pa.bool_(), "whether closing the round put or left the mask in masks"),
    ("gold", pa.bool_(), "whether the task was compared with known masks"),
    ("prefilled", pa.bool_(), "whether the task began with prefilled masks"),
    ("simulated", pa.bool_(), "whether the seconds are those of a simulated annotator's time model"),
    ("model_id", _TEXT, "model version that answered or prefilled, empty for none"),
    ("active_s", pa.float64(), "seconds of work on this mask, gaps between inputs capped"),
    ("search_s", pa.float64(), "seconds of the task that belong to no mask, shared evenly by its masks"),
    ("clicks", _INT, "clicks"),
    ("strokes", _INT, "strokes of brush and eraser"),
    ("edits", _INT, "operations that changed the mask after its first appearance"),
    ("prompts", _TEXT, "JSON: prompts of the last operation that set the mask"),
    ("predicted_iou", _REAL, "the model's own estimate, 0 to 1; null for a mask without one"),
    ("verdict", _TEXT, "newest answer of a reviewer to `is this mask good`: yes, no, unsure; empty for none"),
    ("submitted_at", pa.timestamp("us", tz="UTC"), "by the clock of the database server"),
    ("fixed_by", _TEXT, "reviewer who changed or rejected the annotator's mask, empty for none"),
    ("fix_s", pa.float64(), "seconds of that reviewer on this mask, apart from active_s"),
    ("prefill_iou", _REAL, "IoU with the prefilled mask that this one was, 0 for a rejected one; null for a made one"),
    ("agreed_fraction", _REAL, "fraction of the image's other answers with a partner of IoU 0.5; null without others"),
    ("agreed_iou", _REAL, "mean IoU with these partners; null without any"),
)
SCHEMAS = {"images": IMAGES, "masks": MASKS, "shards": SHARDS, "rejects": REJECTS, "annotations": ANNOTATIONS}
"""Schema of each table, by name."""

REPEATED = {"plan", "shard", "part", "stage", "model_id", "annotator_id", "round_id", "config_hash"}
"""Text columns whose values repeat from row to row; in memory they are dictionaries."""


def compact(schema: pa.Schema) -> pa.Schema:
    """Return the schema with dictionary encoding for those text columns whose values repeat (`REPEATED`).

    The columns have no comments: a table keeps those that it was created with, and refuses others.
    """
    kinds = (pa.dictionary(_INT, _TEXT) if field.name in REPEATED else field.type for field in schema)
    return pa.schema([pa.field(field.name, kind) for field, kind in zip(schema, kinds, strict=True)])


def conform(rows: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """Give rows the columns of a schema; columns that an earlier version did not write are null.

    Args:
        rows: Rows that any version of gigamask wrote.
        schema: The schema.
        where: Place of the rows, for the error.

    Raises:
        StoreError: The rows have a column that the schema does not know: a newer version wrote them.
    """
    unknown = sorted(set(rows.column_names) - set(schema.names))
    if unknown:
        raise StoreError(
            f"{where}: has the columns {', '.join(unknown)}, unknown to this version; use a newer gigamask"
        )
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
