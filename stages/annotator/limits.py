"""Limits on how often and how much a client may send."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from stages.annotator.errors import Refusal, error_response

MAX_KEYS = 10_000
"""Largest number of clients that a limit remembers; those seen least recently are forgotten."""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class RateLimit:
    """Limit of a rate for each key: `burst` at once, then one more every `1 / per_s` seconds."""

    def __init__(self, per_s: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> number left, and when
        self._lock = threading.Lock()

    def take(self, key: str, what: str) -> None:
        """Count one request.

        Raises:
            Refusal: The key has used up its requests.
        """
        now = self._clock()
        with self._lock:
            left, then = self._left.pop(key, (float(self._burst), now))
            left = min(float(self._burst), left + (now - then) * self._per_s)
            self._left[key] = (left - 1 if left >= 1 else left, now)
            while len(self._left) > MAX_KEYS:
                self._left.popitem(last=False)
        if left < 1:
            wait_s = max(1, round((1 - left) / self._per_s))
            limit = f"{self._burst} at once and {self._per_s:.2g} a second"
            raise Refusal(
                429, "too_many_requests", f"too many {what}: expected at most {limit}; wait {wait_s} s", retry_s=wait_s
            )


class BodyLimit:
    """ASGI middleware that refuses requests with a body of more than `max_bytes`."""

    def __init__(self, app: _App, *, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Read the body up to the limit, and pass the request on or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        chunks: list[bytes] = []
        total, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client is gone
            total += len(message.get("body", b""))
            if total > self._max_bytes:
                text = f"got a body of more than {self._max_bytes} bytes, the limit; send less in one request"
                await error_response(Refusal(413, "too_large", text))(scope, receive, send)
                return
            chunks.append(message.get("body", b""))
            more = message.get("more_body", False)
        body: _Message | None = {"type": "http.request", "body": b"".join(chunks), "more_body": False}

        async def replay() -> _Message:
            nonlocal body
            message, body = body, None
            return message if message is not None else await receive()

        await self._app(scope, replay, send)
