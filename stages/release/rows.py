"""Rows of the two Parquet tables of a release: one a mask, one an image. No annotator and no round is named in them."""

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

MASKS = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("id", pa.int64(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("tar", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("counts", pa.string(), nullable=False),
        pa.field("bbox", pa.list_(pa.float64()), nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("predicted_iou", pa.float64()),
        pa.field("stability_score", pa.float64()),
        pa.field("point_x", pa.float64()),
        pa.field("point_y", pa.float64()),
        pa.field("crop_box", pa.list_(pa.float64()), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("model_id", pa.string(), nullable=False),
    ]
)
"""Columns of `masks/*.parquet`."""

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("tar", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("nbytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("masks", pa.int64(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("country", pa.string(), nullable=False),
        pa.field("change", pa.string(), nullable=False),
    ]
)
"""Columns of `images/*.parquet`."""

NOTES = {
    "image_id": "number of the image in the release, as in its file name",
    "id": "number of the mask in the release, as in the JSON file",
    "file_name": "name of the image in its tar",
    "tar": "name of the tar",
    "split": "train or holdout",
    "height": "pixels",
    "width": "pixels",
    "counts": "run lengths of the mask as COCO's compressed string; with height and width all that pycocotools needs",
    "bbox": "x, y, width, height in pixels; pycocotools' toBbox",
    "area": "foreground pixels",
    "predicted_iou": "the model's own estimate, 0 to 1; null for a mask without one",
    "stability_score": "IoU between a tighter and a looser cut, 0 to 1; null for a mask without one",
    "point_x": "prompt point, pixels; null for a mask without one",
    "point_y": "prompt point, pixels; null for a mask without one",
    "crop_box": "x, y, width, height of the crop the mask was found in",
    "stage": "assisted_manual, semi_automatic, fully_automatic or imported",
    "model_id": "model version that made the mask, empty for none",
    "nbytes": "size of the image file in bytes",
    "sha256": "of the image file in the tar",
    "masks": "number of masks",
    "license": "licence of the photo, empty where none was given",
    "source": "name of the photo below the folder it came from; empty where it does not leave",
    "country": "ISO 3166-1 alpha-2, empty where unknown",
    "change": "what became of the stored image: copied, metadata_removed, encoded_from_png or converted_to_srgb",
}
"""Meaning of each column."""


def mask_row(annotation: Mapping[str, Any], place: Mapping[str, Any]) -> dict[str, Any]:
    """Make the columns of a mask that its entry in the annotation file states.

    Args:
        annotation: The entry.
        place: Columns that all masks of the image share.
    """
    height, width = annotation["segmentation"]["size"]
    x, y = annotation["point_coords"][0] if annotation["point_coords"] else (None, None)
    same = ("id", "bbox", "area", "predicted_iou", "stability_score", "crop_box")
    return {
        **place,
        **{name: annotation[name] for name in same},
        "height": height,
        "width": width,
        "counts": annotation["segmentation"]["counts"],
        "point_x": x,
        "point_y": y,
    }


def picture_columns(data: bytes) -> dict[str, Any]:
    """Make the columns of an image that describe its file."""
    return {"nbytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
