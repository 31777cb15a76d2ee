"""Start of the demo: its model, its first photo, and uvicorn."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from stages.annotator.demo.app import make_demo_app
from stages.annotator.demo.config import DemoConfig
from stages.annotator.demo.photos import Photos
from stages.annotator.demo.visitors import Demo
from stages.annotator.serve import STOP_S, StoppableServer
from stages.annotator.sessions import Sessions

MAX_CONNECTIONS = 512
"""Largest number of connections; further ones are answered with 503."""


@contextmanager
def open_demo(model: str, photo: bytes | None, config: DemoConfig) -> Iterator[Demo]:
    """Open all that the demo needs, and close it at the end of the block.

    Args:
        model: Name of a model, or a weights file.
        photo: File of the photo that visitors see first; None means that they bring their own.
        config: Settings.

    Raises:
        ValueError: The model cannot be loaded, or the photo cannot be used.
    """
    photos = Photos(config)
    photos.first = photos.read(photo) if photo is not None else None
    sessions = Sessions(photos, [model], None, config.sessions)
    try:
        sessions.warm_up()
        if photos.first is not None:
            sessions.prepare(photos.first.record.image_id)
        yield Demo(config=config, photos=photos, sessions=sessions)
    finally:
        sessions.close()


def serve_demo(
    demo: Demo,
    config: DemoConfig,
    listening: socket.socket,
    *,
    when_told_to_stop: Callable[[int], None] = lambda number: None,
) -> None:
    """Answer requests until the process is told to stop, as `serve` does."""
    settings = uvicorn.Config(
        make_demo_app(demo),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(config.proxy),
        forwarded_allow_ips=config.proxy or None,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=STOP_S,
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
    )
    StoppableServer(settings, when_told_to_stop).run(sockets=[listening])
