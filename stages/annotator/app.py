"""The FastAPI application: the routes under /api, the page under /, one error format and the security headers."""

from __future__ import annotations

import html
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import RequestResponseEndpoint

from stages.annotator.decoders import WEB
from stages.annotator.errors import ERRORS, Refusal, add_error_handlers, error_response
from stages.annotator.limits import BodyLimit
from stages.annotator.metrics import add_metrics
from stages.annotator.routes import (
    decoders,
    images,
    logins,
    masks,
    operations,
    people,
    reviews,
    rounds,
    tasks,
    tutorial,
)
from stages.annotator.server import Server

MAX_BODY_BYTES = 32_000_000
"""Largest body of a request, in bytes."""
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
"""Names under which a browser on this machine reaches the server; another one means that a foreign page asks."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
        "img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer. The page runs own files alone; the cross-origin ones let it use threads."""


def make_app(server: Server) -> FastAPI:
    """Build the application of a server."""
    app = FastAPI(
        title="gigamask annotation server",
        version=version("gigamask"),
        description="Rounds, tasks and masks. Errors have one form; ids of images are texts.",
        responses=ERRORS,
        generate_unique_id_function=_operation_id,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.server = server
    add_error_handlers(app)
    for group in (logins, rounds, tasks, operations, images, decoders, masks, reviews, people, tutorial):
        app.include_router(group.router)
    add_metrics(app, server)
    _add_page(app)
    app.middleware("http")(_add_headers)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


async def _add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Refuse foreign names on a laptop, and add the security headers to every answer."""
    server: Server = request.app.state.server
    if server.access.config.mode == "laptop" and request.url.hostname not in LOOPBACK_HOSTS:
        text = f"got the host {request.url.hostname!r}, expected {' or '.join(LOOPBACK_HOSTS)}; open the printed link"
        response: Response = error_response(Refusal(400, "foreign_host", text))
    else:
        response = await call_next(request)
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if request.url.path.startswith("/api/"):
        response.headers.setdefault("Cache-Control", "no-store")
    return response


_REFUSED_LINK = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>gigamask: this link has been used</title>
<link rel="stylesheet" href="/style/base.css">
<main class="notice">
<h1>This link does not open the page any more</h1>
<p>{reason}.</p>
<p>A link logs one browser in, once. In the browser that opened it first, <a href="/">go on here</a>. For another
browser, stop the server with Ctrl+C and give the same command again: it prints a new link, and nothing that you
did is lost.</p>
</main>
</html>
"""


def _add_page(app: FastAPI) -> None:
    """Serve the page's files, and the link that logs a laptop's user in."""

    @app.get("/link", include_in_schema=False)
    def open_link(request: Request, token: str = "") -> Response:
        """Exchange the link's one-time token for the session cookie, and go to the page without the token."""
        server: Server = request.app.state.server
        try:
            login = server.access.log_in_by_link(token[:200])
        except Refusal as refusal:
            if server.access.is_logged_in(request):  # the same browser opens its link again
                return RedirectResponse("/", 303)
            return HTMLResponse(_REFUSED_LINK.format(reason=html.escape(str(refusal))), 401)
        response = RedirectResponse("/", 303)
        server.access.set_cookie(response, login)
        return response

    app.mount("/", StaticFiles(directory=WEB, html=True), name="page")
