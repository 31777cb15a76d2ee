"""Models of the server, several side by side: by name or model_id, loaded once, encoding images through the cache."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.images import Frame
from engine.interactive.batched import ImageViews, windows_of
from engine.interactive.segment import CropXyxy
from engine.model.weights import Model, load_model
from stages.annotator.embeddings import EmbeddingCache, EmbeddingKey
from stages.annotator.pictures import Picture
from stages.promoted import PROMOTED, find_in_dataset
from storage.dataset import Dataset
from storage.errors import NotFound

MAX_FOLLOWED = 2
"""Largest number of formerly promoted models that the server keeps for pages that still name them."""


class Models:
    """Models by name and by model_id. The first is the default.

    The name `promoted` follows the dataset: `follow` loads what is promoted by now.
    """

    def __init__(self, names: Sequence[str], dataset: Dataset | None) -> None:
        """Load the models; without a dataset there is no promoted one.

        Raises:
            ValueError: There is no model, or one cannot be loaded.
        """
        if not names:
            raise ValueError("got no model, expected at least one name or weights file")
        self._dataset = dataset
        self._follows = dataset is not None and PROMOTED in names
        self._generation = self._newest_generation()
        self._loaded = {name: load_model(find_in_dataset(dataset, name) if dataset else name) for name in names}
        self._by_id = {model.model_id: model for model in self._loaded.values()}

    @property
    def follows_promoted(self) -> bool:
        """Whether one of the models is the promoted one."""
        return self._follows

    def get(self, name: str | None) -> Model:
        """Return a model by name or model_id; None returns the default.

        Raises:
            NotFound: The server has no such model.
        """
        if name is None:
            return next(iter(self._loaded.values()))
        model = self._by_id.get(name) or self._loaded.get(name)
        if model is None:
            raise NotFound(f"got model {name!r}, expected one of {', '.join(self._by_id)}; reload the task")
        return model

    def name_for_round(self, name: str | None) -> str:
        """Return the name of a model under which a round keeps it: `promoted` stays, others are kept by model_id.

        Raises:
            NotFound: The server has no such model.
        """
        follows = self._follows and name in (None, PROMOTED) and self.get(name) is self._loaded[PROMOTED]
        return PROMOTED if follows else self.get(name).model_id

    def ids(self) -> list[str]:
        """List the model_ids that can be asked for by name, the default first."""
        return list(dict.fromkeys(model.model_id for model in self._loaded.values()))

    def follow(self, make_ready: Callable[[Model], None]) -> str | None:
        """Load the model that is promoted by now, if it is another one, and return its model_id.

        The models promoted before stay for requests that name them, up to `MAX_FOLLOWED`.

        Args:
            make_ready: Function that is called with a new model before it is given to anybody.

        Raises:
            StoreError: The dataset cannot be read.
            ValueError: The promoted model cannot be loaded.
        """
        if self._dataset is None or not self._follows or (generation := self._newest_generation()) == self._generation:
            return None
        model = load_model(find_in_dataset(self._dataset, PROMOTED))
        self._generation = generation
        if model.model_id == self._loaded[PROMOTED].model_id:
            return None
        model = self._by_id.get(model.model_id, model)
        make_ready(model)
        kept = {each: known for each, known in self._by_id.items() if each != model.model_id}
        others = [each for each in kept if each not in self.ids()]
        for dropped in others[: max(0, len(others) - MAX_FOLLOWED)]:
            del kept[dropped]
        self._loaded = self._loaded | {PROMOTED: model}  # other threads read the dictionaries meanwhile
        self._by_id = kept | {model.model_id: model}
        return model.model_id

    def _newest_generation(self) -> int:
        newest = self._dataset.promotions.newest() if self._dataset is not None and self._follows else None
        return newest.number if newest else 0


@dataclass(frozen=True, kw_only=True)
class EncodedPicture:
    """A picture seen by one model, with embeddings that are computed when they are first used."""

    picture: Picture
    model: Model
    views: ImageViews


class Encoder:
    """Encodes windows of pictures, each once; threads that need the same window wait for one another."""

    def __init__(self, cache: EmbeddingCache) -> None:
        self.cache = cache
        self._lock = threading.Lock()
        self._running: dict[EmbeddingKey, threading.Event] = {}

    def open(self, picture: Picture, model: Model) -> EncodedPicture:
        """Make a picture ready for prompts; nothing is encoded yet."""

        def embed(crop_xyxy: CropXyxy) -> torch.Tensor:
            embedding_CEE = self.embedding(picture, model, crop_xyxy)
            return torch.from_numpy(embedding_CEE.astype(np.float32))[None].to(model.sam.device)

        windows = windows_of(model, picture.image_hw)
        views = ImageViews(image_hw=picture.image_hw, windows=windows, embed=embed)
        return EncodedPicture(picture=picture, model=model, views=views)

    def is_ready(self, picture: Picture, model: Model) -> bool:
        """Tell whether the whole image and the first layer of windows are encoded."""
        first = [window.xyxy for window in windows_of(model, picture.image_hw) if window.layer <= 1]
        return all(self.cache.get(_key(picture, model, crop)) is not None for crop in first)

    def prepare(self, picture: Picture, model: Model) -> Iterable[CropXyxy]:
        """Encode every window, the whole image first; yield after each, so that a caller can stop between two."""
        for window in sorted(windows_of(model, picture.image_hw), key=lambda window: window.layer):
            self.embedding(picture, model, window.xyxy)
            yield window.xyxy

    def embedding(self, picture: Picture, model: Model, crop_xyxy: CropXyxy) -> np.ndarray:
        """Return the embedding of a window, fp16 [C, E, E], from the cache or encoded now."""
        key = _key(picture, model, crop_xyxy)
        while True:
            found = self.cache.get(key)
            if found is not None:
                return found
            with self._lock:
                running = self._running.get(key)
                if running is None:
                    self._running[key] = threading.Event()
                    break
            running.wait()
        try:
            embedding_CEE = encode_window(picture, model, crop_xyxy)
            self.cache.put(key, embedding_CEE)
            return embedding_CEE
        finally:
            with self._lock:
                self._running.pop(key).set()


def encode_window(picture: Picture, model: Model, crop_xyxy: CropXyxy) -> np.ndarray:
    """Encode one window of a picture, fp16 [C, E, E]."""
    frame = Frame(crop_xyxy=crop_xyxy, image_hw=picture.image_hw, model_side=model.sam.config.input_side)
    pixels_3SS = model.sam.preprocess(np.ascontiguousarray(frame.crop(picture.pixels_HW3)))
    with torch.inference_mode():
        embedding_1CEE = model.sam.encode(pixels_3SS[None])
    return embedding_1CEE[0].half().cpu().numpy()


def _key(picture: Picture, model: Model, crop_xyxy: CropXyxy) -> EmbeddingKey:
    return EmbeddingKey(image_sha256=picture.record.stored_sha256, model_id=model.model_id, crop_xyxy=crop_xyxy)
