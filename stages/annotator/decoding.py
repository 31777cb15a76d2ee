"""The decoding threads: prompts of all annotators wait in one bounded queue and are decoded in small batches.

A batch takes the prompts that wait when a thread is free, so batches grow with the load. A full queue refuses further
prompts at once, because an answer that comes seconds late is worth less than a clear "busy".
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from engine.interactive.batched import Predicted, predict_many
from engine.interactive.segment import ObjectPrompt, check_prompt
from stages.annotator.config import SessionsConfig
from stages.annotator.models import EncodedPicture, Encoder

logger = logging.getLogger(__name__)

PREPARE_NICENESS = 10
"""Niceness of the thread that encodes ahead, so that prompts have the processor first."""
IDLE_CHECK_S = 0.02
"""Pause of the encoding thread while prompts wait to be decoded, in seconds."""


class Busy(Exception):
    """Refusal of work because too much waits already; the client should try again a little later."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Masks of one prompt, best first, and the time that they took."""

    masks: list[Predicted]
    waited_ms: float
    """Time from the submission to the start of the batch, in milliseconds."""
    decoded_ms: float
    """Time that the batch took, in milliseconds."""
    batch: int
    """Number of prompts in the batch."""


@dataclass(frozen=True, kw_only=True)
class _Request:
    encoded: EncodedPicture
    prompt: ObjectPrompt
    submitted: float = field(default_factory=time.perf_counter)
    future: Future[Decoded] = field(default_factory=Future)


class DecodeQueue:
    """Threads that decode prompts in batches; `close` ends them."""

    def __init__(self, config: SessionsConfig) -> None:
        self._config = config
        self._waiting: queue.Queue[_Request | None] = queue.Queue(config.max_waiting)
        self._threads = [
            threading.Thread(target=self._run, name=f"decode-{number}", daemon=True)
            for number in range(config.decode_threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Number of prompts that wait for a batch."""
        return self._waiting.qsize()

    def submit(self, encoded: EncodedPicture, prompt: ObjectPrompt) -> Future[Decoded]:
        """Put a prompt into the queue; the future gets its masks.

        Raises:
            ValueError: The prompt cannot be used on this picture.
            Busy: The queue is full.
        """
        check_prompt(prompt, encoded.picture.image_hw)
        request = _Request(encoded=encoded, prompt=prompt)
        try:
            self._waiting.put_nowait(request)
        except queue.Full:
            raise Busy(
                f"got a prompt while {self._config.max_waiting} others wait, which is the limit; try again in a second"
            ) from None
        return request.future

    def close(self) -> None:
        """Decode what waits, and end the threads."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._config.torch_threads)
        while (first := self._waiting.get()) is not None:
            batch, is_last = self._gather(first)
            _decode([request for request in batch if request.future.set_running_or_notify_cancel()])
            if is_last:
                return

    def _gather(self, first: _Request) -> tuple[list[_Request], bool]:
        """Collect a batch; return it, and whether the thread ends after it."""
        batch, until = [first], time.perf_counter() + self._config.max_wait_ms / 1000
        while len(batch) < self._config.max_batch:
            try:
                request = self._waiting.get(timeout=max(0.0, until - time.perf_counter()))
            except queue.Empty:
                break
            if request is None:
                return batch, True
            batch.append(request)
        return batch, False


def _decode(batch: list[_Request]) -> None:
    """Decode a batch, one model after another; each request gets its masks or its own error."""
    by_model: dict[str, list[_Request]] = {}
    for request in batch:
        by_model.setdefault(request.encoded.model.model_id, []).append(request)
    for requests in by_model.values():
        started = time.perf_counter()
        try:
            found = predict_many(requests[0].encoded.model, [(r.encoded.views, r.prompt) for r in requests])
        except Exception as error:  # passed on to whoever waits
            if len(requests) == 1:
                requests[0].future.set_exception(error)
                continue
            for request in requests:  # one bad prompt spoils no other
                _decode_again(request)
            continue
        decoded_ms = 1000 * (time.perf_counter() - started)
        for request, masks in zip(requests, found, strict=True):
            waited_ms = 1000 * (started - request.submitted)
            request.future.set_result(
                Decoded(masks=masks, waited_ms=waited_ms, decoded_ms=decoded_ms, batch=len(requests))
            )


def _decode_again(request: _Request) -> None:
    started = time.perf_counter()
    try:
        (masks,) = predict_many(request.encoded.model, [(request.encoded.views, request.prompt)])
    except Exception as error:
        request.future.set_exception(error)
        return
    waited_ms, decoded_ms = 1000 * (started - request.submitted), 1000 * (time.perf_counter() - started)
    request.future.set_result(Decoded(masks=masks, waited_ms=waited_ms, decoded_ms=decoded_ms, batch=1))


class PrepareQueue:
    """A thread that encodes pictures ahead of their tasks, and gives way to prompts that wait."""

    def __init__(self, encoder: Encoder, decoding: DecodeQueue, *, max_waiting: int) -> None:
        self._encoder, self._decoding = encoder, decoding
        self._waiting: queue.Queue[EncodedPicture | None] = queue.Queue(max_waiting)
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="prepare", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of pictures that wait to be encoded."""
        return self._waiting.qsize()

    def add(self, encoded: EncodedPicture) -> None:
        """Have a picture encoded soon.

        Raises:
            Busy: Too many pictures wait already; this one will be encoded at its first click.
        """
        try:
            self._waiting.put_nowait(encoded)
        except queue.Full:
            raise Busy(f"{self._waiting.maxsize} images wait to be encoded; try again in a minute") from None

    def close(self) -> None:
        """End the thread after the window that it encodes now; what waits is left."""
        self._is_closing = True
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(1)
        with contextlib.suppress(AttributeError, OSError):  # Linux alone has priorities of threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PREPARE_NICENESS)
        while not self._is_closing and (encoded := self._waiting.get()) is not None:
            try:
                for _ in self._windows(encoded):
                    if self._is_closing:
                        return
            except Exception:  # the first click will meet it again and tell the annotator
                logger.exception("image %s could not be encoded ahead", encoded.picture.record.key)

    def _windows(self, encoded: EncodedPicture) -> Iterator[None]:
        for _ in self._encoder.prepare(encoded.picture, encoded.model):
            while self._decoding.waiting and not self._is_closing:
                time.sleep(IDLE_CHECK_S)
            yield
