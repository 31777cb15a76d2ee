"""Where a server listens, and whether other machines reach it; shared by the annotation server and the demo."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Address:
    """Settings of where a server listens."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int
    """Port to listen on; 0 takes a free one."""
    tls_certificate: Path | None = None
    """File of the TLS certificate; None means plain HTTP."""
    tls_key: Path | None = None
    """File of the certificate's key; None where the certificate's file holds it."""
    allow_plain_http: bool = False
    """Whether what people send may cross a network in the clear, as behind a proxy that does TLS."""

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """Address of the server, for people."""
        scheme = "https" if self.tls_certificate else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


def check_tls_files(address: Address) -> None:
    """Check that the files of TLS exist, if any are named.

    Raises:
        ValueError: One is missing.
    """
    for file in (address.tls_certificate, address.tls_key):
        if file is not None and not file.is_file():
            raise ValueError(f"{file}: no such file; expected the TLS certificate and its key in PEM form")


def check_encrypted(address: Address, what: str) -> None:
    """Check that a server which other machines reach has TLS, or was asked to do without.

    Args:
        address: Where it listens.
        what: What would cross the network in the clear.

    Raises:
        ValueError: It has not.
    """
    if not address.is_loopback and address.tls_certificate is None and not address.allow_plain_http:
        raise ValueError(
            f"--host {address.host} without TLS sends {what} in the clear; give --tls-certificate and --tls-key, or "
            "say --allow-plain-http if a proxy in front does TLS"
        )
