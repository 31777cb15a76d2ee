"""Settings of the demo: where it listens, and how much a visitor may ask for."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from stages.annotator.address import Address, check_encrypted, check_tls_files
from stages.annotator.config import SessionsConfig


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Address):
    """Settings of a demo."""

    port: int = 8766
    """Port to listen on; 0 takes a free one."""
    proxy: str = ""
    """Address of the proxy whose X-Forwarded-For names the visitors; empty means that visitors connect themselves."""

    max_file_bytes: int = 12_000_000
    """Largest photo file, in bytes."""
    max_pixels: int = 25_000_000
    """Largest photo, in pixels."""
    shortest_side_px: int = 1500
    """Shortest side to which larger photos are scaled down, in pixels, as ingest does."""
    max_photos: int = 32
    """Largest number of photos in memory; those used least recently are forgotten."""
    max_uploads: int = 4
    """Largest number of photos that are received at the same time."""
    receive_s: float = 30.0
    """Longest time that a request may take to arrive, in seconds."""

    requests_per_s: float = 20.0
    """Rate of requests from one address, per second; five times as many at once."""
    predictions_per_s: float = 10.0
    """Rate of clicks and boxes from one address, per second; three times as many at once."""
    photos_per_minute: float = 6.0
    """Rate of photos from one address, per minute; all addresses together may send ten times as many."""
    everything_per_minute: float = 4.0
    """Rate of requests for all masks of a photo from one address, per minute."""
    max_everything: int = 4
    """Largest number of such requests that wait while one is computed; further ones are refused as busy."""

    sessions: SessionsConfig = field(default_factory=lambda: SessionsConfig(max_preparing=8))
    """Settings of the part that turns clicks into masks; photos that wait to be encoded ahead stay in memory."""


def check_config(config: DemoConfig) -> None:
    """Check that a demo which other machines reach has TLS, or was asked to do without.

    Raises:
        ValueError: It has not, a file of TLS is missing, or the proxy is no address.
    """
    check_tls_files(config)
    if config.proxy:
        try:
            ipaddress.ip_address(config.proxy)
        except ValueError:
            raise ValueError(f"--proxy: got {config.proxy!r}, expected an IP address such as 127.0.0.1") from None
    check_encrypted(config, "visitors' photos")
