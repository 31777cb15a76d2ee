"""Reading of one photo file as pixels, as ingest reads it, to give it to a network without a dataset."""

from pathlib import Path

import numpy as np

from engine.images import decode
from stages.ingest.files import read_file
from stages.ingest.normalise import MAX_DECODABLE_PIXELS, normalise

MAX_FILE_BYTES = 512 * 2**20
"""Maximum size in bytes of a photo file that is read: the default of `IngestConfig.shard_bytes`."""


def read_photo(path: str | Path, *, shortest_side_px: int | None = None) -> np.ndarray:
    """Read a photo file as upright RGB pixels, uint8 [H, W, 3].

    JPEG, PNG, WebP and TIFF are read. EXIF orientation is applied. Grey, palette, transparent, CMYK and 16-bit photos
    become 8-bit RGB. These are the pixels that `ingest_photos` stores.

    Args:
        path: the photo's file.
        shortest_side_px: length to which a longer shortest side is scaled down; None keeps the photo's size.
            `ingest_photos` uses 1500.

    Raises:
        ValueError: The file cannot be read or is no complete photo; the message says why.
    """
    data = read_file(Path(path), MAX_FILE_BYTES)
    photo = normalise(data, shortest_side_px=shortest_side_px, min_side_px=1, max_pixels=MAX_DECODABLE_PIXELS)
    return decode(photo.data)
