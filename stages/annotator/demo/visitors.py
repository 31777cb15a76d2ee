"""Visitors by address: nobody logs in, and nobody may ask for more than a share of the machine."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import Request

from stages.annotator.demo.config import DemoConfig
from stages.annotator.demo.everything import Everything
from stages.annotator.demo.photos import Photos
from stages.annotator.errors import Refusal, error_response
from stages.annotator.limits import RateLimit
from stages.annotator.sessions import Sessions
from storage.workspace.records import Role, User

PHOTOS_PATH = "/api/photos"
"""Route that takes photos."""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


@dataclass(kw_only=True)
class Demo:
    """Parts of one demo."""

    config: DemoConfig
    photos: Photos
    sessions: Sessions
    everything: Everything = field(init=False)
    predict_limit: RateLimit = field(init=False)
    request_limit: RateLimit = field(init=False)
    photo_limit: RateLimit = field(init=False)
    all_photos_limit: RateLimit = field(init=False)
    everything_limit: RateLimit = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        photos, everything = config.photos_per_minute, config.everything_per_minute
        self.everything = Everything(max_waiting=config.max_everything)
        self.predict_limit = _limit(config.predictions_per_s, 3 * config.predictions_per_s)
        self.request_limit = _limit(config.requests_per_s, 5 * config.requests_per_s)
        self.photo_limit = _limit(photos / 60, photos)
        self.all_photos_limit = _limit(10 * photos / 60, 10 * photos)
        self.everything_limit = _limit(everything / 60, everything)


def find_demo(request: Request) -> Demo:
    """Return the demo of a request; a dependency."""
    demo: Demo = request.app.state.server
    return demo


def find_visitor(request: Request) -> User:
    """Take the address of a request for a user without an account, and count the request; a dependency.

    Raises:
        Refusal: Too many requests came from the address.
    """
    name = _address(request.client.host if request.client else "")
    find_demo(request).request_limit.take(name, "requests")
    return User(
        name=name,
        role=Role.ANNOTATOR,
        has_password=False,
        disabled=False,
        paused=False,
        created_at=datetime.now(UTC),
    )


class Arrival:
    """ASGI middleware that bounds how long requests may arrive, and how many photos arrive at the same time."""

    def __init__(self, app: _App, *, max_uploads: int, receive_s: float) -> None:
        self._app, self._receive_s = app, receive_s
        self._max_uploads, self._uploads = max_uploads, 0

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Pass a request on, or refuse a photo where enough are on their way."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"] == PHOTOS_PATH
        if is_upload and self._uploads >= self._max_uploads:
            text = f"{self._max_uploads} photos are on their way already; try again in a few seconds"
            await error_response(Refusal(503, "busy", text, retry_s=3))(scope, receive, send)
            return
        self._uploads += is_upload
        until = asyncio.get_running_loop().time() + self._receive_s
        is_complete = False

        async def receive_in_time() -> _Message:
            nonlocal is_complete
            if is_complete:  # what comes after the body is the end of the connection
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                return {"type": "http.disconnect"}
            is_complete = not message.get("more_body", False)
            return message

        try:
            await self._app(scope, receive_in_time, send)
        finally:
            self._uploads -= is_upload


def _limit(per_s: float, burst: float) -> RateLimit:
    return RateLimit(per_s, burst=max(1, round(burst)))


def _address(host: str) -> str:
    """Write an address as a limit counts it: whoever has an IPv6 address has a whole /64 of them."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return host
