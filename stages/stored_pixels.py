"""Pixels of one image of a dataset, found by its id."""

from __future__ import annotations

import numpy as np

from engine.images import decode
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.tables.samples import IMAGE_COLUMNS, read_image


def read_stored_pixels(dataset: Dataset, image_id: int) -> np.ndarray:
    """Read an image's RGB pixels, uint8 [H, W, 3].

    Raises:
        Erased: The image was erased.
        NotFound: The dataset has no such image.
        Corrupt: The image is not where its row says.
        ValueError: The stored bytes are not an image.
    """
    rows = dataset.query(f"SELECT {', '.join(IMAGE_COLUMNS)} FROM images WHERE image_id = {int(image_id)}").to_pylist()
    if not rows:
        dataset.erasures().check(image_id)
        raise NotFound(f"{dataset.uri}: no image {image_id}")
    return decode(read_image(dataset.store, rows[0])[1])
