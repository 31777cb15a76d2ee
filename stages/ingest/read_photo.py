"""One photo file as pixels, read as ingest reads it: what a network is given when there is no dataset."""

from pathlib import Path

import numpy as np

from engine.images import decode
from stages.ingest.files import read_file
from stages.ingest.normalise import MAX_DECODABLE_PIXELS, normalise

MAX_FILE_BYTES = 512 * 2**20
"""Largest photo file that is read, in bytes: the default of `IngestConfig.shard_bytes`."""


def read_photo(path: str | Path, *, shortest_side_px: int | None = None) -> np.ndarray:
    """Read a photo file as upright RGB pixels, uint8 [H, W, 3].

    JPEG, PNG, WebP and TIFF are read. EXIF orientation is applied; grey, palette, transparent, CMYK and 16-bit photos
    become 8-bit RGB. These are the pixels that `ingest_photos` stores.

    Args:
        path: the photo's file.
        shortest_side_px: larger photos are scaled down to it; None keeps their size. `ingest_photos` uses 1500.

    Raises:
        ValueError: the file cannot be read or is no complete photo; the message says why.
    """
    data = read_file(Path(path), MAX_FILE_BYTES)
    photo = normalise(data, shortest_side_px=shortest_side_px, min_side_px=1, max_pixels=MAX_DECODABLE_PIXELS)
    return decode(photo.data)
