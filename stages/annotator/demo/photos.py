"""Visitors' photos: in memory alone, and only the last ones."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict

from engine import images
from stages.annotator.decoding import Busy
from stages.annotator.demo.config import DemoConfig
from stages.annotator.pictures import Picture
from stages.ingest.normalise import normalise
from storage.errors import NotFound
from storage.records import ImageRecord

_MAX_BYTES = 512_000_000
"""Largest size of all photos in memory, in bytes."""
_MAX_AT_ONCE = 2
"""Largest number of photos that are decoded at the same time: one may need 200 MB until it is scaled down."""
_PATIENCE_S = 10.0
"""Longest time that a photo waits to be decoded, in seconds."""


class Photos:
    """The last photos, by random numbers that only their senders know; safe to use from several threads."""

    def __init__(self, config: DemoConfig) -> None:
        self._config = config
        self.first: Picture | None = None
        """Photo that every visitor sees first and that is never forgotten; None means that they bring their own."""
        self._kept: OrderedDict[int, Picture] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(_MAX_AT_ONCE)

    def add(self, data: bytes) -> Picture:
        """Read a photo and keep it for a while.

        Raises:
            Unusable: The photo cannot be used.
            Busy: Too many photos are being read.
        """
        if not self._decoding.acquire(timeout=_PATIENCE_S):
            raise Busy("other photos are being read; try again in a few seconds")
        try:
            picture = self.read(data)
        finally:
            self._decoding.release()
        with self._lock:
            self._kept[picture.record.image_id] = picture
            self._nbytes += picture.nbytes
            while len(self._kept) > self._config.max_photos or (self._nbytes > _MAX_BYTES and len(self._kept) > 1):
                self._nbytes -= self._kept.popitem(last=False)[1].nbytes
        return picture

    def get(self, image_id: int) -> Picture:
        """Return a photo.

        Raises:
            NotFound: No visitor sent it, or it was forgotten since.
        """
        if self.first is not None and image_id == self.first.record.image_id:
            return self.first
        with self._lock:
            if image_id in self._kept:
                self._kept.move_to_end(image_id)
                return self._kept[image_id]
        raise NotFound(f"got photo {image_id}, which the demo does not have or no longer has; send the photo again")

    def read(self, data: bytes) -> Picture:
        """Read a photo without keeping it.

        Raises:
            Unusable: The photo cannot be used.
        """
        config = self._config
        photo = normalise(data, shortest_side_px=config.shortest_side_px, min_side_px=16, max_pixels=config.max_pixels)
        image_id = secrets.randbits(63)
        record = ImageRecord(
            image_id=image_id,
            key=f"{image_id:016x}",
            height=photo.height,
            width=photo.width,
            format=photo.format,
            nbytes=len(photo.data),
            source="",
            source_sha256=hashlib.sha256(data).hexdigest(),
            stored_sha256=hashlib.sha256(photo.data).hexdigest(),
            license="",
            country="",
        )
        return Picture(record=record, data=photo.data, pixels_HW3=images.decode(photo.data))
