"""A client of the annotation server: logs in, goes on through restarts, and logs what it sent and what was confirmed.

Writes are sent until they are confirmed; the server stores an operation once, however often it arrives.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

RETRY_S = (0.1, 0.3, 1.0, 2.0)
"""Pauses between attempts, in seconds; the last one is repeated."""
TIMEOUT_S = 60.0
PATIENCE_S = 60.0
"""Longest time after the end of the run for which a request is sent again, in seconds."""


class Stopped(Exception):
    """End of the run while the server did not answer."""


class Refused(Exception):
    """Refusal by the server: what was sent is wrong or no longer fits."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {body.get('error')}: {body.get('message')}")
        self.status, self.code, self.details = status, str(body.get("error")), dict(body.get("details", {}))


class Log:
    """JSON lines of one annotator: what was sent, confirmed, claimed and measured."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, **facts: object) -> None:
        """Add a line, and hand it to the operating system at once."""
        self._file.write(json.dumps({"event": event, "at": time.time(), **facts}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Client:
    """One account's connection to the server.

    Args:
        url: Address of the server.
        name: Name of the account.
        password: Password of the account, or the one-time token of a laptop's link if `by_link`.
        log: Log of what is sent and confirmed.
        stop: End of the run.
        http: Connection to use; None opens one to `url`.
        patience_s: Longest time after the end of the run for which a request is sent again, in seconds.
        by_link: Whether the server is a laptop's, which has one account and a link.
    """

    def __init__(
        self,
        url: str,
        name: str,
        password: str,
        log: Log,
        *,
        stop: threading.Event,
        http: httpx.Client | None = None,
        patience_s: float = PATIENCE_S,
        by_link: bool = False,
    ) -> None:
        self.name, self.log = name, log
        self._patience_s = patience_s
        self._password, self._by_link, self._stop = password, by_link, stop
        self._http = http or httpx.Client(base_url=url, timeout=TIMEOUT_S)
        self._csrf, self._attempt_ms = "", 0.0

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str, **parameters: str | int) -> Any:
        """Read something.

        Raises:
            Refused: The server refuses.
            Stopped: The run ended while the server did not answer.
        """
        return self._request("GET", path, params=parameters)

    def post(self, path: str, body: Mapping[str, Any], **parameters: str | int) -> Any:
        """Send something until it is answered.

        Raises:
            Refused: The server refuses.
            Stopped: The run ended while the server did not answer.
        """
        return self._request("POST", path, json=body, params=parameters)

    def post_timed(self, path: str, body: Mapping[str, Any]) -> tuple[Any, float]:
        """Send something, and return the answer and the milliseconds of the attempt that was answered."""
        answer = self.post(path, body)
        return answer, self._attempt_ms

    def post_and_lose_the_reply(self, path: str, body: Mapping[str, Any]) -> None:
        """Send something and hang up before the answer, as a connection that breaks does."""
        with suppress(httpx.HTTPError):
            self._http.post(path, json=body, headers=self._headers, timeout=httpx.Timeout(0.02, connect=5.0))

    @property
    def _headers(self) -> dict[str, str]:
        return {"X-CSRF-Token": self._csrf}

    def _request(self, method: str, path: str, **options: Any) -> Any:
        attempt, give_up_at = 0, float("inf")
        while True:
            answer = self._try(method, path, **options)
            if answer is not None and answer.status_code == 401 and not path.startswith("/api/login"):
                self._log_in()
                continue
            if answer is not None and answer.status_code < 400:
                return answer.json()
            if answer is not None and answer.status_code not in (429, 500, 502, 503):
                raise Refused(answer.status_code, answer.json())
            self.log.write("retry", path=path, status=None if answer is None else answer.status_code)
            if self._stop.is_set():
                give_up_at = min(give_up_at, time.monotonic() + self._patience_s)
            if time.monotonic() > give_up_at:
                raise Stopped(f"{method} {path} was not answered for {self._patience_s:.0f} s after the end of the run")
            time.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1

    def _try(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Send a request once; None where the connection broke."""
        began = time.perf_counter()
        try:
            answer = self._http.request(method, path, headers=self._headers, **options)
        except httpx.TransportError:
            return None
        self._attempt_ms = 1000 * (time.perf_counter() - began)
        self.log.write("request", method=method, path=path, status=answer.status_code, ms=round(self._attempt_ms, 2))
        return answer

    def _log_in(self) -> None:
        path, body = "/api/login", {"name": self.name, "password": self._password}
        if self._by_link:
            path, body = "/api/login/link", {"token": self._password}
        self._csrf = self._request("POST", path, json=body)["csrf_token"]


def uuid7() -> str:
    """Make a UUID of version 7: milliseconds since 1970, then random bits."""
    value = (int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | (7 << 76)
    return str(uuid.UUID(int=value & ~(0x3 << 62) | (0x2 << 62)))
