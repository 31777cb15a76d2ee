"""Cache of embeddings: in memory, and on disk by image and model, each up to a size.

The cache only saves time: every embedding can be computed again, so a damaged file is removed and a full disk is
reported once. Without a folder it keeps embeddings in memory alone. Files appear complete or not at all; several
processes may share a folder. A file holds the SHA-256 of its content, the shape and the values as fp16, which change a
mask by about one pixel in ten thousand.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.objects.atomic import replace_file

logger = logging.getLogger(__name__)

_DIGEST_BYTES = 32
_KEEP_FRACTION = 0.9
"""Fraction of the size limit that remains after files are removed, so that not every new file removes another."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingKey:
    """Key of one embedding: an image, a model and a window."""

    image_sha256: str
    """SHA-256 of the stored image file, as 64 hex digits."""
    model_id: str
    """Id of the model, which ends in a hash of its weights."""
    crop_xyxy: tuple[int, int, int, int]
    """Window of the image that was encoded, half-open, in pixels."""

    @property
    def path(self) -> str:
        """Path of the embedding's file inside the cache's folder."""
        crop = "-".join(map(str, self.crop_xyxy))
        return f"{self.model_id}/{self.image_sha256[:2]}/{self.image_sha256}-{crop}.embedding"


class EmbeddingCache:
    """Embeddings by key, in memory and in a folder, if there is one; safe to use from several threads."""

    def __init__(self, folder: Path | None, *, max_disk_bytes: int, max_memory_bytes: int) -> None:
        self.folder = folder
        self._max_disk_bytes, self._max_memory_bytes = max_disk_bytes, max_memory_bytes
        self._memory: OrderedDict[EmbeddingKey, np.ndarray] = OrderedDict()
        self._memory_bytes = 0
        self._lock = threading.Lock()
        self._disk_lock = threading.Lock()
        self._disk_bytes: int | None = None  # None: the folder has not been counted yet
        self._has_warned = False

    @property
    def memory_bytes(self) -> int:
        """Size of the embeddings in memory, in bytes."""
        return self._memory_bytes

    def get(self, key: EmbeddingKey) -> np.ndarray | None:
        """Return an embedding, fp16 [C, E, E], or None where the cache has none."""
        with self._lock:
            if key in self._memory:
                self._memory.move_to_end(key)
                return self._memory[key]
        embedding_CEE = self._read(self.folder / key.path) if self.folder is not None else None
        if embedding_CEE is not None:
            self._keep(key, embedding_CEE)
        return embedding_CEE

    def has(self, key: EmbeddingKey) -> bool:
        """Tell whether the cache has an embedding, without reading it."""
        with self._lock:
            if key in self._memory:
                return True
        return self.folder is not None and (self.folder / key.path).is_file()

    def put(self, key: EmbeddingKey, embedding_CEE: np.ndarray) -> None:
        """Add an embedding (fp16 [C, E, E]). Where the disk is full, it is kept in memory alone."""
        assert embedding_CEE.dtype == np.float16
        self._keep(key, embedding_CEE)
        if self.folder is None:
            return
        path = self.folder / key.path
        shape = np.array(embedding_CEE.shape, dtype=np.int32).tobytes()
        content = shape + np.ascontiguousarray(embedding_CEE).tobytes()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda file: file.write(hashlib.sha256(content).digest() + content))
            self._count(self.folder, _DIGEST_BYTES + len(content))
        except OSError as error:
            if not self._has_warned:
                logger.warning("embedding cache %s: %s; embeddings are kept in memory alone", self.folder, error)
            self._has_warned = True

    def _keep(self, key: EmbeddingKey, embedding_CEE: np.ndarray) -> None:
        with self._lock:
            before = self._memory.pop(key, None)
            self._memory[key] = embedding_CEE
            self._memory_bytes += embedding_CEE.nbytes - (before.nbytes if before is not None else 0)
            while self._memory_bytes > self._max_memory_bytes and len(self._memory) > 1:
                _, dropped = self._memory.popitem(last=False)
                self._memory_bytes -= dropped.nbytes

    def _read(self, path: Path) -> np.ndarray | None:
        try:
            data = path.read_bytes()
            os.utime(path)  # the file was used
        except OSError:
            return None
        digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if len(content) < 12 or hashlib.sha256(content).digest() != digest:
            logger.warning("embedding cache: %s is damaged and is removed; the image is encoded again", path)
            path.unlink(missing_ok=True)
            return None
        shape = np.frombuffer(content[:12], dtype=np.int32)
        return np.frombuffer(content[12:], dtype=np.float16).reshape(shape)

    def _count(self, folder: Path, nbytes: int) -> None:
        """Add to the folder's size, and remove the files used least recently where it is over the limit."""
        with self._disk_lock:
            if self._disk_bytes is None:
                self._disk_bytes = sum(size for _, size, _ in self._files(folder))
            else:
                self._disk_bytes += nbytes
            if self._disk_bytes <= self._max_disk_bytes:
                return
            files = sorted(self._files(folder))
            self._disk_bytes = sum(size for _, size, _ in files)
            for _, size, path in files:
                if self._disk_bytes <= _KEEP_FRACTION * self._max_disk_bytes:
                    break
                path.unlink(missing_ok=True)
                self._disk_bytes -= size

    def _files(self, folder: Path) -> list[tuple[float, int, Path]]:
        """List time of use, size and path of every file."""
        found = []
        for path in folder.rglob("*.embedding"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process removed it
                continue
            found.append((status.st_mtime, status.st_size, path))
        return found
