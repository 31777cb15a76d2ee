"""All masks of a photo by the automatic generator, one photo at a time, each once."""

from __future__ import annotations

import threading
from collections import OrderedDict

from engine.automatic.generate import GeneratedMask, generate_masks
from stages.annotator.decoding import Busy
from stages.annotator.models import EncodedPicture

_MAX_KEPT = 32
"""Largest number of photos whose masks are remembered."""


class Everything:
    """Masks of whole photos; safe to use from several threads."""

    def __init__(self, *, max_waiting: int) -> None:
        self._places = threading.BoundedSemaphore(max_waiting + 1)
        self._max_waiting = max_waiting
        self._turn = threading.Lock()
        self._found: OrderedDict[tuple[str, str], list[GeneratedMask]] = OrderedDict()

    def find(self, encoded: EncodedPicture) -> list[GeneratedMask]:
        """Return the masks that `gigamask.generate_masks` makes of the photo.

        Raises:
            Busy: Too many photos wait for their masks.
        """
        if not self._places.acquire(blocking=False):
            raise Busy(f"got a photo while {self._max_waiting} others wait for all their masks; try again in a minute")
        try:
            with self._turn:
                key = (encoded.picture.record.stored_sha256, encoded.model.model_id)
                if key not in self._found:
                    self._found[key] = generate_masks(encoded.model, encoded.picture.pixels_HW3).masks
                    while len(self._found) > _MAX_KEPT:
                        self._found.popitem(last=False)
                return self._found[key]
        finally:
            self._places.release()
