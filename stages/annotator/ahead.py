"""Embeddings ahead of the queue: the images of open rounds are encoded by a pool of workers before anybody claims them.

Without a pool, an image is encoded by the server itself once its task is claimed (`PrepareQueue`). The workers return
the embeddings to the server, which puts them into its cache: so workers on other machines need no disk in common.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.interactive.batched import windows_of
from engine.interactive.segment import CropXyxy
from stages.annotator.embeddings import EmbeddingCache, EmbeddingKey
from stages.annotator.models import Models, encode_window
from stages.annotator.pictures import Pictures
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

MAX_AHEAD = 2048
"""Largest number of tasks at the head of the queue whose images are encoded; the cache must hold them."""
LOOK_EVERY_S = 15.0
"""Time between two looks at the queue, in seconds."""
_PICTURE_BYTES = 64_000_000


@dataclass(frozen=True, kw_only=True)
class ToEncode:
    """Image that somebody will be asked about, and the model that will answer the prompts."""

    image_id: int
    model_id: str


Embeddings = Sequence[tuple[CropXyxy, np.ndarray]]
"""Windows of one image with their embeddings, fp16 [C, E, E]; the whole image comes first."""
EncodeMany = Callable[[Sequence[ToEncode]], Iterable[tuple[ToEncode, Embeddings | Exception]]]
"""Function that encodes images, and yields the embeddings of each, or why there are none, as they come."""


class PictureEncoder:
    """Worker of the pool: it reads an image of the dataset, and encodes every window of it."""

    def __init__(self, dataset_uri: str, models: Sequence[str]) -> None:
        dataset = Dataset.open(dataset_uri)
        self._models, self._pictures = Models(models, dataset), Pictures(dataset, max_bytes=_PICTURE_BYTES)

    def __call__(self, wanted: ToEncode) -> Embeddings:
        """Encode an image.

        Raises:
            NotFound: There is no such image, or another model was promoted since the pool was started.
        """
        picture, model = self._pictures.get(wanted.image_id), self._models.get(wanted.model_id)
        windows = sorted(windows_of(model, picture.image_hw), key=lambda window: window.layer)
        return [(window.xyxy, encode_window(picture, model, window.xyxy)) for window in windows]


class AheadOfQueue:
    """A thread that keeps the images at the head of the queue encoded, from `start` to `close`.

    Args:
        dataset: The dataset of the images.
        workspace: The workspace of the rounds.
        models: The server's models.
        cache: The server's cache.
        encode: Function that encodes images on the pool; it is called only where some are missing.
        every_s: Time between two looks at the queue, in seconds.
    """

    def __init__(
        self,
        dataset: Dataset,
        workspace: Workspace,
        models: Models,
        cache: EmbeddingCache,
        encode: EncodeMany,
        *,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._dataset, self._workspace, self._models, self._cache = dataset, workspace, models, cache
        self._encode, self._every_s = encode, every_s
        self._failed: set[ToEncode] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after the image that comes next."""
        self._closing.set()
        self._thread.join()

    def look(self) -> int:
        """Encode the images at the head of the queue that are not encoded yet; return how many were encoded."""
        wanted = self.missing()
        if not wanted:
            return 0
        hashes = self._hashes([each.image_id for each in wanted])
        encoded = 0
        for each, embeddings in self._encode(wanted):
            if isinstance(embeddings, Exception):
                self._failed.add(each)
                logger.warning("image %016x could not be encoded ahead: %s", each.image_id, embeddings)
                continue
            for crop_xyxy, embedding_CEE in embeddings:
                self._cache.put(_key(hashes[each.image_id][0], each.model_id, crop_xyxy), embedding_CEE)
            encoded += 1
            if self._closing.is_set():
                break
        return encoded

    def missing(self) -> list[ToEncode]:
        """List the images at the head of the queue that are not encoded, the first first."""
        asked = []
        for task, model in self._workspace.leases.unanswered(MAX_AHEAD):
            try:
                asked.append(ToEncode(image_id=task.image_id, model_id=self._models.get(model or None).model_id))
            except NotFound:  # the round was opened by a server with another model
                continue
        fresh = [each for each in dict.fromkeys(asked) if each not in self._failed]
        hashes = self._hashes([each.image_id for each in fresh])
        return [
            each for each in fresh if each.image_id in hashes and not self._is_encoded(each, *hashes[each.image_id])
        ]

    def _is_encoded(self, wanted: ToEncode, image_sha256: str, image_hw: tuple[int, int]) -> bool:
        windows = windows_of(self._models.get(wanted.model_id), image_hw)
        return all(self._cache.has(_key(image_sha256, wanted.model_id, window.xyxy)) for window in windows)

    def _hashes(self, image_ids: Sequence[int]) -> dict[int, tuple[str, tuple[int, int]]]:
        """Read the SHA-256 and the size of stored images; images that the dataset does not hold are left out."""
        if not image_ids:
            return {}
        ids = ", ".join(map(str, sorted(set(image_ids))))
        sql = f"SELECT image_id, stored_sha256, height, width FROM images WHERE image_id IN ({ids})"
        rows = self._dataset.query(sql).to_pylist()
        return {row["image_id"]: (row["stored_sha256"], (row["height"], row["width"])) for row in rows}

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self.look()
            except Exception:  # the server encodes each image itself once its task is claimed
                logger.exception("images could not be encoded ahead; next try in %.0f s", self._every_s)
            self._closing.wait(self._every_s)


def _key(image_sha256: str, model_id: str, crop_xyxy: CropXyxy) -> EmbeddingKey:
    return EmbeddingKey(image_sha256=image_sha256, model_id=model_id, crop_xyxy=crop_xyxy)
