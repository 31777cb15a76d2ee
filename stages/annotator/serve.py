"""Start of the annotation server: what it may be exposed to, what it opens, and uvicorn."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn

from stages.annotator.access import LAPTOP_USER, Access, AccessConfig, Mode
from stages.annotator.address import Address, check_encrypted, check_tls_files
from stages.annotator.app import make_app
from stages.annotator.config import SessionsConfig
from stages.annotator.server import Server
from stages.annotator.sessions import Sessions
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.workspace.records import Role
from storage.workspace.workspace import Workspace

BACKLOG = 2048
"""Number of connections that may wait to be accepted."""
STOP_S = 5
"""Longest time that requests in progress have when the server stops, in seconds."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig(Address):
    """Settings of a server process."""

    port: int = 8765
    """Port to listen on; 0 takes a free one."""
    mode: Mode = "laptop"
    allow_no_accounts: bool = False
    """Whether anyone with the link may reach a server without accounts over a network."""
    sessions: SessionsConfig = field(default_factory=SessionsConfig)


def check_exposure(config: ServeConfig) -> None:
    """Check that a server which other machines reach has accounts and TLS, or was asked to do without.

    Raises:
        ValueError: It has not, or a file of TLS is missing.
    """
    check_tls_files(config)
    if not config.is_loopback and config.mode == "laptop" and not config.allow_no_accounts:
        raise ValueError(
            f"--host {config.host} lets other machines reach a server without accounts; add --team, keep to "
            "127.0.0.1, or say --allow-no-accounts if everyone on that network may see and change everything"
        )
    check_encrypted(config, "passwords and sessions")


@contextmanager
def open_server(
    dataset: Dataset, workspace: Workspace, models: Sequence[str], cache: Path, config: ServeConfig
) -> Iterator[Server]:
    """Open all that requests need, and close it at the end of the block.

    Raises:
        ValueError: A model cannot be loaded, or the server would be exposed without having been asked to, or a team
            has no account with a password.
    """
    check_exposure(config)
    users = workspace.users
    if config.mode == "laptop":
        try:
            users.get(LAPTOP_USER)
        except NotFound:
            users.add(LAPTOP_USER, Role.LEAD)
    elif not any(user.has_password and not user.disabled for user in users.read_all()):
        raise ValueError("--team needs accounts and the workspace has none; run `gigamask users add NAME --role lead`")
    sessions = Sessions(dataset, models, cache, config.sessions)
    access = Access(
        workspace=workspace, config=AccessConfig(mode=config.mode, secure_cookies=config.tls_certificate is not None)
    )
    sessions.warm_up()
    server = Server(dataset=dataset, workspace=workspace, sessions=sessions, access=access)
    try:
        yield server
    finally:
        server.doubts.close()
        sessions.close()


def listen(config: ServeConfig) -> socket.socket:
    """Open the port.

    Raises:
        OSError: The port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Without the protocol's number asyncio leaves Nagle's algorithm on, which delays every answer by 40 ms
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((config.host, config.port))
        opened.listen(BACKLOG)  # who opens the printed link at once waits for the server
    except OSError as error:
        opened.close()
        raise OSError(
            f"cannot listen on {config.host}:{config.port} ({error.strerror}); is a server running there? --port "
            "chooses another"
        ) from error
    return opened


def serve(
    server: Server,
    config: ServeConfig,
    listening: socket.socket,
    *,
    when_told_to_stop: Callable[[int], None] = lambda number: None,
) -> None:
    """Answer requests until SIGINT or SIGTERM tells the process to stop.

    Requests in progress are finished first, for at most STOP_S seconds. Then the signal is raised again, for the
    handler that was there before.

    Args:
        server: The server.
        config: Its settings.
        listening: The open port.
        when_told_to_stop: Function that is called at once with the number of the signal.
    """
    settings = uvicorn.Config(
        make_app(server),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
    )
    StoppableServer(settings, when_told_to_stop).run(sockets=[listening])


class StoppableServer(uvicorn.Server):
    """Server of uvicorn that reports a signal at once. As before, it raises the signal again after it has stopped."""

    def __init__(self, settings: uvicorn.Config, when_told_to_stop: Callable[[int], None]) -> None:
        super().__init__(settings)
        self._when_told_to_stop = when_told_to_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop. Requests cut off from now on are not logged as errors; their clients send them again."""
        self._when_told_to_stop(sig)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().handle_exit(sig, frame)
