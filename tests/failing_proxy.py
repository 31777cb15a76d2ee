"""A proxy before a real S3 server that fails as networks do: refuses, loses requests, loses replies, breaks off."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REFUSES = ("answers 500", "answers 503")
LOSES = ("loses a request", "loses a reply", "resets after a reply")  # the last two: the server did what it was told
BREAKS_OFF = "breaks a body off"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Request = BaseHTTPRequestHandler  # `command`, `path` and `headers` say what is asked
FaultOf = Callable[[Request], str]  # one of the names above, or ""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """An HTTP server on loopback, with a thread for each connection; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients are killed all the time
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def proxy_to(upstream: str, fault_of: FaultOf) -> type[BaseHTTPRequestHandler]:  # noqa: C901
    """A proxy that asks `fault_of` what to do to each request."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else a body waits 40 ms for the acknowledgement of its headers

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = fault_of(self)
            if fault in REFUSES:
                return self.answer(int(fault.split()[1]), {}, b"")
            if fault == "loses a request":
                return self.hang_up()
            status, headers, data = self.ask(body)
            if fault == "resets after a reply":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            if fault in LOSES:
                return self.hang_up()
            return self.answer(status, headers, data, broken=fault == BREAKS_OFF)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

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

    return Proxy
