"""A real S3 server, and a proxy before it that fails: refuses, loses requests, loses replies, resets, breaks off."""

import http.client
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import boto3

from tests.faults.workers import end_with_parent

SERVER = Path(__file__).resolve().parents[1] / "s3_server.py"
FAULT_RATE = 0.02
FAULTS = ("answers 500", "answers 503", "loses a request", "loses a reply", "resets after a reply", "breaks a body off")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Address of a server started for this run. Raises SystemExit where its programs are not installed."""
    port = _free_port()
    command = [sys.executable, str(SERVER), str(folder / "s3"), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    if server.stdout.readline() != "ready\n":
        raise SystemExit(f"no S3 server: {server.communicate()[1].strip()}")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=60)


def environment(endpoint: str) -> dict[str, str]:
    """How clients find the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testtest",
        "AWS_SECRET_ACCESS_KEY": "secretsecret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nowhere",
    }


def make_bucket(endpoint: str) -> str:
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="faults")
    return "faults"


class Proxy:
    """The proxy, in a process of its own; its dice are seeded, its faults counted."""

    def __init__(self, upstream: str, seed: float, log: Path) -> None:
        self.log = log
        log.touch()
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.pid = os.fork()
        if not self.pid:
            try:
                end_with_parent()
                _serve(listener, upstream, random.Random(seed), log)
            finally:
                os._exit(1)
        listener.close()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def counts(self) -> Counter:
        return Counter(f"network {line}" for line in self.log.read_text().splitlines())


def _serve(listener: socket.socket, upstream: str, dice: random.Random, log: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(upstream, dice, log), bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients are killed all the time
    server.serve_forever()


def _handler(upstream: str, dice: random.Random, log: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = self.choose_fault()
            if fault.startswith("answers"):
                return self.answer(int(fault.split()[1]), {}, b"")
            if fault == "loses a request":
                return self.hang_up()
            status, headers, data = self.ask(body)
            if fault == "loses a reply":
                return self.hang_up()
            if fault == "resets after a reply":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                return self.hang_up()
            return self.answer(status, headers, data, broken=bool(fault))

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

        def choose_fault(self) -> str:
            if dice.random() > FAULT_RATE:
                return ""
            fault = dice.choice(FAULTS if self.command == "GET" else FAULTS[:-1])
            with log.open("a") as lines:
                lines.write(f"{fault}\n")
            return fault

        def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            data = reply.read()
            connection.close()
            return reply.status, dict(reply.getheaders()), data

        def answer(self, status: int, headers: dict[str, str], data: bytes, broken: bool = False) -> None:
            self.send_response_only(status)
            length = headers.pop("Content-Length", None) if self.command == "HEAD" else None
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if broken else data)
            if broken:
                self.hang_up()

        def hang_up(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
