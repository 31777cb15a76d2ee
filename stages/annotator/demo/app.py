"""The demo's FastAPI application: the annotation server's routes of images and masks, and the demo's own page."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import RequestResponseEndpoint

from stages.annotator.access import find_annotator
from stages.annotator.app import LOOPBACK_HOSTS, SECURITY_HEADERS
from stages.annotator.decoders import WEB
from stages.annotator.demo import routes
from stages.annotator.demo.visitors import Arrival, Demo, find_visitor
from stages.annotator.errors import ERRORS, Refusal, add_error_handlers, error_response
from stages.annotator.limits import BodyLimit
from stages.annotator.routes import decoders, images, masks, tutorial

DECODER_PATH = "/api/decoder/onnx"
"""Route whose answer browsers may keep: it holds no visitor's photo."""


def make_demo_app(demo: Demo) -> FastAPI:
    """Build the application of a demo."""
    app = FastAPI(title="gigamask demo", version=version("gigamask"), responses=ERRORS, openapi_url=None)
    app.state.server = demo
    app.dependency_overrides[find_annotator] = find_visitor
    add_error_handlers(app)
    for group in (images, decoders, masks, tutorial, routes):
        app.include_router(group.router)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    def read_page() -> Response:
        return FileResponse(WEB / "demo" / "index.html")

    app.mount("/", StaticFiles(directory=WEB), name="page")
    app.middleware("http")(_add_headers)
    config = demo.config
    app.add_middleware(BodyLimit, max_bytes=config.max_file_bytes)
    app.add_middleware(Arrival, max_uploads=config.max_uploads, receive_s=config.receive_s)
    return app


async def _add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Refuse foreign names on this machine alone, add the security headers, and have browsers store no photo."""
    config = request.app.state.server.config
    is_foreign = request.url.hostname not in LOOPBACK_HOSTS
    if is_foreign and config.is_loopback and not config.proxy:
        text = f"got the host {request.url.hostname!r}, expected {' or '.join(LOOPBACK_HOSTS)}; open {config.url}"
        response: Response = error_response(Refusal(400, "foreign_host", text))
    else:
        response = await call_next(request)
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if request.url.path.startswith("/api/") and request.url.path != DECODER_PATH:
        response.headers["Cache-Control"] = "no-store"
    return response
