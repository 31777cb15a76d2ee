"""What commands that start a server on this machine share: a free port, the wait for it, its end."""

import ctypes
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

START_S = 180.0
"""Longest time that a server has to answer after its start, in seconds: Prefect's took 15 s to make a database, more on
a busy machine."""

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def end_with_parent() -> None:
    """Let the kernel end this process with its parent (Linux), so that a killed command leaves no server behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def find_free_port() -> int:
    """Find a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_server(name: str, health_url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server answers at the URL of its health.

    Args:
        name: What people call the server.
        health_url: URL that the server answers once it is ready.
        server: Its process.
        log: Its log, which the error names.

    Raises:
        ChildProcessError: The server ended.
        TimeoutError: It did not answer within `START_S`.
    """
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(health_url, timeout=5):
                return
        except OSError:
            if server.poll() is not None:
                raise ChildProcessError(f"{name} ended with {server.returncode}; see {log}") from None
            time.sleep(0.1)
    raise TimeoutError(f"{name} did not answer for {START_S:.0f} s; see {log}")


def stop_server(server: "subprocess.Popen[bytes]", within_s: float) -> None:
    """Tell a server to end with SIGTERM, and kill it if it has not ended after `within_s` seconds."""
    server.terminate()
    try:
        server.wait(within_s)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
