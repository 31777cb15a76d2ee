"""A whole annotation server within the test's process, and clients of its accounts."""

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from stages.annotator.access import COOKIE, CSRF_HEADER
from stages.annotator.server import Server
from storage.workspace.records import RoundSpec, TaskSpec


@dataclass(kw_only=True)
class Site:
    """A server in this process, with accounts, and clients that are logged in."""

    server: Server
    app: FastAPI

    def anyone(self) -> TestClient:
        """A client without a login."""
        return TestClient(self.app, base_url="http://127.0.0.1", raise_server_exceptions=False)

    def logged_in(self, name: str) -> TestClient:
        """A client of an account."""
        client = self.anyone()
        token = self.server.workspace.users.log_in(name, seconds=3600)
        client.cookies.set(COOKIE, token)
        client.headers[CSRF_HEADER] = client.get("/api/me").json()["csrf_token"]
        return client

    def open_round(self, images: int = 6, **more: Any) -> str:
        """Open a round over the images of the dataset, and return its id."""
        rows = self.server.dataset.query(f"SELECT image_id, height, width FROM images ORDER BY image_id LIMIT {images}")
        tasks = tuple(TaskSpec(**row, **more) for row in rows.to_pylist())
        return self.server.workspace.rounds.open(RoundSpec(stage="assisted_manual", tasks=tasks)).round_id

    def routes(self) -> list[APIRoute]:
        """Every route of the application, those outside its OpenAPI document as well."""
        routers = [
            self.app.router,
            *(each.original_router for each in self.app.routes if hasattr(each, "original_router")),
        ]
        return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


def error_of(answer: Any, status: int) -> str:
    """The code of an error, after checking its status."""
    assert answer.status_code == status, answer.text
    return answer.json()["error"]
