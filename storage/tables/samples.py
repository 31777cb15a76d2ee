"""Reading single samples by their table rows: an image's bytes, a mask's pixels. Everything read is checked.

A row of `images` or `masks` says where its file lies in a tar (`part`, `member_offset`, `member_nbytes`). Each file
takes one range read.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from storage.errors import Corrupt
from storage.formats.sa1b import parse_sa1b
from storage.objects.stores import ObjectStore
from storage.protocol.erasures import read_erasures
from storage.records import ImageRecord, MaskRecord, Provenance

Row = Mapping[str, Any]
"""A row of a table: column name -> value."""
IMAGE_COLUMNS = (*ImageRecord.__dataclass_fields__, "part", "member_offset", "member_nbytes")
"""Columns of `images` that `read_image` needs."""
MASK_COLUMNS = (
    *("image_id", "mask_id", "part", "member_offset", "member_nbytes"),
    *("stage", "model_id", "annotator_id", "round_id", "plan", "config_hash"),
)
"""Columns of `masks` that `read_masks` needs."""


def read_image(store: ObjectStore, row: Row) -> tuple[ImageRecord, bytes]:
    """Read the image that a row of the table `images` describes.

    Raises:
        Erased: The image was erased.
        Corrupt: The bytes are not those of the row.
        NotFound: The row's tar is gone.
    """
    image = ImageRecord.from_row(row)
    data = store.get_range(row["part"], row["member_offset"], row["member_nbytes"])
    try:
        return image, checked(image, data, f"{store.uri}/{row['part']}")
    except Corrupt:
        read_erasures(store).check(image.image_id)
        raise


def checked(image: ImageRecord, data: bytes, where: str) -> bytes:
    """Check the bytes of an image against the record of the image, and return the bytes.

    Error messages give `where` as the place of the bytes.

    Raises:
        Corrupt: The SHA-256 is not the one in the image's record.
    """
    if hashlib.sha256(data).hexdigest() != image.stored_sha256:
        raise Corrupt(f"{where}: image {image.key} is damaged; run `gigamask verify`")
    return data


def read_masks(store: ObjectStore, rows: Iterable[Row]) -> list[MaskRecord]:
    """Read the masks that rows of the table `masks` describe, in the order of the rows.

    Each annotation file is read once, however many rows refer to it.

    Raises:
        Erased: The image of a mask was erased.
        Corrupt: A mask is not where its row says.
        NotFound: A row's tar is gone.
    """
    wanted = list(rows)
    image_ids = {(row["part"], row["member_offset"], row["member_nbytes"]): row["image_id"] for row in wanted}
    found = {
        (file, mask.image_id, mask.mask_id): mask
        for file, image_id in image_ids.items()
        for mask in _annotations(store, image_id, *file)
    }
    masks = []
    for row in wanted:
        file = (row["part"], row["member_offset"], row["member_nbytes"])
        mask = found.get((file, row["image_id"], row["mask_id"]))
        if mask is None:
            where = f"{store.uri}/{row['part']}"
            raise Corrupt(f"{where}: mask {row['mask_id']} is not where its row says; run `gigamask verify`")
        masks.append(replace(mask, provenance=Provenance.from_row(row)))
    return masks


def _annotations(store: ObjectStore, image_id: int, part: str, offset: int, nbytes: int) -> list[MaskRecord]:
    try:
        _, masks = parse_sa1b(json.loads(store.get_range(part, offset, nbytes)))
    except ValueError as error:
        read_erasures(store).check(image_id)
        raise Corrupt(f"{store.uri}/{part}: no annotation file at {offset} ({error}); run `gigamask verify`") from error
    return masks
