"""Images of the dataset by id: the encoded bytes that the page shows, and the pixels that the model sees."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine import images
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.protocol.erasures import Erasures
from storage.records import ImageRecord
from storage.tables.samples import IMAGE_COLUMNS, read_image

_ERASURES_EVERY_S = 30.0
"""Seconds from one look for erased images to the next; on S3 it takes a request."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of the dataset."""

    record: ImageRecord
    data: bytes
    """Encoded image, as stored."""
    pixels_HW3: np.ndarray
    """Decoded image, uint8 RGB."""

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        return self.record.height, self.record.width

    @property
    def nbytes(self) -> int:
        """Memory that the image takes, in bytes."""
        return len(self.data) + self.pixels_HW3.nbytes


class PictureSource(Protocol):
    """Where pictures come from by id."""

    def get(self, image_id: int) -> Picture:
        """Read an image.

        Raises:
            NotFound: There is no image with this id.
        """
        ...


class Pictures:
    """Images of one dataset, the last used ones in memory; safe to use from several threads.

    An image that is erased from the dataset leaves the memory within a minute.
    """

    def __init__(self, dataset: Dataset, *, max_bytes: int) -> None:
        self._dataset, self._max_bytes = dataset, max_bytes
        self._kept: OrderedDict[int, Picture] = OrderedDict()
        self._nbytes = 0
        self._erasures, self._looked_at = Erasures(), -math.inf
        self._lock = threading.Lock()

    def get(self, image_id: int) -> Picture:
        """Read an image.

        Raises:
            Erased: The image was erased from the dataset.
            NotFound: The dataset has no image with this id.
            Corrupt: The stored bytes are damaged.
        """
        self._look_for_erasures()
        self._erasures.check(image_id)
        with self._lock:
            if image_id in self._kept:
                self._kept.move_to_end(image_id)
                return self._kept[image_id]
        picture = self._read(image_id)
        with self._lock:
            if image_id not in self._kept:
                self._kept[image_id] = picture
                self._nbytes += picture.nbytes
            while self._nbytes > self._max_bytes and len(self._kept) > 1:
                self._nbytes -= self._kept.popitem(last=False)[1].nbytes
        return picture

    def _look_for_erasures(self) -> None:
        """Read, once in a while, which images were erased, and forget these."""
        if time.monotonic() - self._looked_at < _ERASURES_EVERY_S:
            return
        erasures = self._dataset.erasures()
        with self._lock:
            for image_id in self._kept.keys() & erasures.images.keys():
                self._nbytes -= self._kept.pop(image_id).nbytes
            self._erasures, self._looked_at = erasures, time.monotonic()

    def _read(self, image_id: int) -> Picture:
        columns = ", ".join(IMAGE_COLUMNS)
        rows = self._dataset.query(f"SELECT {columns} FROM images WHERE image_id = {int(image_id)}").to_pylist()
        if not rows:
            self._dataset.erasures().check(image_id)
            raise NotFound(f"got image {image_id}, expected the id of an image of {self._dataset.uri}")
        record, data = read_image(self._dataset.store, rows[0])
        return Picture(record=record, data=data, pixels_HW3=images.decode(data))
