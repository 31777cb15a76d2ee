"""Clicks in, masks out: what the page asks of the models, without a web framework.

image_id -> picture -> embeddings (cache) -> decode queue -> candidates, whose logits wait for the next click
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from prometheus_client import Histogram

from engine.interactive import edits
from engine.interactive.batched import ImageViews, along_scribble, predict_many, windows_of
from engine.interactive.refine import change_around_clicks, prompt_with_mask
from engine.interactive.segment import Click, CropXyxy, ObjectPrompt, SamImage, SamSegmenter
from engine.model.weights import Model
from stages.annotator.config import SessionsConfig
from stages.annotator.decoders import Decoders
from stages.annotator.decoding import Decoded, DecodeQueue, PrepareQueue
from stages.annotator.embeddings import EmbeddingCache
from stages.annotator.models import EncodedPicture, Encoder, Models
from stages.annotator.pictures import Picture, Pictures, PictureSource
from stages.annotator.tutorial import WithTutorial
from storage import rle
from storage.dataset import Dataset
from storage.errors import InvalidInput, NotFound, StoreError
from storage.rle import Rle

logger = logging.getLogger(__name__)

MAX_CLICKS = 64
"""Largest number of clicks of one prompt, those of its scribbles included."""
LATENCY_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the bins in which times from click to mask are counted, in seconds."""

Basis = Literal["none", "logits", "mask"]
"""Earlier mask that a prediction continued: none, the logits of a prediction, or a bitmap."""
_NONE: Basis = "none"
_LOGITS: Basis = "logits"
_MASK: Basis = "mask"


@dataclass(frozen=True, kw_only=True)
class Scribble:
    """One stroke of a scribble."""

    points: tuple[tuple[float, float], ...]
    """Points (x, y) along the stroke, in image pixels."""
    positive: bool = True


@dataclass(frozen=True, kw_only=True)
class Continued:
    """Candidate of an earlier prediction, whose logits the next prompt continues."""

    prediction_id: str
    candidate: int


@dataclass(frozen=True, kw_only=True)
class AskedPrompt:
    """Prompt for one object, as an annotator gives it."""

    clicks: tuple[Click, ...] = ()
    box_xyxy: tuple[float, float, float, float] | None = None
    """Box around the object, in image pixels; None means no box."""
    scribbles: tuple[Scribble, ...] = ()
    continued: Continued | None = None
    """Candidate to continue; None means none, or that `mask` says where to begin."""
    mask: Rle | None = None
    """Mask to refine; it is used where `continued` is None or its logits are gone."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One mask offered for a prompt."""

    rle: Rle
    predicted_iou: float
    stability: float
    """Stability score in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Answer to a prompt."""

    prediction_id: str
    """Name under which the logits of the candidates wait for the next click."""
    image_sha256: str
    """SHA-256 of the image that the masks are of."""
    model_id: str
    candidates: tuple[Candidate, ...]
    """Masks, best first: three for a lone click. A refined mask comes first as changed around the clicks alone, then
    as the decoder sees the whole of it."""
    basis: Basis
    waited_ms: float
    decoded_ms: float
    batch: int
    """Number of prompts that were decoded together."""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """Logits of a prediction, which its next click continues."""

    image_sha256: str
    model_id: str
    logits: tuple[torch.Tensor, ...]
    crops: tuple[CropXyxy, ...]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.logits)


class Sessions:
    """Models and images, those of one dataset as a rule, ready for the prompts of any number of annotators."""

    def __init__(
        self, source: Dataset | PictureSource, models: Sequence[str], cache: Path | None, config: SessionsConfig
    ) -> None:
        """Load the models and start the threads.

        Args:
            source: Dataset, or what gives the pictures without one; then no model is called promoted.
            models: Names of the models; the first is the default.
            cache: Folder of embeddings and decoders; None keeps them in memory alone.
            config: Limits of memory, threads and queues.

        Raises:
            ValueError: There is no model, or one cannot be loaded.
        """
        dataset = source if isinstance(source, Dataset) else None
        self.models = Models(models, dataset)
        self.pictures = WithTutorial(
            Pictures(source, max_bytes=config.image_bytes) if isinstance(source, Dataset) else source
        )
        self.encoder = Encoder(
            EmbeddingCache(cache, max_disk_bytes=config.cache_bytes, max_memory_bytes=config.cache_memory_bytes)
        )
        self.decoders = Decoders(cache)
        self.latency = Histogram(
            "gigamask_click_seconds",
            "Time from a prompt's arrival to its masks, encoding included",
            buckets=LATENCY_BOUNDS_S,
            registry=None,
        )
        self._decoding = DecodeQueue(config)
        self._preparing = PrepareQueue(self.encoder, self._decoding, max_waiting=config.max_preparing)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes, self._max_kept_bytes = 0, config.prediction_bytes
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._following = threading.Thread(
            target=self._follow_promoted, args=(config.follow_every_s,), name="promoted", daemon=True
        )
        if self.models.follows_promoted:
            self._following.start()

    @property
    def waiting(self) -> int:
        """Number of prompts that wait to be decoded."""
        return self._decoding.waiting

    @property
    def preparing(self) -> int:
        """Number of images that wait to be encoded."""
        return self._preparing.waiting

    def warm_up(self) -> None:
        """Predict once with every model, so that no annotator waits for what is compiled or loaded at the first use.

        The models' decoders are exported as well, for pages that decode by themselves.
        """
        for name in self.models.ids():
            self._make_ready(self.models.get(name))

    def follow_promoted(self) -> None:
        """Give annotators the model that is promoted by now; a dataset that cannot be read is tried again later."""
        try:
            model_id = self.models.follow(self._make_ready)
        except (StoreError, ValueError, OSError) as error:
            logger.warning("the promoted model cannot be followed now, the one before answers (%s)", error)
            return
        if model_id is not None:
            logger.warning("the promoted model is %s now", model_id)

    def close(self) -> None:
        """End the threads; prompts that wait are answered first."""
        self._closing.set()
        if self._following.is_alive():
            self._following.join()
        self._preparing.close()
        self._decoding.close()

    def prepare(self, image_id: int, model: str | None = None) -> bool:
        """Have an image encoded ahead of its first click, and tell whether it is encoded already.

        Raises:
            NotFound: There is no such image or model.
            Busy: Too many images wait already.
        """
        encoded = self.open(image_id, model)
        if self.encoder.is_ready(encoded.picture, encoded.model):
            return True
        self._preparing.add(encoded)
        return False

    def open(self, image_id: int, model: str | None = None) -> EncodedPicture:
        """Read an image for a model; nothing is encoded yet.

        Raises:
            NotFound: There is no such image or model.
        """
        return self.encoder.open(self.pictures.get(image_id), self.models.get(model))

    def predict(self, image_id: int, asked: AskedPrompt, model: str | None = None) -> Future[Prediction]:
        """Predict masks for a prompt; the future gets the prediction.

        Raises:
            NotFound: There is no such image or model, or the continued prediction is gone and no mask is given.
            ValueError: The prompt cannot be used.
            Busy: Too many prompts wait already.
        """
        # The prompt, with the earlier mask that it continues
        begun = time.perf_counter()
        encoded = self.open(image_id, model)
        prompt = ObjectPrompt(clicks=_clicks(asked), box_xyxy=asked.box_xyxy)
        kept, basis = self._find_kept(encoded, asked), _NONE
        if kept is not None and asked.continued is not None:
            number, basis = _check_candidate(asked.continued, kept), _LOGITS
            logits_LL, crop = kept.logits[number].float(), kept.crops[number]
            prompt = replace(prompt, previous_logits_LL=logits_LL, previous_crop_xyxy=crop)
        elif asked.mask is not None:
            prompt, basis = prompt_with_mask(encoded.model, encoded.views, prompt, asked.mask), _MASK

        # Its masks
        answer: Future[Prediction] = Future()
        refined = asked.mask if basis == _MASK else None

        def finish(decoded: Future[Decoded]) -> None:
            error = decoded.exception()
            if error is not None:
                answer.set_exception(error)
                return
            try:
                answer.set_result(self._prediction(encoded, prompt, decoded.result(), refined, basis))
                self.latency.observe(time.perf_counter() - begun)
            except Exception as failure:  # passed on to whoever waits
                answer.set_exception(failure)

        self._decoding.submit(encoded, prompt).add_done_callback(finish)
        return answer

    def wand(self, image_id: int, x: float, y: float, tolerance: int) -> tuple[Picture, Rle]:
        """Select the flat region around a point; return the picture and the mask.

        Raises:
            NotFound: There is no such image.
            ValueError: The point or the tolerance cannot be used.
        """
        picture = self.pictures.get(image_id)
        return picture, edits.wand(picture.pixels_HW3, x, y, tolerance)

    def _follow_promoted(self, every_s: float) -> None:
        while not self._closing.wait(every_s):
            self.follow_promoted()

    def _make_ready(self, model: Model) -> None:
        _warm_up(model)
        self.decoders.prepare(model)

    def _prediction(
        self, encoded: EncodedPicture, prompt: ObjectPrompt, decoded: Decoded, refined: Rle | None, basis: Basis
    ) -> Prediction:
        """Turn decoded masks into a prediction, and keep their logits for the next click."""
        masks = decoded.masks
        offered = [
            Candidate(rle=mask.rle, predicted_iou=mask.predicted_iou, stability=mask.stability) for mask in masks
        ]
        if refined is not None and prompt.clicks:
            changed = change_around_clicks(refined, masks[0].rle, prompt.clicks)
            offered.insert(0, replace(offered[0], rle=changed))
            masks = [masks[0], *masks]
        prediction_id = secrets.token_urlsafe(12)
        kept = _Kept(
            image_sha256=encoded.picture.record.stored_sha256,
            model_id=encoded.model.model_id,
            logits=tuple(mask.logits_LL.half() for mask in masks),
            crops=tuple(mask.crop_xyxy for mask in masks),
        )
        with self._lock:
            self._kept[prediction_id] = kept
            self._kept_bytes += kept.nbytes
            while self._kept_bytes > self._max_kept_bytes and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return Prediction(
            prediction_id=prediction_id,
            image_sha256=kept.image_sha256,
            model_id=kept.model_id,
            candidates=tuple(offered),
            basis=basis,
            waited_ms=decoded.waited_ms,
            decoded_ms=decoded.decoded_ms,
            batch=decoded.batch,
        )

    def _find_kept(self, encoded: EncodedPicture, asked: AskedPrompt) -> _Kept | None:
        """Find the logits of the continued prediction; None where there is none, or where the given mask serves.

        Raises:
            NotFound: The logits are gone and the prompt gives no mask.
            ValueError: The prediction is of another image or by another model.
        """
        if asked.continued is None:
            return None
        with self._lock:
            kept = self._kept.get(asked.continued.prediction_id)
            if kept is not None:
                self._kept.move_to_end(asked.continued.prediction_id)
        if kept is None and asked.mask is None:
            raise NotFound("the continued prediction is gone, after a restart or a long pause; send the mask with it")
        if kept is not None and asked.mask is not None and kept.model_id != encoded.model.model_id:
            return None  # another model was promoted since; it refines the mask
        if kept is not None and (kept.image_sha256, kept.model_id) != (
            encoded.picture.record.stored_sha256,
            encoded.model.model_id,
        ):
            raise InvalidInput(
                f"the continued prediction is by {kept.model_id} on image {kept.image_sha256[:12]}, expected "
                f"{encoded.model.model_id} on {encoded.picture.record.stored_sha256[:12]}; begin anew or send the mask"
            )
        return kept


def _warm_up(model: Model) -> None:
    blank_HW3 = np.zeros((64, 64, 3), dtype=np.uint8)
    views = ImageViews(
        image_hw=(64, 64),
        windows=windows_of(model, (64, 64)),
        embed=partial(_embedding_of, SamSegmenter(model=model).open(blank_HW3)),
    )
    predict_many(model, [(views, ObjectPrompt(clicks=(Click(x=32, y=32),)))])


def _embedding_of(opened: SamImage, crop_xyxy: CropXyxy) -> torch.Tensor:
    return opened.embeddings_1CEE


def _clicks(asked: AskedPrompt) -> tuple[Click, ...]:
    strokes = [along_scribble(each.points, positive=each.positive) for each in asked.scribbles]
    clicks = asked.clicks + tuple(click for stroke in strokes for click in stroke)
    if len(clicks) > MAX_CLICKS:
        raise InvalidInput(f"got {len(clicks)} clicks, those of scribbles included, expected at most {MAX_CLICKS}")
    return clicks


def _check_candidate(continued: Continued, kept: _Kept) -> int:
    if not 0 <= continued.candidate < len(kept.logits):
        raise InvalidInput(f"got candidate {continued.candidate}, expected 0 to {len(kept.logits) - 1}")
    return continued.candidate


def merge(masks: Sequence[Rle]) -> Rle:
    """Join masks of one image into one.

    Raises:
        ValueError: There are fewer than two masks, or they differ in size.
    """
    if len(masks) < 2:
        raise InvalidInput(f"got {len(masks)} masks to merge, expected at least 2")
    return rle.merge(masks)
