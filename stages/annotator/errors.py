"""One form for every error of the HTTP interface: {"error": code, "message": what was got, expected, what to do}."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from stages.annotator.decoding import Busy
from stages.rounds.close import UnansweredRound, UnfinishedRound
from storage.errors import Conflict, InvalidInput, NotFound, StoreError
from storage.workspace.checking import InvalidOperation
from storage.workspace.database import WorkspaceUnavailable
from storage.workspace.leases import StaleLease
from storage.workspace.lines import OutOfOrder
from storage.workspace.requests import RequestReused
from storage.workspace.submissions import StaleRevision

logger = logging.getLogger(__name__)

MAX_SHOWN = 200
"""Largest number of characters of a value that a message repeats."""


class ErrorView(BaseModel):
    """Every error of the interface."""

    error: str = Field(description="Code of the error, for programs.")
    message: str = Field(description="What was got, what was expected and what to do.")
    details: dict[str, Any] = Field(default={}, description="What a program needs to go on, such as a revision.")


class Refusal(Exception):
    """An error with its HTTP status and code, for what no other layer raises."""

    def __init__(
        self, status: int, code: str, message: str, *, details: Mapping[str, Any] | None = None, retry_s: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.details, self.retry_s = status, code, dict(details or {}), retry_s


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorView, "description": meaning}
    for status, meaning in {
        400: "Malformed request.",
        401: "Log in first.",
        403: "Not allowed for this account.",
        404: "Not there.",
        405: "Another method is expected.",
        409: "Conflict with the stored state; nothing is lost.",
        413: "Too large.",
        422: "Wrong content.",
        429: "Too many requests; try again later.",
        503: "Busy or not available; try again later.",
    }.items()
}
"""Errors that any route may answer with, for the OpenAPI document."""


_KINDS: dict[type[Exception], tuple[int, str]] = {
    Busy: (503, "busy"),
    WorkspaceUnavailable: (503, "workspace_unavailable"),
    OutOfOrder: (409, "out_of_order"),
    StaleRevision: (409, "stale_revision"),
    StaleLease: (409, "lease_ended"),
    InvalidOperation: (422, "invalid_operation"),
    UnansweredRound: (409, "round_unanswered"),
    UnfinishedRound: (409, "round_unfinished"),
    NotFound: (404, "not_found"),
    RequestReused: (409, "request_reused"),
    Conflict: (409, "conflict"),
    StoreError: (500, "storage"),
    InvalidInput: (422, "invalid"),
}
"""Status and code of the exceptions of other layers; the first kind that fits counts."""


def add_error_handlers(app: FastAPI) -> None:
    """Have every exception answered in the one form."""
    app.add_exception_handler(Exception, _answer_unexpected)
    for kind in (InvalidInput, StoreError, Busy, Refusal, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer)


def error_response(refusal: Refusal) -> JSONResponse:
    """Make the response of a refusal."""
    body = ErrorView(error=refusal.code, message=str(refusal), details=refusal.details)
    headers = {"Retry-After": str(refusal.retry_s)} if refusal.retry_s else None
    return JSONResponse(body.model_dump(), refusal.status, headers=headers)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    refusal = _as_refusal(error)
    if refusal.status == 500:
        logger.error("%s %s: %s", request.method, request.url.path, error)
    return error_response(refusal)


async def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed: %s: %s", request.method, request.url.path, type(error).__name__, error)
    message = "the server failed in a way it should not; its log says more. What you did is kept: send it again"
    return error_response(Refusal(500, "internal", message))


def _as_refusal(error: Exception) -> Refusal:
    """Translate an exception of any layer."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RequestValidationError):
        return _malformed(error)
    if isinstance(error, HTTPException):
        codes = {404: "no_such_route", 405: "method_not_allowed"}
        return Refusal(error.status_code, codes.get(error.status_code, "http"), str(error.detail))
    kind = next(kind for kind in _KINDS if isinstance(error, kind))
    status, code = _KINDS[kind]
    details = {name: getattr(error, name) for name in ("revision", "op_id") if hasattr(error, name)}
    if isinstance(error, UnfinishedRound):
        details = asdict(error.unfinished)
    return Refusal(status, code, str(error), details=details, retry_s=1 if status == 503 else 0)


def _malformed(error: RequestValidationError) -> Refusal:
    """Describe the first thing that is wrong with a request's form."""
    first = error.errors()[0]
    where = ".".join(str(each) for each in first["loc"])
    got = repr(first.get("input"))[:MAX_SHOWN]
    others = len(error.errors()) - 1
    more = f" (and {others} more)" if others else ""
    reason = first["msg"].removeprefix("Value error, ")
    message = f"{where}: got {got}: {reason}{more}; /docs shows what is expected"
    return Refusal(422, "malformed", message, details={"where": where})
